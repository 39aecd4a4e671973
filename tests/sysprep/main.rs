//! What guestfs-tools tests of its own virt-sysprep and virt-customize, in words of our own, with guestseal in their place:
//! scripts, dry runs, passwords, backup files. Needs root.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

#[path = "../images/common.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod common;
#[path = "../images/guests.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod guests;
#[path = "../images/mounts.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod mounts;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{GUESTSEAL, Ran, command, fingerprint, finish, ready, run};
use crate::guests::guest;
use crate::mounts::{Access, with_guest};

/// A copy of a guest in a folder of its own, from which the programs are called.
struct Place {
    folder: TempDir,
    before: String,
}

impl Place {
    fn new(variant: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("guestseal-sysprep-").tempdir_in("/var/tmp").unwrap();
        for name in ["virt-sysprep", "virt-customize"] {
            symlink(GUESTSEAL, folder.path().join(name)).unwrap();
        }
        let image = guest(variant).image;
        let raw = folder.path().join("disk.img");
        let from = if image.extension().is_some_and(|end| end == "qcow2") { "qcow2" } else { "raw" };
        run(
            "qemu-img",
            ["convert", "-q", "-f", from, "-O", "raw"]
                .map(PathBuf::from)
                .into_iter()
                .chain([image, raw.clone()]),
        )
        .expect(0);
        let before = fingerprint(&raw);
        Self { folder, before }
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("disk.img")
    }

    fn is_as_it_was(&self) -> bool {
        fingerprint(&self.image()) == self.before
    }

    /// Calls one of the programs in the folder, on the image.
    fn call(&self, line: &str) -> Ran {
        let mut words = line.split_whitespace();
        let mut program = command(self.folder.path().join(words.next().unwrap()));
        program.args(words).args(["--format", "raw", "-a", "disk.img"]).current_dir(self.folder.path());
        finish(program)
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Works in the mounted guest.
    fn within<T: Send>(&self, access: Access, work: impl FnOnce(&Path) -> T + Send) -> T {
        let inspection: Value =
            run(GUESTSEAL, [Path::new("inspect"), Path::new("--json"), &self.image()]).result();
        with_guest(&self.image(), &inspection["inspection"], access, work)
    }
}

fn files(root: &Path) -> Vec<PathBuf> {
    walkdir::WalkDir::new(root)
        .sort_by_file_name()
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .map(|path| path.strip_prefix(root).unwrap().to_path_buf())
        .collect()
}

#[test]
fn scripts_run_in_the_guests_folder_also_when_nothing_is_kept() {
    if !ready() {
        return;
    }
    let place = Place::new("arch");
    let here = place.folder.path().display().to_string();
    place.script(
        "one.sh",
        &format!("test -d etc && test -f etc/passwd && touch new-file && echo one >>{here}/one"),
    );
    place.script("two.sh", &format!("test -f new-file && echo two >>{here}/two"));
    place.script("three.sh", "exit 42");
    place.script(
        "four.sh",
        &format!("pwd >>{here}/four; stat -f -c %i . >>{here}/filesystem; mkdir made-by-four"),
    );
    place
        .call(&format!("virt-sysprep -q -n --enable script --script {here}/one.sh --script {here}/two.sh"))
        .expect(0);
    assert_eq!([place.lines("one"), place.lines("two")], [["one"], ["two"]]);
    let failed = place.call(&format!("virt-sysprep -q -n --enable script --script {here}/three.sh"));
    assert!(failed.code != 0, "{failed:#?}");
    failed.says(&["three.sh", "42"]);
    for _ in 0..2 {
        // Nothing is left of the first when the second runs.
        place.call(&format!("virt-sysprep -q -n --enable script --script {here}/four.sh")).expect(0);
    }
    assert_eq!(place.lines("four").len(), 2);
    assert!(place.is_as_it_was(), "a dry run changed the image");
    let beside = fs::read_dir(place.folder.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("seal"));
    assert_eq!(beside.count(), 0, "a dry run left something");
}

#[test]
fn each_operation_that_is_listed_as_on_runs_dry_on_each_guest() {
    if !ready() {
        return;
    }
    for variant in ["arch", "fedora", "opensuse", "alpine"] {
        let place = Place::new(variant);
        let listed = finish({
            let mut program = command(place.folder.path().join("virt-sysprep"));
            program.arg("--list-operations");
            program
        })
        .expect(0);
        let on = listed.stdout.lines().filter(|line| line.contains('*'));
        let on: Vec<_> = on.filter_map(|line| line.split_whitespace().next()).collect();
        assert!(on.len() > 30, "{on:?}");
        place.call(&format!("virt-sysprep -q -n --enable {}", on.join(","))).expect(0);
        place.call("virt-customize -n --write /etc/motd:HELLO --delete /etc/motd").expect(0);
        let failed =
            place.call("virt-customize -n --write /etc/motd:HELLO --move /etc/nothing-there:/etc/motd");
        assert!(failed.code != 0, "{failed:#?}");
        assert!(place.is_as_it_was(), "a dry run changed {variant}");
    }
}

#[test]
fn steps_behind_the_host_name_see_it_and_those_before_do_not() {
    if !ready() {
        return;
    }
    let place = Place::new("arch");
    let old = place.within(Access::Look, |root| fs::read_to_string(root.join("etc/hostname")).unwrap());
    let line = "--copy /etc/hostname:/etc/old --hostname web --copy /etc/hostname:/etc/new";
    place.call(&format!("virt-customize {line}")).expect(0);
    let read = |name: &str| place.within(Access::Look, |root| fs::read_to_string(root.join(name)).unwrap());
    assert_eq!([read("etc/old"), read("etc/new")], [old, "web\n".to_owned()]);
    run(GUESTSEAL, [Path::new("verify"), &place.image()]).expect(0);
}

/// What is looked at again behind the steps must not miss what went before them.
#[test]
fn an_account_that_was_removed_is_not_missed_behind_the_steps() {
    if !ready() {
        return;
    }
    let place = Place::new("arch");
    let line = "--operations defaults,user-account --remove-user-accounts alice --write /etc/motd:hello";
    place.call(&format!("virt-sysprep {line}")).expect(0);
    run(GUESTSEAL, [Path::new("verify"), &place.image()]).expect(0);
}

#[test]
fn each_form_of_a_password_is_set() {
    if !ready() {
        return;
    }
    let place = Place::new("arch");
    let users: Vec<String> = (1..=11).map(|number| format!("test{number:02}")).collect();
    // As their test does it: users that no other file knows.
    place.within(Access::Write, |root| {
        let mut shadow = fs::read_to_string(root.join("etc/shadow")).unwrap();
        users.iter().for_each(|user| shadow += &format!("{user}::15677:0:99999:7:::\n"));
        fs::write(root.join("etc/shadow"), shadow).unwrap();
    });
    fs::write(place.folder.path().join("password"), "123456\n").unwrap();
    let forms = [
        "password:123456",
        "password:123456:7890",
        "file:./password",
        "random",
        "disabled",
        "locked:password:123456",
        "locked:password:123456:7890",
        "locked:file:./password",
        "locked:random",
        "locked:disabled",
        "locked",
    ];
    let words: Vec<_> =
        users.iter().zip(forms).map(|(user, form)| format!("--password {user}:{form}")).collect();
    let line = format!("virt-sysprep --operations customize {}", words.join(" "));
    // What is random is shown on the terminal only, so there has to be one.
    let script = format!("{line} --format raw -a disk.img");
    let mut terminal = command("script");
    terminal.args(["-qec", &format!("./{script}"), "/dev/null"]).current_dir(place.folder.path());
    let ran = finish(terminal).expect(0);
    let shown: BTreeMap<&str, &str> = ran
        .stdout
        .lines()
        .filter_map(|line| line.trim().strip_prefix("the new password of ")?.split_once(" is: "))
        .collect();
    assert_eq!(shown.keys().copied().collect::<Vec<_>>(), ["test04", "test09"], "{ran:#?}");
    let shadow = place.within(Access::Look, |root| fs::read_to_string(root.join("etc/shadow")).unwrap());
    let field = |user: &str| {
        shadow
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{user}:"))?.split(':').next())
            .unwrap()
            .to_owned()
    };
    let passwords = [
        "123456",
        "123456:7890",
        "123456",
        shown["test04"],
        "",
        "123456",
        "123456:7890",
        "123456",
        shown["test09"],
        "",
        "",
    ];
    for ((user, form), password) in users.iter().zip(forms).zip(passwords) {
        let field = field(user);
        let (locked, hash) = field.strip_prefix('!').map_or((false, &*field), |hash| (true, hash));
        assert_eq!(locked, form.starts_with("locked"), "{user}:{form}: {field}");
        match form {
            // It had none, and unlocking must not bring back the empty one.
            _ if form.ends_with("disabled") || form == "locked" => assert_eq!(hash, "*", "{user}:{form}"),
            _ => {
                let salt = hash.rsplit_once('$').unwrap().0;
                let made =
                    run("perl", ["-e", "print crypt($ARGV[0], $ARGV[1])", password, &format!("{salt}$")])
                        .expect(0)
                        .stdout;
                assert_eq!(made, hash, "{user}:{form}");
            }
        }
    }
}

#[test]
fn backup_files_go_from_where_they_are_looked_for_and_nothing_else() {
    if !ready() {
        return;
    }
    let place = Place::new("arch");
    let before = place.within(Access::Write, |root| {
        fs::create_dir_all(root.join("usr/share")).unwrap();
        // Neither is a place where people edit files.
        fs::write(root.join("usr/share/test~"), "").unwrap();
        fs::write(root.join("boot/test~"), "").unwrap();
        // The guest's own.
        fs::remove_file(root.join("etc/app.conf~")).unwrap();
        fs::remove_file(root.join("var/backups/shadow.bak")).unwrap();
        let before = files(root);
        fs::write(root.join("etc/fstab.bak"), "old").unwrap();
        fs::write(root.join("etc/resolv.conf~"), "old").unwrap();
        before
    });
    place.call("virt-sysprep -x --operations backup-files").expect(0);
    assert_eq!(place.within(Access::Look, files), before);
}
