//! `guestseal clone`: its options, and what it does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::args::ImageArgs;
use super::exit::Exit;
use super::expand::{ExpandArgs, told};
use super::guests::libvirt;
use super::print::Printer;
use super::request::{Base, Chosen, catalogue, choose_from, isolation, mount_options};
use super::run::{each, show_passwords, terminal};
use super::selection::SelectionArgs;
use super::template::StoreArgs;
use crate::action::Settings;
use crate::clone::deploy::{Deployed, Deployment};
use crate::clone::names::Pattern;
use crate::clone::source::Source;
use crate::clone::{Cloned, How, Mounting, NewClone, Seed, clone as make, refuse_taken};
use crate::error::{Context, Error, Result};
use crate::image::format::Format;
use crate::operation::{BUILTIN, Catalogue, parse};
use crate::plan::Planned;
use crate::template::seed_place::NEW_SEED;

/// The options of `clone`.
#[derive(Debug, Clone, Args)]
pub struct CloneArgs {
    /// The template: its name in the store, or the path of a sealed image.
    #[arg(value_name = "TEMPLATE")]
    pub template: PathBuf,
    /// The clone's image, or its name; %d or %03d stands for the number with --count.
    #[arg(value_name = "NEW")]
    pub new: String,
    /// A copy-on-write layer over the template, which must stay where it is: so without this option too.
    #[arg(long, conflicts_with = "full")]
    pub thin: bool,
    /// A clone with all that the template has; blocks are shared with it where the filesystem can.
    #[arg(long)]
    pub full: bool,
    /// Name the template in thin clones by its path from their folder, for folders that are moved together.
    #[arg(long, conflicts_with = "full")]
    pub relative: bool,
    /// Format of a full clone; the template's own when left out.
    #[arg(long, value_name = "FORMAT", requires = "full")]
    pub output_format: Option<Format>,
    /// Compress a full clone.
    #[arg(long, requires = "full")]
    pub compress: bool,
    /// Make so many clones.
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=10000))]
    pub count: u32,
    /// The number of the first.
    #[arg(long, value_name = "N", default_value = "1")]
    pub first: u32,
    /// Put the images into this folder.
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Make the first disk of the clone that large, or larger by so much (20G, +5G), and let the root fill it.
    #[arg(long, value_name = "SIZE|+SIZE")]
    pub expand: Option<String>,
    /// Let this volume fill the larger disk instead, as --root names it.
    #[arg(long, value_name = "VOLUME", requires = "expand")]
    pub expand_volume: Option<String>,
    /// Leave the clone without a random seed of its own.
    #[arg(long)]
    pub no_random_seed: bool,
    /// Define a domain of libvirt for each clone, from the definition of the template.
    #[arg(long)]
    pub define: bool,
    /// Start it.
    #[arg(long, requires = "define")]
    pub start: bool,
    /// Reach libvirt at this URI.
    #[arg(short, long, value_name = "URI", requires = "define")]
    pub connect: Option<String>,
    /// Clone what is not sealed, or is not any more.
    #[arg(long)]
    pub force: bool,
    /// Where templates are.
    #[command(flatten)]
    pub store: StoreArgs,
    /// How to open the guest where operations run.
    #[command(flatten)]
    pub image: ImageArgs,
    /// What each clone has of its own; %d in --hostname is its number.
    #[command(flatten)]
    pub selection: SelectionArgs,
}

/// Makes the clones.
///
/// # Errors
/// Usage errors; what goes wrong with a single clone is told, and the others are made.
pub(super) fn clone(args: &CloneArgs, printer: &mut Printer) -> Result<Exit> {
    args.selection.steps.refuse()?;
    let how = match args.full {
        false => How::Thin { relative: args.relative },
        true => How::Full { format: args.output_format, compress: args.compress },
    };
    let mut source = Source::open(&args.store.store(), &args.template, args.force, printer)?;
    let format = source.format_of(how);
    refuse_format(how, format)?;
    let expand = ExpandArgs { expand: args.expand.clone(), expand_volume: args.expand_volume.clone() };
    expand.plan(args.full)?.map_or(Ok(()), |expand| source.grow(expand))?;
    let wanted = wanted(args, format)?;
    let mut deployment = match args.define {
        false => None,
        true => Some(Deployment::new(libvirt(args.connect.clone()), &source.template, args.start)?),
    };
    if let Some(deployment) = &deployment {
        wanted.iter().try_for_each(|one| deployment.refuse_taken(&one.name))?;
        deployment
            .notes()?
            .iter()
            .for_each(|note| printer.line(&super::print::clean(&format!("note: {note}"))));
    }
    let mut customisation = Customisation::of(args)?;
    each(wanted, printer, |one, printer| {
        let Wanted { image, name, number } = one;
        let (operations, generated) = customisation.operations(number, printer)?;
        let mut shown = (!generated.is_empty()).then(terminal).transpose()?;
        let new = NewClone { image, operations };
        let how_mounted = (&customisation.mounting, customisation.new_seed.as_ref());
        let cloned = make(&source, new, how, how_mounted, printer)?;
        let domain =
            deployment.as_mut().map(|deployment| deployment.deploy(&name, &cloned, format)).transpose()?;
        printer.end_progress();
        cloned.expanded.iter().for_each(|expanded| printer.line(&told(expanded, true)));
        printer.line(&describe(&cloned, domain.as_ref(), printer));
        if let Some(terminal) = &mut shown {
            show_passwords(terminal, &generated)?;
        }
        result(&cloned, domain.as_ref())
    })
}

fn result(cloned: &Cloned, domain: Option<&Deployed>) -> Result<(Exit, Value)> {
    let mut value = serde_json::to_value(cloned).context(|| "cannot write the result as JSON")?;
    if let Some(domain) = domain {
        value["domain"] = json!(domain);
    }
    Ok((Exit::Done, value))
}

fn describe(cloned: &Cloned, domain: Option<&Deployed>, printer: &Printer) -> String {
    let kind = match (cloned.thin, cloned.reflinked) {
        (true, _) => "thin",
        (false, true) => "full, blocks shared",
        (false, false) => "full",
    };
    let seed = if cloned.seed == Seed::None { "no random seed of its own" } else { "its own random seed" };
    let domain = domain.map_or_else(String::new, |domain| {
        let word = if domain.started { "started" } else { "defined" };
        format!("; {word} as {} {}", super::print::clean(&domain.name), domain.uuid)
    });
    format!(
        "{} {} ({kind}, of {}, {seed}){domain}; {:.3} s",
        printer.paint("cloned", "32;1"),
        cloned.image.display(),
        cloned.template,
        std::time::Duration::from_millis(cloned.milliseconds).as_secs_f64()
    )
}

/// A clone that is wanted.
struct Wanted {
    image: PathBuf,
    name: String,
    number: u32,
}

/// All of them. Nothing is made before each has a name that is free.
fn wanted(args: &CloneArgs, format: Format) -> Result<Vec<Wanted>> {
    let pattern = Pattern::parse(&args.new)?;
    if args.count > 1 && !pattern.has_number() {
        return Err(Error::usage(format!("{} clones cannot all be {:?}", args.count, args.new))
            .hint("let %d or %03d stand for the number, such as web-%03d"));
    }
    let last = args.first.checked_add(args.count).ok_or_else(|| Error::usage("--first is too large"))?;
    let mut names = BTreeSet::new();
    let one = |number: u32| {
        let image = image_path(args.folder.as_deref(), &pattern.fill(number), format)?;
        refuse_taken(&image)?;
        let name = image.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !names.insert(name.clone()) {
            return Err(Error::usage(format!("two clones would be called {name}")));
        }
        Ok(Wanted { image, name, number })
    };
    (args.first..last).map(one).collect()
}

/// The path of a clone's image: with the end of its format, unless it has one.
fn image_path(folder: Option<&Path>, new: &str, format: Format) -> Result<PathBuf> {
    const ENDS: [&str; 6] = ["qcow2", "raw", "img", "vmdk", "vdi", "vhdx"];
    let mut name = new.to_owned();
    let path = Path::new(new);
    if path.file_name().is_none() || new.ends_with('/') {
        return Err(Error::usage(format!("{new:?} is no name for an image")));
    }
    let end = path.extension().and_then(|end| end.to_str());
    if end.is_none_or(|end| !ENDS.contains(&end)) {
        name = format!("{name}.{}", format.driver());
    }
    match folder {
        None => Ok(name.into()),
        Some(_) if path.components().count() > 1 => {
            Err(Error::usage(format!("{new:?} is a path, and --folder says where the images are"))
                .hint("leave one of the two out"))
        }
        Some(folder) => Ok(folder.join(name)),
    }
}

fn refuse_format(how: How, format: Format) -> Result<()> {
    let compresses = matches!(how, How::Full { compress: true, .. });
    if compresses && !matches!(format, Format::Qcow2 | Format::Vmdk) {
        return Err(Error::usage(format!("a {} image cannot be compressed", format.driver()))
            .hint("choose another: --output-format qcow2"));
    }
    Ok(())
}

/// What each clone has of its own.
struct Customisation {
    selection: SelectionArgs,
    /// None when nothing is asked for: operations take longer to load than a thin clone to make.
    catalogue: Option<Catalogue>,
    hostname: Option<Pattern>,
    mounting: Mounting,
    /// The operation that gives a random seed; none when there is to be none.
    new_seed: Option<Planned>,
}

/// Passwords that were made here: user and password.
type Generated = Vec<(String, crate::guest::secret::Secret)>;

impl Customisation {
    fn of(args: &CloneArgs) -> Result<Self> {
        let selection = args.selection.clone();
        let hostname = selection.hostname.as_deref().map(Pattern::parse).transpose()?;
        if args.count > 1 && hostname.as_ref().is_some_and(|pattern| !pattern.has_number()) {
            return Err(Error::usage("all clones would have one host name")
                .hint("let %d or %03d stand for the number, such as --hostname web-%03d"));
        }
        let catalogue = (!selection.is_empty()).then(|| catalogue(&selection.catalogue)).transpose()?;
        let new_seed = (!args.no_random_seed).then(|| new_seed(catalogue.as_ref())).transpose()?;
        let mut this = Self { selection, catalogue, hostname, mounting: Mounting::default(), new_seed };
        let (operations, _) = this.operations(args.first, &mut Printer::plain(false))?;
        this.mounting = Mounting {
            attach: args.image.attach.way(),
            isolation: isolation(&args.image, &operations)?,
            root: args.image.root.clone(),
            mount_options: mount_options(&args.image)?,
        };
        Ok(this)
    }

    /// The operations for the clone of this number, and the passwords that were made for it.
    fn operations(&mut self, number: u32, printer: &mut Printer) -> Result<(Vec<Planned>, Generated)> {
        let Some(catalogue) = &self.catalogue else { return Ok((Vec::new(), Vec::new())) };
        let mut selection = self.selection.clone();
        selection.hostname = self.hostname.as_ref().map(|pattern| pattern.fill(number));
        let Chosen { operations, warnings, generated } =
            choose_from(&mut selection, catalogue, Base::Nothing)?;
        warnings.iter().for_each(|warning| printer.warning(warning));
        Ok((operations, generated))
    }
}

/// The operation that gives a clone its seed where the template has no place for it.
fn new_seed(catalogue: Option<&Catalogue>) -> Result<Planned> {
    let operation = match catalogue {
        Some(catalogue) => catalogue.get(NEW_SEED)?.clone(),
        None => {
            let built_in = BUILTIN.iter().find(|(name, _)| *name == NEW_SEED);
            let (name, text) = built_in.ok_or_else(|| Error::failed(format!("there is no {NEW_SEED}")))?;
            parse(text, name)?
        }
    };
    Ok(Planned { operation, settings: Settings::default(), sources: Vec::new() })
}
