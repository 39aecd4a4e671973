//! The folder in which templates are kept: one folder for each, with plain files that any tool can read. A template is there
//! whole or not at all.

#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, RenameFlags, renameat2};
use nix::unistd::{AccessFlags, access};

use super::{Template, TemplateRecord, exists};
use crate::error::{Context, Error, Result, all};
use crate::similar::nearest;
use crate::sys::{reflink::set_immutable, trouble};

/// Where templates are kept when nothing else is said.
pub const DEFAULT: &str = "/var/lib/guestseal/templates";
/// How the folder of a template begins that is not whole, or no more.
const HALF: &str = ".guestseal-half-";

/// A folder of templates.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// The store in this folder, which need not be there yet.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The names of its templates, sorted; none when the folder is not there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let failed = || format!("cannot read the store {}", self.folder.display());
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context(failed)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.context(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if check_name(&name).is_ok() && entry.file_type().context(failed)?.is_dir() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Finds a template by its name.
    ///
    /// # Errors
    /// A usage error when there is none of this name; failed when its record cannot be read.
    pub fn find(&self, name: &str) -> Result<Template> {
        check_name(name)?;
        let folder = self.folder.join(name);
        if !folder.is_dir() {
            let error = Error::usage(format!("there is no template {name:?} in {}", self.folder.display()));
            let names = self.names()?;
            let near = nearest(name, names.iter().map(String::as_str));
            let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
            return Err(error.hint(format!(
                "{near}guestseal template list shows them all; --store names another store, and an image is named by its path"
            )));
        }
        let image = record_in(&folder)?;
        let record = TemplateRecord::load(&image)?;
        let subjects = record.record.subject.iter();
        let images = subjects.map(|subject| image.with_file_name(&subject.name)).collect();
        Ok(Template { name: name.to_owned(), images, record: Some(record) })
    }

    /// Begins a template of a name that is free. What killed runs left is removed.
    ///
    /// # Errors
    /// A usage error when the name is taken or cannot be one; failed when the store cannot be written.
    pub fn begin(&self, name: &str) -> Result<HalfTemplate> {
        check_name(name)?;
        let failed = || format!("cannot make a template in {}", self.folder.display());
        DirBuilder::new().recursive(true).mode(0o755).create(&self.folder).context(failed)?;
        access(&self.folder, AccessFlags::W_OK | AccessFlags::X_OK)
            .context(failed)
            .map_err(|error| error.hint("--store names another folder"))?;
        if exists(&self.folder.join(name)) {
            return Err(Error::usage(format!("there is a template {name:?} already"))
                .hint(format!("choose another name, or: guestseal template delete {name}")));
        }
        self.sweep()?;
        let folder = tempfile::Builder::new().prefix(HALF).tempdir_in(&self.folder).context(failed)?.keep();
        let lock = lock(&folder)?.ok_or_else(|| Error::failed("the new folder is locked already"))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).context(failed)?;
        Ok(HalfTemplate { store: self.clone(), name: name.to_owned(), folder: Some(folder), _lock: lock })
    }

    /// Removes a template with all its files.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, name: &str) -> Result<()> {
        let failed = || format!("cannot remove the template {name}");
        // One of this name that was killed half way would be in the way.
        self.sweep()?;
        let folder = self.folder.join(name);
        // Not there any more at once, however long it takes and whatever comes in between.
        let half = self.folder.join(format!("{HALF}{name}"));
        fs::rename(&folder, &half).context(failed)?;
        let _lock = lock(&half)?;
        remove_folder(&half).map_err(|error| error.within(failed()))?;
        sync(&self.folder)
    }

    /// Removes the folders of killed runs: those that nobody holds locked.
    fn sweep(&self) -> Result<()> {
        let failed = || format!("cannot look for leftovers in {}", self.folder.display());
        for entry in fs::read_dir(&self.folder).context(failed)? {
            let entry = entry.context(failed)?;
            if !entry.file_name().to_string_lossy().starts_with(HALF) {
                continue;
            }
            if let Some(_lock) = lock(&entry.path())? {
                remove_folder(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// A template that is not whole: it goes when this is dropped.
#[derive(Debug)]
pub struct HalfTemplate {
    store: Store,
    name: String,
    folder: Option<PathBuf>,
    _lock: Flock<File>,
}

impl HalfTemplate {
    /// Where its files are made.
    pub fn folder(&self) -> &Path {
        self.folder.as_deref().unwrap_or(&self.store.folder)
    }

    /// Gives it its name, permanently; the whole folder appears at once.
    ///
    /// # Errors
    /// When the name was taken meanwhile, or something cannot be flushed.
    pub fn finish(mut self) -> Result<Template> {
        let failed = || format!("cannot make the template {}", self.name);
        let Some(folder) = self.folder.take() else { return Err(Error::failed(failed())) };
        let whole = self.store.folder.join(&self.name);
        let named = sync(&folder).and_then(|()| {
            let flags = RenameFlags::RENAME_NOREPLACE;
            renameat2(nix::fcntl::AT_FDCWD, &folder, nix::fcntl::AT_FDCWD, &whole, flags).context(failed)
        });
        if let Err(error) = named {
            self.folder = Some(folder);
            return Err(error);
        }
        sync(&self.store.folder)?;
        self.store.find(&self.name)
    }
}

impl Drop for HalfTemplate {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.folder.take().map(|folder| remove_folder(&folder)) {
            trouble::note(error);
        }
    }
}

/// Checks that a name can be that of a template: of a folder, of files, and of a domain.
///
/// # Errors
/// A usage error.
pub fn check_name(name: &str) -> Result<()> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    if !name.is_empty() && name.len() <= 100 && !name.starts_with(['.', '-']) && name.bytes().all(good) {
        return Ok(());
    }
    Err(Error::usage(format!("{name:?} cannot be the name of a template"))
        .hint("letters, digits, and -_.+ (not - and . first), at most 100"))
}

/// The image beside the only record of a folder.
fn record_in(folder: &Path) -> Result<PathBuf> {
    let failed = || format!("cannot read the template {}", folder.display());
    let mut images = Vec::new();
    for entry in fs::read_dir(folder).context(failed)? {
        let name = entry.context(failed)?.file_name();
        let name = name.to_string_lossy();
        images.extend(name.strip_suffix(".seal.json").map(|image| folder.join(image)));
    }
    match images.as_slice() {
        [image] => Ok(image.clone()),
        _ => Err(Error::failed(format!(
            "{} is no template: it has {} records",
            folder.display(),
            images.len()
        ))),
    }
}

/// Locks a folder for as long as the lock lives; None when another run holds it.
fn lock(folder: &Path) -> Result<Option<Flock<File>>> {
    let failed = || format!("cannot lock {}", folder.display());
    let file = File::open(folder).context(failed)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno).context(failed),
    }
}

/// Removes a folder of plain files, of which some may be immutable.
fn remove_folder(folder: &Path) -> Result<()> {
    let failed = || format!("cannot remove {}", folder.display());
    let entries = fs::read_dir(folder).context(failed)?.collect::<io::Result<Vec<_>>>().context(failed)?;
    all(entries.into_iter().map(|entry| {
        let path = entry.path();
        let failed = || format!("cannot remove {}", path.display());
        if entry.file_type().context(failed)?.is_file() {
            set_immutable(File::open(&path).context(failed)?, false).context(failed)?;
        }
        fs::remove_file(&path).context(failed)
    }))?;
    fs::remove_dir(folder).context(failed)
}

fn sync(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .context(|| format!("cannot flush {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_template_is_in_no_list_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("deep/store"));
        let half = store.begin("web").unwrap();
        fs::write(half.folder().join("web.qcow2"), b"half").unwrap();
        assert!(store.names().unwrap().is_empty() && half.folder().is_dir());
        // Another run leaves it alone.
        drop(store.begin("other").unwrap());
        assert!(half.folder().join("web.qcow2").exists());
        drop(half);
        assert_eq!(fs::read_dir(store.folder()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_run_left_is_swept_away() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().to_path_buf());
        let dead = folder.path().join(format!("{HALF}x"));
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("web.qcow2"), b"half").unwrap();
        drop(store.begin("web").unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        for name in [format!("{HALF}web"), "web".into()] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        store.remove("web").unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_name_that_is_taken_or_no_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().to_path_buf());
        fs::create_dir(folder.path().join("web")).unwrap();
        assert!(store.begin("web").unwrap_err().chain().contains("already"));
        for name in ["", ".", "..", "a/b", "-a", ".hidden", "ü", "a b", &"a".repeat(101)] {
            assert!(store.begin(name).is_err() && store.find(name).is_err(), "{name}");
        }
        assert!(store.find("wep").unwrap_err().what_to_do().unwrap().contains("web"));
    }
}
