//! Too deep, too long, too many, too large.

use std::process::Command;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::mkdirat;

use super::*;

const LEVELS: usize = 2000;

/// Folders that nest 2,000 deep, 20,000 bytes of path, with a file in the innermost.
fn nest(arena: &Arena) -> PathBuf {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let mut dir = nix::fcntl::open(&arena.guest(""), flags, Mode::empty()).unwrap();
    let mut path = PathBuf::from("/");
    for level in 0..LEVELS {
        let name = format!("level{level:04}");
        mkdirat(&dir, name.as_str(), Mode::S_IRWXU).unwrap();
        dir = openat(&dir, name.as_str(), flags, Mode::empty()).unwrap();
        path.push(name);
    }
    let file = openat(&dir, "file.log", OFlag::O_WRONLY | OFlag::O_CREAT, Mode::S_IRWXU).unwrap();
    assert_eq!(nix::unistd::write(file, b"deep").unwrap(), 4);
    path.join("file.log")
}

#[test]
fn folders_may_nest_2000_deep() {
    let arena = Arena::new();
    let root = arena.root();
    let file = nest(&arena);
    assert_eq!(root.measure(Path::new("/")).unwrap(), (LEVELS as u64 + 1, 4));
    assert_eq!(root.lookup(&file).unwrap().unwrap().bytes, 4);
    assert_eq!(root.read_head(&file, 10).unwrap(), b"deep");
    let seen = found(&root, "/level0000/**/*.log");
    assert_eq!(seen.iter().map(|entry| &entry.path).collect::<Vec<_>>(), [&file]);
    assert_eq!(found(&root, "/**").len(), LEVELS + 1);
    Change::Truncate { path: file.clone(), bytes: 4 }.make(&root).unwrap();
    assert_eq!(root.lookup(&file).unwrap().unwrap().bytes, 0);
    Change::Remove { path: file.clone(), kind: FileKind::File, bytes: 0 }.make(&root).unwrap();
    assert!(root.lookup(&file).unwrap().is_none());
    Change::RemoveTree { path: "/level0000".into(), bytes: 0, entries: 0 }.make(&root).unwrap();
    assert!(root.names(Path::new("/")).unwrap().is_empty());
}

/// The test above once more where a process may have 32 open files.
#[test]
fn deep_folders_need_few_open_files() {
    #[expect(clippy::disallowed_methods, reason = "the limit is that of a process")]
    let output = Command::new("bash")
        .args(["-c", "ulimit -n 32 && exec \"$0\" --exact large::folders_may_nest_2000_deep"])
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn paths_around_the_longest_the_kernel_takes() {
    for length in [4000, 4093, 4094, 4095, 4096, 4097, 4098, 8191, 8192] {
        let arena = Arena::new();
        let root = arena.root();
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let mut dir = nix::fcntl::open(&arena.guest(""), flags, Mode::empty()).unwrap();
        let mut path = PathBuf::from("/");
        while path.as_os_str().len() + 202 < length {
            let name = "d".repeat(100);
            mkdirat(&dir, name.as_str(), Mode::S_IRWXU).unwrap();
            dir = openat(&dir, name.as_str(), flags, Mode::empty()).unwrap();
            path.push(name);
        }
        let name = "f".repeat(length - path.as_os_str().len() - 1);
        drop(openat(&dir, name.as_str(), OFlag::O_WRONLY | OFlag::O_CREAT, Mode::S_IRWXU).unwrap());
        let path = path.join(&name);
        assert_eq!(path.as_os_str().len(), length);
        let change = Change::Replace {
            path: path.clone(),
            content: Content(b"new".into()),
            new: NewFile::root(0o600),
        };
        change.make(&root).unwrap();
        assert_eq!(root.lookup(&path).unwrap().unwrap().bytes, 3, "{length}");
        assert_eq!(root.read_head(&path, 10).unwrap(), b"new", "{length}");
        assert_eq!(found(&root, &format!("/**/{name}"))[0].path, path);
        let top = PathBuf::from("/").join("d".repeat(100));
        assert_eq!(root.measure(&top).unwrap().1, 3, "{length}");
        Change::Remove { path: path.clone(), kind: FileKind::File, bytes: 3 }.make(&root).unwrap();
        assert!(root.lookup(&path).unwrap().is_none(), "{length}");
        Change::RemoveTree { path: top, bytes: 0, entries: 0 }.make(&root).unwrap();
        assert!(root.names(Path::new("/")).unwrap().is_empty());
    }
}

#[test]
fn a_name_longer_than_the_kernel_takes_is_the_name_of_nothing() {
    let arena = Arena::new();
    let root = arena.root();
    for length in [256, 5000] {
        let path = Path::new("/").join("n".repeat(length));
        assert!(root.lookup(&path).unwrap().is_none() && root.read(&path).unwrap().is_none());
        Change::Remove { path, kind: FileKind::File, bytes: 0 }.make(&root).unwrap();
    }
}

#[test]
fn a_folder_may_have_100_000_entries() {
    let arena = Arena::new();
    let root = arena.root();
    fs::create_dir(arena.guest("many")).unwrap();
    let first = arena.guest("many/00000");
    File::create(&first).unwrap();
    for number in 1..100_000 {
        // The same file by many names is made faster than many files; ext4 allows 65,000 names.
        let path = arena.guest(&format!("many/{number:05}"));
        if number % 2 == 0 { fs::hard_link(&first, path).unwrap() } else { symlink("x", path).unwrap() }
    }
    assert_eq!(root.names(Path::new("/many")).unwrap().len(), 100_000);
    assert_eq!(root.measure(Path::new("/many")).unwrap().0, 100_000);
    assert_eq!(found(&root, "/many/*9").len(), 10_000);
    Change::RemoveTree { path: "/many".into(), bytes: 0, entries: 0 }.make(&root).unwrap();
    assert!(root.names(Path::new("/")).unwrap().is_empty());
}

#[test]
fn sparse_files_of_an_exbibyte() {
    // tmpfs allows files up to 8 EiB; other filesystems less.
    let Ok(folder) = TempDir::new_in("/dev/shm") else {
        require(false, "no /dev/shm to make a file of 1 EiB in");
        return;
    };
    let root = GuestRoot::open(folder.path()).unwrap();
    let (log, lengths) =
        (folder.path().join("big.log"), [1 << 60, i64::MAX.unsigned_abs(), i64::MAX.unsigned_abs()]);
    for (number, length) in lengths.into_iter().enumerate() {
        File::create(folder.path().join(format!("{number}"))).unwrap().set_len(length).unwrap();
    }
    File::create(&log).unwrap().set_len(1 << 60).unwrap();
    assert_eq!(
        root.measure(Path::new("/")).unwrap(),
        (4, u64::MAX),
        "the sum is more than there are numbers"
    );
    assert!(root.read(Path::new("/big.log")).is_err(), "it is not read into memory");
    assert_eq!(root.read_head(Path::new("/big.log"), 8).unwrap(), [0; 8]);
    Change::Truncate { path: "/big.log".into(), bytes: 1 << 60 }.make(&root).unwrap();
    assert_eq!(fs::metadata(log).unwrap().len(), 0);
}
