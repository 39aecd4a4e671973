//! `guestseal template`: make, list, check and delete templates.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::args::{CatalogueArgs, ImageArgs, SealArgs};
use super::describe::{describe_erasure, describe_found, summary};
use super::exit::Exit;
use super::guests::{self, libvirt};
use super::print::{Printer, bytes, clean};
use super::request::{Plans, catalogue, plans};
use super::run::{each, show_passwords, target, terminal, to_json};
use crate::domain::deploy::template as cleaned;
use crate::error::{Error, ErrorKind, Result};
use crate::image::format::Format;
use crate::operation::Catalogue;
use crate::plan::{Plan, Planned};
use crate::record;
use crate::report::{Event, Observer};
use crate::survey::Target;
use crate::sys::tool::Tool;
use crate::template::Template;
use crate::template::create::{NewTemplate, check, check_unused, create};
use crate::template::seed_place::OPERATION as SEED_PLACE;
use crate::template::store::{DEFAULT, Store};
use crate::template::thin_clones::{ThinClone, find, made_of};
use crate::template::verify::{TemplateVerdict, check_clone, verify};

/// Where templates are.
#[derive(Debug, Clone, Default, Args)]
pub struct StoreArgs {
    /// The folder of templates [default: /var/lib/guestseal/templates].
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
}

impl StoreArgs {
    /// It.
    pub fn store(&self) -> Store {
        Store::at(self.store.clone().unwrap_or_else(|| DEFAULT.into()))
    }
}

/// What `template` can do.
#[derive(Debug, Subcommand)]
pub enum TemplateCommand {
    /// Seal an image or a domain into a new template; what it is made of is only read.
    Create(Box<CreateArgs>),
    /// List the templates: name, system, size, when they were sealed.
    List {
        /// Where they are.
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Show the record of a template and where its files are.
    Show {
        /// Its name.
        name: String,
        /// Where it is.
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Hold templates against their records, and thin clones against them.
    Verify(Box<TemplateVerifyArgs>),
    /// Delete a template that has no thin clones.
    Delete {
        /// Its name.
        name: String,
        /// Delete it even when thin clones of it are found, which cannot be read any more then.
        #[arg(long)]
        force: bool,
        /// Where it is.
        #[command(flatten)]
        store: StoreArgs,
        /// Where thin clones may be.
        #[command(flatten)]
        clones: ClonesArgs,
    },
}

/// Where thin clones are looked for.
#[derive(Debug, Clone, Default, Args)]
pub struct ClonesArgs {
    /// Look for thin clones in this folder, beside the pools and domains of libvirt. May be repeated.
    #[arg(long, value_name = "DIR")]
    pub look_in: Vec<PathBuf>,
    /// Reach libvirt at this URI.
    #[arg(short, long, value_name = "URI")]
    pub connect: Option<String>,
}

/// The options of `template create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its name.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where it will be.
    #[command(flatten)]
    pub store: StoreArgs,
    /// What it is made of, and how that is sealed.
    #[command(flatten)]
    pub seal: SealArgs,
}

/// The options of `template verify`.
#[derive(Debug, Args)]
pub struct TemplateVerifyArgs {
    /// Their names.
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Where they are.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Where thin clones may be.
    #[command(flatten)]
    pub clones: ClonesArgs,
    /// How to open them.
    #[command(flatten)]
    pub image: ImageArgs,
    /// Where operations come from.
    #[command(flatten)]
    pub catalogue: CatalogueArgs,
}

/// Does it.
///
/// # Errors
/// What kept it from being done.
pub(super) fn template(command: TemplateCommand, printer: &mut Printer) -> Result<Exit> {
    match command {
        TemplateCommand::Create(args) => make(*args, printer),
        TemplateCommand::List { store } => list(&store.store(), printer),
        TemplateCommand::Show { name, store } => show(&store.store().find(&name)?, printer),
        TemplateCommand::Verify(args) => verify_all(&args, printer),
        TemplateCommand::Delete { name, force, store, clones } => {
            delete(&store.store(), &name, (force, &clones), printer)
        }
    }
}

fn make(args: CreateArgs, printer: &mut Printer) -> Result<Exit> {
    let CreateArgs { name, store, mut seal } = args;
    refuse(&seal)?;
    seal.selection.steps.refuse()?;
    let format = (seal.output_format.take().unwrap_or(Format::Qcow2), std::mem::take(&mut seal.compress));
    let flatten = std::mem::take(&mut seal.flatten);
    // A copy of a guest that runs goes into a new file, here into the store.
    seal.running.has_place = true;
    let catalogue = catalogue(&seal.selection.catalogue)?;
    let Plans { plans, warnings, generated } = plans(&mut seal)?;
    seal.selection.forget_passwords();
    let [mut plan] = <[Plan; 1]>::try_from(plans).map_err(|_| {
        Error::usage("a template is made of one guest").hint("name the disks of a guest with several by -a")
    })?;
    plan.past.flatten = flatten;
    // A new file takes any size.
    plan.expand.iter_mut().for_each(|expand| expand.grows_image = false);
    add_seed_place(&mut plan, &catalogue)?;
    check(&plan)?;
    let mut shown = (!generated.is_empty()).then(terminal).transpose()?;
    warnings.iter().for_each(|warning| printer.warning(warning));
    let definition = match &plan.domain {
        None => None,
        Some(domain) => {
            guests::tell_notes(domain, printer);
            Some(cleaned(domain.definition())?)
        }
    };
    let started = std::time::Instant::now();
    let store = store.store();
    let new = NewTemplate { name: &name, store: &store, format, definition };
    let (template, report) = create(new, &mut plan, printer)?;
    printer.end_progress();
    printer.line(&summary(&plan, &report, started, printer));
    printer.phases(&report.phases);
    let immutable = template.facts().is_some_and(|facts| facts.disks.iter().all(|disk| disk.immutable));
    if !immutable {
        printer.warning("this filesystem has no immutable files: root can write to the template by mistake");
    }
    printer.line(&format!("{} {name}: guestseal clone {name} NEW", printer.paint("template", "32;1")));
    if let Some(terminal) = &mut shown {
        show_passwords(terminal, &generated)?;
    }
    if printer.is_json() {
        printer.document(&json!({ "template": described(&template), "seal": to_json(&report)?.1 }))?;
    }
    Ok(Exit::Done)
}

/// Options of `seal` that say what else is to be done.
fn refuse(args: &SealArgs) -> Result<()> {
    let given = [
        ("--output", args.output.is_some()),
        ("--in-place", args.in_place),
        ("--tree", args.tree.is_some()),
        ("--dry-run", args.dry_run),
        ("--rehearse", args.rehearse),
        ("--list-operations", args.list_operations),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Error::usage(format!("{name} does not go with template create"))
            .hint("a template is a new file in the store, and what it is made of is only read")),
        None => Ok(()),
    }
}

/// Where the seed is removed, clones get theirs in its place.
fn add_seed_place(plan: &mut Plan, catalogue: &Catalogue) -> Result<()> {
    let has = |name: &str| plan.operations.iter().any(|planned| planned.operation.name == name);
    if has("random-seed") && !has(SEED_PLACE) {
        let operation = catalogue.get(SEED_PLACE)?.clone();
        let settings = crate::action::Settings::default();
        plan.operations.push(Planned { operation, settings, sources: Vec::new() });
    }
    Ok(())
}

fn described(template: &Template) -> Value {
    let seal = template.record.as_ref().map(|known| &known.record.predicate);
    json!({
        "name": template.name,
        "images": template.images,
        "system": seal.map(|seal| seal.guest["os"]["pretty-name"].clone()),
        "sealed": seal.map(|seal| &seal.finished),
        "facts": template.facts(),
    })
}

fn list(store: &Store, printer: &mut Printer) -> Result<Exit> {
    let names = store.names()?;
    if names.is_empty() {
        printer.line(&format!("there are no templates in {}", store.folder().display()));
    }
    each(names, printer, |name, printer| {
        let template = store.find(&name)?;
        let value = described(&template);
        let text = |value: &Value| clean(value.as_str().unwrap_or("unknown"));
        let size =
            template.facts().map_or(0, |facts| facts.disks.iter().map(|disk| disk.virtual_bytes).sum());
        let touched = match template.is_whole_untouched()? {
            Some(false) => "  touched since, see template verify",
            _ => "",
        };
        printer.result(&format!(
            "{name}  {}  {}  {}{touched}",
            text(&value["system"]),
            bytes(size),
            text(&value["sealed"])
        ));
        Ok((Exit::Done, value))
    })
}

fn show(template: &Template, printer: &Printer) -> Result<Exit> {
    if printer.is_json() {
        let record = template.record.as_ref().map(|known| &known.record);
        printer.document(&json!({ "template": described(template), "record": record }))?;
        return Ok(Exit::Done);
    }
    let value = described(template);
    let text = |value: &Value| clean(value.as_str().unwrap_or("unknown"));
    printer.result(&format!("name: {}", template.name));
    printer.result(&format!("system: {}", text(&value["system"])));
    printer.result(&format!("sealed: {}", text(&value["sealed"])));
    for image in &template.images {
        printer.result(&format!("image: {}", image.display()));
    }
    if let Some(facts) = template.facts() {
        if let Some(definition) = &facts.definition {
            printer.result(&format!(
                "definition: {}",
                template.images[0].with_file_name(&definition.name).display()
            ));
        }
        let seed = if facts.seed.is_some() { "written into the image" } else { "given by an operation" };
        printer.result(&format!("random seed of clones: {seed}"));
    }
    Ok(Exit::Done)
}

fn verify_all(args: &TemplateVerifyArgs, printer: &mut Printer) -> Result<Exit> {
    let (store, catalogue) = (args.store.store(), catalogue(&args.catalogue)?);
    let nothing = guests::Guests { guests: Vec::new(), formats: Vec::new(), domain: None };
    let target = target(&args.image, &nothing, &[])?;
    each(&args.names, printer, |name, printer| {
        let template = store.find(name)?;
        let clones = clones(&template, &args.clones, printer)?;
        let formats = (0..template.images.len()).map(|disk| template.format(disk)).collect();
        let target = Target { images: template.images.clone(), formats, ..target.clone() };
        let verdict = verify(&template, &clones, &target, &catalogue, printer)?;
        printer.end_progress();
        tell(&verdict, printer);
        let good = verdict.sealed && verdict.broken_clones.is_empty();
        let exit = if good { Exit::Done } else { Exit::from(ErrorKind::Found) };
        to_json(&verdict).map(|(_, value)| (exit, value))
    })
}

/// Whether an image is a thin clone that guestseal made, and was not sealed itself since.
pub(super) fn is_clone(image: &Path) -> bool {
    !record::path_of(image).exists() && made_of(image).is_some()
}

/// `verify` of a thin clone: whether what lies below it is what it was made of. What its guest did is its own.
///
/// # Errors
/// [`ErrorKind::Found`] when it is broken.
pub(super) fn verify_clone(image: &Path, printer: &mut Printer) -> Result<(Exit, Value)> {
    let below = check_clone(image, printer)?;
    printer.end_progress();
    let whole = printer.paint("whole", "32;1");
    let template = below.as_deref().unwrap_or(image).display();
    printer.line(&format!(
        "{}: {whole}: a thin clone of {template}, which is as it was sealed",
        image.display()
    ));
    Ok((Exit::Done, json!({ "image": image, "whole": true, "template": below })))
}

fn tell(verdict: &TemplateVerdict, printer: &mut Printer) {
    let images = &verdict.images;
    images.erasure.iter().for_each(|erasure| describe_erasure(erasure, printer));
    if images.digest_matches == Some(false) {
        printer.warning("it is not the image that was sealed: its digest differs");
    } else if !verdict.untouched {
        printer.line("its files were touched or copied since, with the same content");
    }
    images.mounted.iter().for_each(|sentence| printer.warning(sentence));
    verdict.definition.iter().for_each(|sentence| printer.warning(sentence));
    describe_found(&images.found, &images.unsure, printer);
    for clone in &verdict.broken_clones {
        printer.warning(&format!("the thin clone {} is broken: do not start it", clone.path.display()));
    }
    let word = match verdict.sealed {
        true => printer.paint("sealed", "32;1"),
        false => printer.paint("not sealed any more", "31;1"),
    };
    printer.line(&format!("{}: {word}; {} thin clones found", verdict.name, verdict.thin_clones));
}

/// The thin clones of a template, as far as they can be found: without libvirt in the folders that are named.
fn clones(template: &Template, args: &ClonesArgs, printer: &mut Printer) -> Result<Vec<ThinClone>> {
    let mut files = Vec::new();
    if args.connect.is_some() || Tool::find("virsh").is_ok() {
        let libvirt = libvirt(args.connect.clone());
        let known = libvirt.connect().and_then(|_| {
            let disks = libvirt.domain_disks()?.into_iter().map(|(_, path)| path);
            Ok(disks.chain(libvirt.volumes()?).collect::<Vec<_>>())
        });
        match known {
            Ok(known) => files = known,
            Err(error) if args.connect.is_some() => return Err(error),
            Err(error) => {
                printer.event(Event::Told(&format!("libvirt is not asked for thin clones: {error}")));
            }
        }
    }
    find(template, &args.look_in, &files)
}

fn delete(
    store: &Store,
    name: &str,
    (force, args): (bool, &ClonesArgs),
    printer: &mut Printer,
) -> Result<Exit> {
    let template = store.find(name)?;
    let clones = clones(&template, args, printer)?;
    if let (Some(first), false) = (clones.first(), force) {
        let what = format!(
            "{} thin clones lie over the template {name}, such as {}",
            clones.len(),
            first.path.display()
        );
        return Err(Error::new(ErrorKind::Busy, what)
            .hint("delete them first, or make them whole: qemu-img rebase -b \"\" IMAGE; --force deletes the template all the same"));
    }
    if !force {
        check_unused(&template)?;
    }
    store.remove(name)?;
    printer.line(&format!("{} {name}", printer.paint("deleted", "32;1")));
    if printer.is_json() {
        printer.document(&json!({ "deleted": name }))?;
    }
    Ok(Exit::Done)
}
