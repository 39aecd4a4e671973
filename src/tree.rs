//! A folder as the guest, for whoever builds images from a root tree: the operations and their worker as for an image, in
//! the folder itself. Nothing is attached, nothing is erased, and nothing is undone.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde_json::json;

use crate::apply::Mode;
use crate::erase::policy::Policy;
use crate::erase::report::Erasure;
use crate::error::{Context, Error, ErrorKind, Result, both};
use crate::fault::{self, Point};
use crate::guest::{GuestRoot, path_serde};
use crate::image::nameless::{folder_of, sweep};
use crate::inspect::guest::Guest;
use crate::inspect::layout::is_root;
use crate::mount::folder::BoundFolder;
use crate::mount::options::Access;
use crate::operation::Catalogue;
use crate::plan::{Planned, recorded};
use crate::record::tree::{TREE_DIGEST, tree_digest};
use crate::record::{
    self, PREDICATE_TYPE, PendingRecord, STATEMENT_TYPE, Seal, SealRecord, SealedOperation, Subject,
};
use crate::report::{Event, Observer, OperationReport, Outcome, Stage};
use crate::seal::now;
use crate::sys::confine::Confinement;
use crate::sys::{interrupt, trouble};
use crate::uuids;
use crate::worker::conversation::Edited;
use crate::worker::parent::edit;

/// How a record says that it is one of a folder.
const WAY: &str = "tree";
/// What stands in report and record, for no proof can be had here.
const NOT_ERASED: &str =
    "a folder: what was deleted from it can be read back from the disk of the host until it is overwritten";

/// What is done with a folder.
#[derive(Debug, Clone)]
pub struct TreePlan {
    /// The folder.
    pub folder: PathBuf,
    /// What runs, in order.
    pub operations: Vec<Planned>,
    /// Whether everything in it is hashed for the record.
    pub digest: bool,
}

/// What came of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TreeReport {
    /// The folder.
    #[serde(with = "path_serde")]
    pub tree: PathBuf,
    /// Its record.
    #[serde(with = "path_serde")]
    pub record: PathBuf,
    /// What the guest is.
    pub guest: Guest,
    /// What held the worker that edited it.
    pub confinement: Confinement,
    /// What each operation did.
    pub operations: Vec<OperationReport>,
    /// That nothing was erased.
    pub erasure: Erasure,
    /// The digest of all in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// What was seen in a folder.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TreeSurvey {
    /// The folder.
    #[serde(with = "path_serde")]
    pub tree: PathBuf,
    /// What the guest is.
    pub guest: Guest,
    /// What held the worker that looked.
    pub confinement: Confinement,
    /// What each operation would do.
    pub operations: Vec<OperationReport>,
}

/// What `verify` found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TreeVerdict {
    /// The folder.
    #[serde(with = "path_serde")]
    pub tree: PathBuf,
    /// Whether nothing was found.
    pub sealed: bool,
    /// None when the record has no digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest_matches: Option<bool>,
    /// Operations whose work is no longer true, with what is back.
    pub found: Vec<OperationReport>,
    /// Operations that cannot be judged without the secret they were given.
    pub unsure: Vec<String>,
}

/// A folder that is bound and understood; the fields are in the order of taking apart.
struct Tree {
    root: GuestRoot,
    folder: BoundFolder,
    guest: Guest,
}

impl Tree {
    fn open(folder: &Path, access: Access, observer: &mut dyn Observer) -> Result<Self> {
        interrupt::check_before("opening the folder")?;
        let bound = BoundFolder::bind(folder, access)?;
        let mut root = GuestRoot::open(bound.path())?;
        for point in bound.mounts_below() {
            let name = folder.join(point.strip_prefix("/").unwrap_or(point));
            observer.event(Event::Warning(&format!(
                "something is mounted at {}: what is in there is left alone",
                name.display()
            )));
            // The host would lose its mount with the folder below it.
            root.add_mount_point(point.clone());
        }
        if !is_root(&root)? {
            let what = format!("no operating system was found in {}", folder.display());
            return Err(Error::unsupported(what).hint("--tree takes the folder with the guest's etc and usr"));
        }
        let guest = Guest::examine(&root)?;
        fault::point(Point::Mounted)?;
        Ok(Self { root, folder: bound, guest })
    }

    fn edit(&self, operations: &[Planned], mode: Mode, observer: &mut dyn Observer) -> Result<Edited> {
        let points = self.folder.mounts_below().to_vec();
        edit(operations, (&self.guest, self.folder.path(), points), (mode, false), observer)
    }

    fn close(self) -> Result<Guest> {
        let Self { root, folder, guest } = self;
        drop(root);
        folder.close().map(|()| guest)
    }
}

/// Seals a folder.
///
/// # Errors
/// The folder is unchanged, or the error says that it may be half edited.
pub fn seal_tree(plan: &mut TreePlan, observer: &mut dyn Observer) -> Result<TreeReport> {
    let started = now();
    let (folder, tree, record, _lock) = begin(plan, observer).map_err(|error| match error.kind() {
        ErrorKind::Stopped => error.within(format!("nothing was changed in {}", plan.folder.display())),
        _ => error,
    })?;
    observer.event(Event::Stage(Stage::Applying));
    let edited = tree.edit(&plan.operations, Mode::Change, observer);
    plan.operations.iter_mut().for_each(|planned| planned.settings.passwords.clear());
    let done = edited.and_then(|edited| {
        fault::point(Point::Applied)?;
        let digest = plan.digest.then(|| tree_digest(&tree.root, observer)).transpose()?;
        Ok((edited, digest))
    });
    let done = match done {
        Ok((edited, digest)) => tree.close().map(|guest| (edited, digest, guest)),
        Err(error) => both(Err(error), tree.close().map(drop)),
    };
    finish(plan, &folder, done, (record, started)).map_err(|error| half_edited(&folder, error))
}

/// Everything before the first change.
fn begin(
    plan: &TreePlan,
    observer: &mut dyn Observer,
) -> Result<(PathBuf, Tree, PendingRecord, Flock<File>)> {
    observer.event(Event::Image(&plan.folder));
    uuids::refuse_without_volumes(&plan.operations)?;
    let folder = real(&plan.folder)?;
    let lock = lock(&folder)?;
    sweep(folder_of(&folder))?;
    // Made before anything is mounted, as names are given within one mount only.
    let record = PendingRecord::prepare(&folder)?;
    let tree = Tree::open(&folder, Access::Change, observer)?;
    Ok((folder, tree, record, lock))
}

type Done = (Edited, Option<String>, Guest);

fn finish(
    plan: &TreePlan,
    folder: &Path,
    done: Result<Done>,
    (record, started): (PendingRecord, String),
) -> Result<TreeReport> {
    let (edited, digest, guest) = done?;
    if let Some(error) = trouble::take().into_iter().next() {
        return Err(Error::failed("clean-up failed, so the result is not trusted").caused_by(error));
    }
    interrupt::check_before("writing the record")?;
    let _hold = interrupt::hold();
    let erasure = Erasure { policy: Policy::None, notes: vec![NOT_ERASED.to_owned()], ..Erasure::default() };
    let operations = plan.operations.iter().zip(&edited.operations);
    let statement = SealRecord {
        statement_type: STATEMENT_TYPE.into(),
        subject: vec![Subject {
            name: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            digest: digest.iter().map(|digest| (TREE_DIGEST.to_owned(), digest.clone())).collect(),
        }],
        predicate_type: PREDICATE_TYPE.into(),
        predicate: Seal {
            domain: None,
            point_in_time: None,
            tool_version: env!("CARGO_PKG_VERSION").into(),
            started,
            finished: now(),
            input: json!({ "path": folder.to_string_lossy(), "format": WAY }),
            guest: json!({ "os": guest.os, "architecture": guest.architecture }),
            expanded: None,
            repairs: Vec::new(),
            operations: operations.map(|(planned, report)| SealedOperation::new(planned, report)).collect(),
            left: edited.left.clone(),
            erasure: erasure.clone(),
            container: None,
            attached: WAY.into(),
            attached_because: None,
            confinement: Some(edited.confinement.clone()),
            commit: json!({ "mode": WAY }),
            template: None,
        },
    };
    let record = record.write(&statement)?.name()?;
    let Edited { operations, confinement, .. } = edited;
    Ok(TreeReport { tree: folder.to_path_buf(), record, guest, confinement, operations, erasure, digest })
}

/// What failed once the worker was started has no undo.
fn half_edited(folder: &Path, error: Error) -> Error {
    let hint = "--tree undoes nothing: seal it again, or make it anew";
    let hint = error.what_to_do().map_or_else(|| hint.to_owned(), |first| format!("{first}; {hint}"));
    error.within(format!("{} may be half edited", folder.display())).hint(hint)
}

/// Looks at a folder, bound read-only.
///
/// # Errors
/// When the folder or its guest cannot be understood.
pub fn survey_tree(folder: &Path, operations: &[Planned], observer: &mut dyn Observer) -> Result<TreeSurvey> {
    observer.event(Event::Image(folder));
    uuids::refuse_without_volumes(operations)?;
    let folder = real(folder)?;
    let (Edited { operations, confinement, .. }, (), guest) =
        look(&folder, operations, observer, |_, _| Ok(()))?;
    Ok(TreeSurvey { tree: folder, guest, confinement, operations })
}

/// Holds a folder against its record.
///
/// # Errors
/// When the check cannot be made; what it finds is in the verdict.
pub fn verify_tree(folder: &Path, catalogue: &Catalogue, observer: &mut dyn Observer) -> Result<TreeVerdict> {
    observer.event(Event::Image(folder));
    let folder = real(folder)?;
    let SealRecord { predicate: seal, subject, .. } = record::load(&folder)?;
    if seal.attached != WAY {
        let name = record::path_of(&folder);
        return Err(Error::failed(format!("{} is the record of an image", name.display()))
            .hint("leave --tree out to verify an image"));
    }
    let planned = recorded(catalogue, seal.operations)?;
    let digests = subject.into_iter().next().map(|subject| subject.digest).unwrap_or_default();
    let wanted = wanted(&digests)?;
    let hash = |root: &GuestRoot, observer: &mut dyn Observer| {
        wanted.map(|wanted| Ok(*wanted == tree_digest(root, observer)?)).transpose()
    };
    let (seen, digest_matches, _) = look(&folder, &planned, observer, hash)?;
    let found = record::without_left(&seen.operations, &seal.left);
    let unsure = seen.operations.iter().filter(|report| report.outcome == Outcome::Unsure);
    let unsure = unsure.map(|report| report.name.clone()).collect();
    let sealed = found.is_empty() && digest_matches != Some(false);
    Ok(TreeVerdict { tree: folder, sealed, digest_matches, found, unsure })
}

/// The digest of a record, which must be one that can be made here.
fn wanted(digests: &BTreeMap<String, String>) -> Result<Option<&String>> {
    match digests.get(TREE_DIGEST) {
        None if !digests.is_empty() => {
            let names: Vec<&str> = digests.keys().map(String::as_str).collect();
            Err(Error::unsupported(format!("the record has a digest of another kind: {}", names.join(", ")))
                .hint("verify the folder with the version of guestseal that sealed it"))
        }
        wanted => Ok(wanted),
    }
}

/// Has the worker look at the folder, and the caller too.
fn look<T>(
    folder: &Path,
    operations: &[Planned],
    observer: &mut dyn Observer,
    also: impl FnOnce(&GuestRoot, &mut dyn Observer) -> Result<T>,
) -> Result<(Edited, T, Guest)> {
    let tree = Tree::open(folder, Access::Look, observer)?;
    let seen = tree
        .edit(operations, Mode::Look, observer)
        .and_then(|seen| also(&tree.root, observer).map(|other| (seen, other)));
    match seen {
        Ok((seen, other)) => tree.close().map(|guest| (seen, other, guest)),
        Err(error) => both(Err(error), tree.close().map(drop)),
    }
}

/// The folder's own path, links followed: beside it is its record.
fn real(folder: &Path) -> Result<PathBuf> {
    let real = folder.canonicalize().context(|| format!("cannot find the folder {}", folder.display()))?;
    if !real.is_dir() {
        return Err(Error::usage(format!("{} is no folder", folder.display()))
            .hint("--tree takes the root folder of a guest; an image is named without --tree"));
    }
    if real.file_name().is_none() {
        return Err(Error::usage(format!("{} is the root of this running system", folder.display()))
            .hint("--tree takes the folder of a guest that does not run"));
    }
    Ok(real)
}

/// Keeps two runs apart. Who else uses the folder cannot be told.
fn lock(folder: &Path) -> Result<Flock<File>> {
    let file = File::open(folder).context(|| format!("cannot open {}", folder.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => Error::new(
            ErrorKind::Busy,
            format!("somebody has a lock on {}, such as another guestseal", folder.display()),
        )
        .hint("try again when it is done"),
        errno => Error::failed(format!("cannot lock {}", folder.display())).caused_by(errno),
    })
}
