//! From the command line as typed to the frozen plans: the second of the two steps.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::added;
use super::args::{CatalogueArgs, DigestChoice, ImageArgs, SealArgs};
use super::guests::{self, Guests, refuse_twice};
use super::selection::SelectionArgs;
use super::steps::set_network;
use crate::domain::WhileRunning;
use crate::erase::policy::{ErasePlan, Policy};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::guest::password::{PasswordRequest, Scheme, Selector};
use crate::guest::secret::Secret;
use crate::image::commit::CommitMode;
use crate::image::past::Past;
use crate::isolate::{Isolate, Isolation};
use crate::mount::wanted::{self, Wanted};
use crate::operation::profile::{self, Password, Profile};
use crate::operation::schema::{Action, Group, Terms};
use crate::operation::{BUILTIN, Catalogue, Request, SYSTEM_DIR, select};
use crate::payload::gather;
use crate::plan::{PASSWORDS, Parameters, Plan, Planned, with_parameters, with_traces_removed};
use crate::stack::key::{self, Key, KeyBytes, KeySelector, KeySource};
use crate::uuids::{self, Kind};

/// The plans of a `seal`, and what the user should be told about them.
#[derive(Debug)]
pub struct Plans {
    /// One for each guest.
    pub plans: Vec<Plan>,
    /// Warnings.
    pub warnings: Vec<String>,
    /// Passwords that were made here: user and password.
    pub generated: Vec<(String, crate::guest::secret::Secret)>,
}

/// Loads the operations: built in, the system's, and those of the folders named.
///
/// # Errors
/// Usage errors of operation files.
pub fn catalogue(args: &CatalogueArgs) -> Result<Catalogue> {
    let system = PathBuf::from(SYSTEM_DIR);
    let mut folders: Vec<PathBuf> = system.is_dir().then_some(system).into_iter().collect();
    folders.extend(args.operations_dir.iter().cloned());
    Catalogue::load(BUILTIN, &folders)
}

/// The operations that run, with their parameters.
#[derive(Debug)]
pub struct Chosen {
    /// In order.
    pub operations: Vec<Planned>,
    /// What the user should be told.
    pub warnings: Vec<String>,
    /// Passwords that were made here: user and password.
    pub generated: Vec<(String, crate::guest::secret::Secret)>,
}

/// Selects operations and gives them their parameters.
///
/// # Errors
/// Usage errors.
pub fn choose(args: &mut SelectionArgs, catalogue: &Catalogue) -> Result<Chosen> {
    choose_from(args, catalogue, Base::Defaults)
}

/// What runs when the command line names no operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Those that are on by default.
    Defaults,
    /// None but those whose parameters are given.
    Nothing,
}

/// The same with another choice where none is made.
///
/// # Errors
/// Usage errors.
pub fn choose_from(args: &mut SelectionArgs, catalogue: &Catalogue, base: Base) -> Result<Chosen> {
    let mut warnings = Vec::new();
    let profile = args.profile.as_deref().map(read_profile).transpose()?.unwrap_or_default();
    let [before, after] = super::steps::steps(args)?;
    let mut steps = [[profile.actions.clone(), before].concat(), after];
    if args.network || args.no_network {
        steps.iter_mut().for_each(|steps| set_network(steps, args.network));
    }
    let mut parameters = parameters(args, &profile, &mut warnings)?;
    parameters.steps = steps;
    let lists: Vec<String> = profile.operations.iter().chain(&args.operations).cloned().collect();
    let groups: Vec<Group> = profile.remove.iter().chain(&args.remove).copied().collect();
    let chooses = !lists.is_empty() || !groups.is_empty() || args.enable.is_some();
    let nothing = base == Base::Nothing && !chooses;
    let lists = if nothing { vec!["-all".to_owned()] } else { lists };
    let request = Request {
        operations: &lists,
        enable: args.enable.as_deref(),
        remove: &groups,
        given: &parameters.given(),
    };
    let selection = select(catalogue, &request)?;
    let mut operations = with_parameters(&selection, &parameters)?;
    let home = home();
    operations.iter_mut().try_for_each(|planned| gather(planned, home.as_deref()))?;
    with_traces_removed(&mut operations);
    let passwords = parameters.passwords.iter();
    let generated =
        passwords.filter_map(|(user, change)| Some((user.clone(), change.generated()?.clone()))).collect();
    Ok(Chosen { operations, warnings, generated })
}

/// The profile in a file of this host.
fn read_profile(path: &Path) -> Result<Profile> {
    let origin = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .context_kind(ErrorKind::Usage, || format!("cannot read the profile {origin}"))?;
    profile::parse(&text, &origin)
}

/// Where this user's default SSH key is.
fn home() -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "the environment is read in cli and nowhere else")]
    let home = std::env::var_os("HOME");
    home.map(PathBuf::from).filter(|path| path.is_absolute())
}

fn parameters(args: &SelectionArgs, profile: &Profile, warnings: &mut Vec<String>) -> Result<Parameters> {
    let mut parameters = Parameters::default();
    for (operation, values) in &profile.parameters {
        for (parameter, value) in values {
            parameters.set(operation, parameter, value);
        }
    }
    for Password { user, selector } in &profile.passwords {
        let selector = Selector::parse(selector)?;
        if selector.shows_in_process_list() {
            return Err(Error::usage(format!("the password of {user} stands in the profile"))
                .hint("a profile is kept and shared: write file:FILE, random, locked or disabled"));
        }
        parameters.passwords.push((user.clone(), selector.load()?));
    }
    for setting in &args.set {
        // Not quoted: whoever mistypes may have typed a secret.
        let wrong = || Error::usage("--set needs OPERATION.PARAMETER=VALUE");
        let (name, value) = setting.split_once('=').ok_or_else(wrong)?;
        let (operation, parameter) = name.split_once('.').ok_or_else(wrong)?;
        parameters.set(operation, parameter, value);
    }
    for (operation, value) in [("hostname", &args.hostname), ("timezone", &args.timezone)] {
        if let Some(value) = value {
            parameters.set(operation, operation, value);
        }
    }
    if !args.script.is_empty() {
        let absolute = |path: &PathBuf| {
            let path = path.canonicalize().map_err(|error| {
                Error::usage(format!("cannot find the script {}", path.display())).caused_by(error)
            })?;
            let text = path.to_str().filter(|text| !text.contains(',')).map(str::to_owned);
            text.ok_or_else(|| {
                Error::usage(format!("the script's path {} has a comma or is no UTF-8", path.display()))
            })
        };
        let scripts = args.script.iter().map(absolute).collect::<Result<Vec<_>>>()?;
        parameters.set("script", "scripts", scripts.join(","));
    }
    for (parameter, users) in [("remove", &args.remove_user_accounts), ("keep", &args.keep_user_accounts)] {
        if !users.is_empty() {
            parameters.set("user-account", parameter, users.join(","));
        }
    }
    if args.no_regenerate {
        parameters.set("ssh-hostkeys", "regenerate", "false");
    }
    let with_accounts = added::parameters(args, &mut parameters)?;
    let root = args.root_password.iter().map(|text| PasswordRequest::root(text.expose()));
    let others = args.password.iter().map(|text| PasswordRequest::user(text.expose()));
    for request in root.chain(others).chain(with_accounts.into_iter().map(Ok)) {
        let request = request?;
        if request.bare_word || request.selector.shows_in_process_list() {
            warnings.push(format!("the password of {} stands on the command line, where every user of this host can read it: use file:FILE", request.user));
        }
        if parameters.passwords.iter().any(|(user, _)| *user == request.user) {
            return Err(Error::usage(format!("the password of {} is set twice", request.user)));
        }
        parameters.passwords.push((request.user, request.selector.load()?));
    }
    if let Some(name) = &args.password_crypto {
        Scheme::named(name).map_err(|error| error.within("--password-crypto"))?;
        // Without a password there is nothing to hash, as virt-sysprep has it.
        if !parameters.passwords.is_empty() {
            parameters.set(PASSWORDS.0, "crypto", name);
        }
    }
    Ok(parameters)
}

/// What is scrubbed is not to be read back, so something must erase it.
///
/// # Errors
/// A usage error where nothing does.
pub(super) fn refuse_scrub(args: &SealArgs) -> Result<()> {
    let erases = args.erase != Policy::None && args.tree.is_none();
    if erases || !args.selection.steps.names().any(|name| name == "scrub") {
        return Ok(());
    }
    Err(Error::usage("--scrub wants that nobody can read the file back, and nothing is erased here")
        .hint("leave out --erase none, or delete the file: --delete FILE"))
}

/// Refuses what says how a new file is, when none is to be made.
fn needs_output(args: &SealArgs) -> Result<()> {
    let given = [
        ("--output-format", args.output_format.is_some()),
        ("--flatten", args.flatten),
        ("--compress", args.compress),
    ];
    match given.iter().find(|(_, given)| *given && args.output.is_none()) {
        Some((name, _)) => Err(Error::usage(format!("{name} says how a new file is written, and none is"))
            .hint("name it: --output NEW")),
        None => Ok(()),
    }
}

/// Makes the plans.
///
/// # Errors
/// As [`choose`], and usage errors about the images.
pub fn plans(args: &mut SealArgs) -> Result<Plans> {
    let while_running = args.running.decide(args)?;
    let Guests { guests, formats, domain } =
        guests::named((&args.images, &added::disks(&args.add)), &args.domain, &args.image)?;
    let images: Vec<_> = guests.iter().flatten().collect();
    refuse_twice(&images)?;
    if args.output.is_some() && images.len() > 1 {
        let hint = match while_running {
            WhileRunning::Copy => {
                "all its disks become a template: guestseal template create; or have it shut down: --shutdown"
            }
            _ => "leave --output out, and keep a copy of the images",
        };
        return Err(Error::usage("--output takes one image at a time").hint(hint));
    }
    let commit = match &args.output {
        Some(path) => CommitMode::Output {
            paths: vec![path.clone()],
            format: args.output_format,
            compress: args.compress,
        },
        None if args.in_place => CommitMode::InPlace,
        None => CommitMode::Overlay,
    };
    needs_output(args)?;
    if args.image.allow_backing && args.output.is_some() {
        return Err(Error::usage(
            "--allow-backing leaves backing files below the image, and --output writes a whole one",
        )
        .hint("write what is in them into the new file: --flatten"));
    }
    let past = Past {
        drop_snapshots: args.drop_snapshots,
        flatten: args.flatten,
        allow_backing: args.image.allow_backing,
        keep_unreferenced: args.erase == Policy::None,
    };
    refuse_scrub(args)?;
    let catalogue = catalogue(&args.selection.catalogue)?;
    let mut chosen = choose(&mut args.selection, &catalogue)?;
    let typed = |selector: &Secret| selector.expose().contains(":key:");
    if args.image.key.iter().any(typed) {
        chosen.warnings.push(
            "a key stands on the command line, where every user of this host can read it: use ID:file:FILE"
                .into(),
        );
    }
    let isolation = isolation(&args.image, &chosen.operations)?;
    if isolation.isolate == Isolate::Vm && !args.selection.script.is_empty() {
        return Err(Error::usage(
            "--script runs on this host in the mounted guest, and --isolate vm mounts it elsewhere",
        )
        .hint("leave one of them out"));
    }
    let mount_options = mount_options(&args.image)?;
    let expand = args.expand.plan(commit == CommitMode::Overlay)?;
    let plan = |images: Vec<PathBuf>| Plan {
        domain: domain.clone(),
        while_running,
        images,
        formats: formats.clone(),
        surroundings: args.image.place.surroundings(),
        attach: args.image.attach.way(),
        isolation: isolation.clone(),
        root: args.image.root.clone(),
        mount_options: mount_options.clone(),
        expand: expand.clone(),
        repair: args.repair,
        commit: commit.clone(),
        erase: ErasePlan {
            policy: args.erase,
            keep_gaps: args.keep_gaps,
            allow_unproven: args.allow_unproven,
        },
        past,
        operations: chosen.operations.clone(),
        digest: args.digest == DigestChoice::Sha256,
    };
    Ok(Plans {
        plans: guests.into_iter().map(plan).collect(),
        warnings: chosen.warnings,
        generated: chosen.generated,
    })
}

/// What the command line wants of virtual machines.
///
/// # Errors
/// When options contradict each other.
pub(super) fn isolation(args: &ImageArgs, operations: &[Planned]) -> Result<Isolation> {
    if args.isolate == Isolate::Vm && args.attach.way().is_some() {
        return Err(Error::usage(
            "--attach says how this host attaches images, and --isolate vm attaches them elsewhere",
        )
        .hint("leave one of them out"));
    }
    Ok(Isolation {
        isolate: args.isolate,
        kernel: args.kernel.clone(),
        cache: cache_folder(),
        keys: keys(args)?,
        degraded: args.degraded,
        fs_uuids: uuids::wanted(operations).contains(&Kind::Filesystems),
        network: operations.iter().flat_map(|planned| &planned.operation.actions).any(wants_network),
    })
}

fn wants_network(action: &Action) -> bool {
    Terms::of(action).is_some_and(|terms| terms.network)
}

/// The mount options that the command line wants.
///
/// # Errors
/// Usage errors of theirs.
pub(super) fn mount_options(args: &ImageArgs) -> Result<Vec<Wanted>> {
    args.mount_options.as_deref().map_or(Ok(Vec::new()), wanted::parse)
}

/// The keys of encrypted volumes.
fn keys(args: &ImageArgs) -> Result<Vec<Key>> {
    let mut keys = Vec::new();
    for selector in &args.key {
        let KeySelector { volume, source } = key::parse(selector.expose())?;
        let bytes = match source {
            KeySource::Text(bytes) => bytes,
            KeySource::File(path) => {
                let failed = || format!("cannot read the key file {path}");
                read_key(&mut File::open(&path).context(failed)?).context(failed)?
            }
        };
        keys.push(Key { volume, bytes });
    }
    if args.keys_from_stdin {
        let all =
            read_key(&mut std::io::stdin().lock()).context(|| "cannot read keys from standard input")?;
        let lines = all.expose().split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        keys.extend(lines.map(|line| Key::for_all(KeyBytes::new(line.to_vec()))));
    }
    Ok(keys)
}

fn read_key(from: &mut dyn Read) -> std::io::Result<KeyBytes> {
    // All at once: a vector that grows leaves copies behind.
    let mut bytes = Vec::with_capacity(key::LONGEST + 1);
    from.take(key::LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    let key = KeyBytes::new(bytes);
    if key.expose().len() > key::LONGEST {
        return Err(std::io::Error::other("it is longer than 8 MiB"));
    }
    Ok(key)
}

/// Where this user keeps what can be made again: the first of its folders that there is or can be. In a container neither
/// root's nor the user's own need be one.
fn cache_folder() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "the environment is read in cli and nowhere else")]
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let user = nix::unistd::geteuid();
    let of_root = user.is_root().then(|| PathBuf::from("/var/cache"));
    let caches = [of_root, folder("XDG_CACHE_HOME"), folder("HOME").map(|home| home.join(".cache"))];
    let mut folders = caches.into_iter().flatten().map(|caches| caches.join("guestseal"));
    let own = || std::env::temp_dir().join(format!("guestseal-{user}"));
    folders.find(|path| can_be_written(path)).unwrap_or_else(own)
}

/// Whether a folder can be written to, or can be made.
fn can_be_written(folder: &Path) -> bool {
    let there = folder.ancestors().find(|path| path.exists());
    there.is_some_and(|path| access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_ok())
}
