//! Files that take long to make and are kept between runs: the uncompressed kernel, the archive it starts with, what was
//! found out about KVM. Each is named after what it was made from, and after its own length, by which a damaged one is
//! known. They are made under another name and renamed, so that two runs never meet.

#![forbid(unsafe_code)]

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::error::{Context, Error, Result};

/// How many files of one kind are kept.
const KEPT: usize = 3;
/// Digits of a key in a name.
const KEY_DIGITS: usize = 32;

/// The folder of these files. It belongs to this user alone: what is in it will run.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

/// A file of the cache.
#[derive(Debug)]
pub struct Kept {
    /// The open file.
    pub file: File,
    /// Its name, which tells it from all others.
    pub path: PathBuf,
}

/// A digest of what a file is made from.
#[derive(Debug, Clone, Default)]
pub struct Key(Sha256);

impl Key {
    /// Begins with the version of this program.
    pub fn new() -> Self {
        Self::default().with(env!("CARGO_PKG_VERSION"))
    }

    /// Adds a word.
    #[must_use]
    pub fn with(mut self, word: &str) -> Self {
        self.0.update((word.len() as u64).to_le_bytes());
        self.0.update(word);
        self
    }

    /// Adds a file as it is now: which one, how long, and when it was changed; or that there is none.
    #[must_use]
    pub fn with_file(self, path: &Path) -> Self {
        let of = |metadata: Metadata| {
            let (dev, ino, size) = (metadata.dev(), metadata.ino(), metadata.len());
            format!("{dev} {ino} {size} {} {}", metadata.mtime(), metadata.mtime_nsec())
        };
        let state = fs::metadata(path).map_or_else(|_| "none".to_owned(), of);
        self.with(&path.to_string_lossy()).with(&state)
    }

    fn digits(&self) -> String {
        let digits: String = self.0.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        digits[..KEY_DIGITS].to_owned()
    }
}

impl Cache {
    /// Opens the folder, and makes it if it is not there.
    ///
    /// # Errors
    /// When that fails, or others may write to it.
    pub fn open(folder: &Path) -> Result<Self> {
        let about = || format!("cannot use the cache folder {}", folder.display());
        DirBuilder::new().recursive(true).mode(0o700).create(folder).context(about)?;
        let metadata = fs::metadata(folder).context(about)?;
        let own = metadata.uid() == nix::unistd::geteuid().as_raw();
        if !own || metadata.permissions().mode() & 0o022 != 0 {
            return Err(Error::failed(format!("{}: others may write to it", about()))
                .hint("what is in it runs in the virtual machine: give it to this user alone (chmod 0700), or remove it"));
        }
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// The file of this kind made from this key; `make` makes its bytes when it is not there.
    ///
    /// # Errors
    /// Those of `make`, and when it cannot be kept.
    pub fn file(&self, kind: &str, key: &Key, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Kept> {
        if self.find(kind, key).is_none() {
            self.keep(kind, key, &make()?)?;
        }
        let path = self.find(kind, key).ok_or_else(|| self.gone(kind))?;
        let file = File::open(&path).context(|| format!("cannot open {}", path.display()))?;
        Ok(Kept { file, path })
    }

    /// Opens a file that is there.
    ///
    /// # Errors
    /// When it is not, or cannot be read.
    pub fn open_kept(&self, kind: &str, key: &Key) -> Result<File> {
        let path = self.find(kind, key).ok_or_else(|| self.gone(kind))?;
        File::open(&path).context(|| format!("cannot open {}", path.display()))
    }

    /// A file to be written and then kept. Any user may write to it who gets it handed over; nobody else comes to it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn draft(&self) -> Result<NamedTempFile> {
        let file = NamedTempFile::new_in(&self.folder).context(|| self.failed())?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o666)).context(|| self.failed())?;
        Ok(file)
    }

    /// Keeps a draft for this kind and key.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_draft(&self, draft: NamedTempFile, kind: &str, key: &Key) -> Result<()> {
        let file = draft.as_file();
        // qemu runs as another user and opens it again.
        file.set_permissions(fs::Permissions::from_mode(0o644)).context(|| self.failed())?;
        file.sync_data().context(|| self.failed())?;
        let length = file.metadata().context(|| self.failed())?.len();
        let path = self.folder.join(format!("{kind}-{}-{length}", key.digits()));
        draft.persist(&path).map_err(|error| error.error).context(|| self.failed())?;
        self.tidy(kind);
        Ok(())
    }

    /// Removes the file of this kind and key, if there is one.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, kind: &str, key: &Key) -> Result<()> {
        let Some(path) = self.find(kind, key) else { return Ok(()) };
        fs::remove_file(&path).context(|| format!("cannot remove {}", path.display()))
    }

    fn failed(&self) -> String {
        format!("cannot write to the cache folder {}", self.folder.display())
    }

    fn gone(&self, kind: &str) -> Error {
        Error::failed(format!("the {kind} in the cache folder {} is gone", self.folder.display()))
            .hint("another run may have cleaned up: try again")
    }

    /// Keeps these bytes for this kind and key in place of what was there.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn replace(&self, kind: &str, key: &Key, bytes: &[u8]) -> Result<()> {
        self.remove(kind, key)?;
        self.keep(kind, key, bytes)
    }

    /// The short text of this kind and key, if there is one.
    pub fn text(&self, kind: &str, key: &Key) -> Option<String> {
        fs::read_to_string(self.find(kind, key)?).ok()
    }

    /// The whole file of this kind and key, if there is one.
    pub fn find(&self, kind: &str, key: &Key) -> Option<PathBuf> {
        let start = format!("{kind}-{}-", key.digits());
        let is_whole = |path: &PathBuf| {
            let length = path.file_name().and_then(|name| name.to_str()?.strip_prefix(&start)?.parse().ok());
            length
                .is_some_and(|length: u64| fs::metadata(path).is_ok_and(|metadata| metadata.len() == length))
        };
        self.entries(kind).into_iter().find(is_whole)
    }

    fn keep(&self, kind: &str, key: &Key, bytes: &[u8]) -> Result<()> {
        let mut draft = self.draft()?;
        draft.write_all(bytes).context(|| self.failed())?;
        self.keep_draft(draft, kind, key)
    }

    /// Removes the oldest of a kind. Whoever still has one open keeps it.
    fn tidy(&self, kind: &str) {
        let mut aged: Vec<_> = self
            .entries(kind)
            .into_iter()
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        aged.sort();
        let surplus = aged.len().saturating_sub(KEPT);
        for (_, path) in &aged[..surplus] {
            // Another run may have removed it already; one that stays does no harm.
            let _ = fs::remove_file(path);
        }
    }

    fn entries(&self, kind: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let of_kind = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.strip_prefix(kind).is_some_and(|rest| rest.starts_with('-'))
        };
        entries.map(|entry| entry.path()).filter(of_kind).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn content(mut kept: Kept) -> String {
        let mut text = String::new();
        kept.file.read_to_string(&mut text).unwrap();
        text
    }

    fn must_not_be_made() -> Result<Vec<u8>> {
        Err(Error::failed("made again"))
    }

    #[test]
    fn a_file_is_made_once_for_each_key_and_again_when_it_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("a/b")).unwrap();
        let key = Key::new().with("1");
        assert_eq!(content(cache.file("it", &key, || Ok(b"one".to_vec())).unwrap()), "one");
        assert_eq!(content(cache.file("it", &key, must_not_be_made).unwrap()), "one");
        let other = cache.file("it", &Key::new().with("2"), must_not_be_made).unwrap_err();
        assert_eq!(other.to_string(), "made again");
        fs::write(cache.find("it", &key).unwrap(), "o").unwrap();
        assert_eq!(content(cache.file("it", &key, || Ok(b"new".to_vec())).unwrap()), "new");
        assert_eq!(cache.text("it", &key).as_deref(), Some("new"));
        assert_eq!(cache.text("i", &key), None);
    }

    #[test]
    fn a_key_changes_with_its_files() {
        let file = NamedTempFile::new().unwrap();
        let key = || Key::new().with_file(file.path()).digits();
        let first = key();
        assert_eq!(first, key());
        fs::write(file.path(), "longer").unwrap();
        assert_ne!(first, key());
        assert_ne!(Key::new().with("ab").with("c").digits(), Key::new().with("a").with("bc").digits());
    }

    #[test]
    fn the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        for number in 0..9 {
            cache.file("it", &Key::new().with(&number.to_string()), || Ok(vec![number])).unwrap();
        }
        assert_eq!(cache.entries("it").len(), KEPT);
    }

    #[test]
    fn a_folder_of_others_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = Cache::open(folder.path()).unwrap_err();
        assert!(error.chain().contains("others may write to it"), "{error:?}");
    }
}
