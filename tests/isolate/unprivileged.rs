//! The same as an ordinary user: this test program starts itself again as one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use guestseal::sys::child::{Spawn, User};

use crate::common::{is_root, require};
use crate::rig::{PROGRAM, kernel};

/// Nobody's number, and none of those that qemu gets.
const USER: u32 = 61_000;

#[test]
fn an_ordinary_user_starts_a_machine() {
    if !require(is_root(), "only root becomes another user") || kernel().is_none() {
        return;
    }
    // The build may be in a folder of root's: both programs go where everybody comes.
    let folder = tempfile::tempdir().unwrap();
    let (program, cache) = (folder.path().join("tests"), folder.path().join("cache"));
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::copy(PROGRAM, folder.path().join("guestseal")).unwrap();
    fs::create_dir(&cache).unwrap();
    chown(&cache, Some(USER), Some(USER)).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();

    let user = User { user: USER, group: USER, groups: Vec::new() };
    let test = "jobs::a_machine_has_its_disks_in_order_writes_to_them_and_powers_off";
    let run = Spawn::new(&program).args([test, "--exact", "--nocapture"]).folder(Path::new("/"));
    let run = run.env("GUESTSEAL_TEST_FOLDER", folder.path().to_string_lossy()).as_user(Some(user));
    let (exit, printed) = run.output(1 << 20).unwrap();
    let printed = String::from_utf8_lossy(&printed);
    assert!(printed.contains("1 passed") && printed.contains("boot"), "{printed} {}", exit.stderr);
    exit.success().unwrap();
}
