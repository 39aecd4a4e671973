//! Folders that are not sealed, and options that say nothing about a folder.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::common::{GUESTSEAL, Ran, on_path, require, run, tool};
use crate::{Tree, ready};

#[track_caller]
fn on(folder: &Path, command: &str) -> Ran {
    run(GUESTSEAL, [command, "--tree"].map(PathBuf::from).into_iter().chain([folder.to_path_buf()]))
}

/// Runs a shell line in a root that is thrown away: an overlay over that of the host, in a mount namespace of its own. A
/// guestseal that does not refuse would seal that, and never the machine that runs the tests.
#[track_caller]
fn in_throwaway_root(line: &str) -> String {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let host = fs::metadata("/").unwrap();
    let outer = "mount -t tmpfs none $1; mkdir $1/upper $1/work $1/root
        mount -t overlay none -o lowerdir=/,upperdir=$1/upper,workdir=$1/work $1/root
        mount -t proc none $1/root/proc
        exec chroot $1/root bash -euc \"$2\" sh $3";
    let inner = format!("[ $(stat -c %d:%i /) != $1 ]\n{line}");
    let id = format!("{}:{}", host.dev(), host.ino());
    let words = ["-m", "--propagation", "private", "bash", "-euc", outer, "sh"].map(PathBuf::from);
    tool("unshare", words.into_iter().chain([folder.path().into(), inner.into(), id.into()]))
}

#[test]
fn the_running_systems_own_root_is_refused_by_every_name() {
    if !ready() {
        return;
    }
    let line = format!(
        "mkdir /var/tmp/bind; mount --bind / /var/tmp/bind; ln -s / /var/tmp/link
         for name in / /usr/.. /proc/self/root /var/tmp/link /var/tmp/bind; do
             for command in seal inspect verify 'seal --dry-run'; do
                 echo $name $command; {GUESTSEAL} $command --tree $name 2>&1 || echo exit $?
             done
         done; ls -a / /var/tmp"
    );
    let ran = in_throwaway_root(&line);
    // Of these, verify reads the record first, which the bind mount, by its name, has not.
    assert_eq!(ran.matches("is the root of this running system").count(), 19, "{ran}");
    assert_eq!((ran.matches("exit 2").count(), ran.matches("exit 1").count()), (19, 1), "{ran}");
    assert!(!ran.contains(".seal.json\n") && !ran.contains("\nsealed "), "{ran}");
}

#[test]
fn what_is_no_guest_is_refused() {
    if !ready() {
        return;
    }
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let (file, empty) = (folder.path().join("file"), folder.path().join("empty"));
    fs::write(&file, "").unwrap();
    fs::create_dir(&empty).unwrap();
    for command in ["seal", "inspect"] {
        on(&file, command).expect(2).says(&["is no folder"]);
        on(&empty, command).expect(6).says(&["no operating system was found in", "what to do"]);
        on(&folder.path().join("missing"), command).expect(1).says(&["cannot find the folder"]);
    }
    let names = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 2, "something was left in the folder");
    let record = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"urn:guestseal:seal:v1",
        "predicate":{"tool-version":"","started":"","finished":"","input":{},"guest":{},"operations":[],
        "erasure":{"policy":"none"},"attached":"fuse","commit":{}}}"#;
    fs::write(folder.path().join("empty.seal.json"), record).unwrap();
    on(&empty, "verify").expect(1).says(&["is the record of an image"]);
}

#[test]
fn two_runs_do_not_meet_and_a_read_only_tree_is_not_written() {
    if !ready() {
        return;
    }
    let tree = Tree::new("alpine");
    let before = tree.print();
    let held = Flock::lock(File::open(&tree.root).unwrap(), FlockArg::LockExclusive).unwrap();
    tree.guestseal("seal").expect(3).says(&["somebody has a lock on", "try again"]);
    tree.guestseal("inspect").expect(0);
    drop(held);
    let line = format!(
        "mount --bind $1 $1; mount -o remount,bind,ro $1; {GUESTSEAL} seal --tree $1 2>&1 || echo exit $?; {GUESTSEAL} inspect -q --tree $1"
    );
    let ran = tool("unshare", ["-m", "bash", "-euc", &line, "sh", tree.root.to_str().unwrap()]);
    assert!(ran.contains("is mounted read-only") && ran.contains("exit 1"), "{ran}");
    assert_eq!(tree.print(), before);
}

#[test]
fn an_ordinary_user_is_told_what_is_needed() {
    if !ready() || !require(on_path("setpriv"), "needs setpriv") {
        return;
    }
    let tree = Tree::new("alpine");
    let program = tempfile::Builder::new().prefix("guestseal-tree-").tempdir_in("/var/tmp").unwrap();
    let copy = program.path().join("guestseal");
    fs::copy(GUESTSEAL, &copy).unwrap();
    tool("chmod", [Path::new("755"), program.path()]);
    tool("chmod", [Path::new("777"), tree.folder.path()]);
    tool("chown", [Path::new("-hR"), Path::new("65534:65534"), &tree.root]);
    let before = tree.print();
    let words = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"].map(PathBuf::from);
    let args = words.into_iter().chain([copy, "seal".into(), "--tree".into(), tree.root.clone()]);
    run("setpriv", args).expect(7).says(&["needs root", "run guestseal as root"]);
    assert_eq!(tree.print(), before);
}
