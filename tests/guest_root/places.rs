//! Marks and places of files: mode, owner, times, moving, copying, and what the host brings.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use guestseal::guest::GuestRoot;
use guestseal::guest::change::{Change, NewFile, Supply};

pub(crate) struct Pieces(pub(crate) Vec<Vec<u8>>);

impl Supply for Pieces {
    fn piece(&mut self, source: u32, offset: u64) -> guestseal::Result<Vec<u8>> {
        let offset = usize::try_from(offset).unwrap();
        let file = &self.0[source as usize];
        Ok(file[offset..file.len().min(offset + 3)].to_vec())
    }
}

fn path(text: &str) -> PathBuf {
    PathBuf::from(text)
}

#[test]
fn a_file_of_the_host_comes_in_pieces_and_takes_the_place_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let root = GuestRoot::open(folder.path()).unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "a longer content than the new one").unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    let new = NewFile { mode: 0o4750, uid, gid };
    let change = Change::Bring { path: path("/file"), source: 1, new, modified: Some(1_000_000_000) };
    change.make_with(&root, &mut Pieces(vec![b"no".to_vec(), b"ten letters".to_vec()])).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"ten letters");
    let there = fs::metadata(&file).unwrap();
    assert_eq!((there.mode() & 0o7777, there.mtime()), (0o4750, 1_000_000_000));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    // Without somebody who has it, nothing is half written.
    let error = change.make(&root).unwrap_err();
    assert!(error.chain().contains("/file"), "{}", error.chain());
    assert_eq!(fs::read(&file).unwrap(), b"ten letters");
}

#[test]
fn what_is_copied_keeps_mode_times_links_and_holes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("from/deep")).unwrap();
    fs::write(at("from/deep/file"), [&[0; 200_000][..], b"end"].concat()).unwrap();
    fs::set_permissions(at("from/deep/file"), PermissionsExt::from_mode(0o640)).unwrap();
    fs::set_permissions(at("from/deep"), PermissionsExt::from_mode(0o711)).unwrap();
    symlink("/nowhere", at("from/link")).unwrap();
    let root = GuestRoot::open(folder.path()).unwrap();
    Change::Touch { path: path("/from/deep/file") }.make(&root).unwrap();
    Change::Copy { from: path("/from"), path: path("/to") }.make(&root).unwrap();
    assert_eq!(fs::read(at("to/deep/file")).unwrap(), fs::read(at("from/deep/file")).unwrap());
    assert_eq!(fs::read_link(at("to/link")).unwrap(), path("/nowhere"));
    for name in ["", "/deep", "/deep/file"] {
        let of = |place: &str| {
            let of = fs::metadata(at(&format!("{place}{name}"))).unwrap();
            (of.mode(), of.mtime(), of.mtime_nsec(), of.uid())
        };
        assert_eq!(of("from"), of("to"), "{name}");
    }
    assert!(fs::metadata(at("to/deep/file")).unwrap().blocks() < 300, "the hole was filled");
}

#[test]
fn moved_is_here_no_more_and_marks_are_set() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("a/b")).unwrap();
    fs::write(folder.path().join("a/b/c"), "x").unwrap();
    let root = GuestRoot::open(folder.path()).unwrap();
    Change::Move { from: path("/a/b"), path: path("/b") }.make(&root).unwrap();
    assert!(!folder.path().join("a/b").exists());
    Change::Mode { path: path("/b/c"), mode: 0o604 }.make(&root).unwrap();
    assert_eq!(fs::metadata(folder.path().join("b/c")).unwrap().mode() & 0o7777, 0o604);
    for gone in [
        Change::Mode { path: path("/none"), mode: 0 },
        Change::Touch { path: path("/none") },
        Change::Copy { from: path("/none"), path: path("/x") },
    ] {
        assert!(gone.make(&root).unwrap_err().chain().contains("/none"));
    }
    // A link is never what is marked: it may lead out of what was meant.
    symlink("c", folder.path().join("b/link")).unwrap();
    assert!(Change::Mode { path: path("/b/link"), mode: 0o777 }.make(&root).is_err());
}
