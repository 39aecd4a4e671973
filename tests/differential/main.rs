//! The same guest and the same command line through Debian's virt-sysprep and through guestseal in its place: the two
//! trees are compared file by file. Every difference is in differences.tsv with its reason, or is a defect. Needs root,
//! virt-sysprep and some minutes.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

mod commands;
#[path = "../images/common.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod common;
#[path = "../common/kernel.rs"]
mod kernel;
mod known;
mod trees;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use commands::Steps;
use common::{GUESTSEAL, command, finish, on_path, require, run};
use kernel::kernel;
use known::Known;
use tempfile::TempDir;
use trees::{Mounted, differences};

/// Every comparison: its name in differences.tsv, the guest, the command line.
const COMPARED: [(&str, Guest, Steps); 6] = [
    ("chosen", Guest::Debian, commands::CHOSEN),
    ("debian", Guest::Debian, commands::DEBIAN),
    ("fedora", Guest::Flat("fedora"), commands::TREE),
    ("opensuse", Guest::Flat("opensuse"), commands::TREE),
    ("arch", Guest::Flat("arch"), commands::TREE),
    ("alpine", Guest::Flat("alpine"), commands::ACCOUNTS),
];

#[derive(Clone, Copy)]
enum Guest {
    /// Debian 12, as it is installed.
    Debian,
    /// A hand-made distribution on one filesystem.
    Flat(&'static str),
}

impl Guest {
    /// A fresh copy of its image.
    fn make(self, image: &Path) {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
        let (script, name) = match self {
            Self::Debian => ("make-guest", "debian12"),
            Self::Flat(name) => ("flat-guest", name),
        };
        run(scripts.join(script), [name.as_ref(), image.as_os_str()]).expect(0);
    }
}

fn ready() -> bool {
    require(nix::unistd::geteuid().is_root(), "needs root")
        && ["virt-sysprep", "qemu-img", "qemu-storage-daemon", "sfdisk", "mount", "bwrap"]
            .iter()
            .all(|tool| require(on_path(tool), &format!("needs {tool}")))
        && require(Path::new("/dev/loop-control").exists(), "needs loop devices")
        && require(Path::new("/dev/fuse").exists(), "needs /dev/fuse")
}

/// What the steps bring from the host.
fn prepare(folder: &Path) {
    fs::create_dir_all(folder.join("tree/sub")).unwrap();
    for (name, mode, text) in [
        ("upload", 0o4755, "#!/bin/sh\necho upload\n"),
        ("look", 0o755, "#!/bin/sh\nset -e\nid -u >/srv/who\npwd >>/srv/who\ntest -w /etc/passwd\n"),
        ("commands", 0o644, "# steps\nwrite /srv/from-file:text of a file\n\nchmod 0600:/srv/from-file\n"),
        ("key.pub", 0o644, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAnotherKeyOfNobody00 you@host\n"),
        (".profile", 0o644, "# of the host\n"),
        ("tree/file", 0o600, "a file\n"),
        ("tree/.hidden", 0o644, "hidden\n"),
        ("tree/sub/x", 0o444, "x\n"),
    ] {
        fs::write(folder.join(name), text).unwrap();
        fs::set_permissions(folder.join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    symlink("sub/x", folder.join("tree/link")).unwrap();
    symlink(GUESTSEAL, folder.join("virt-sysprep")).unwrap();
}

/// A guest after a program had it. HERE of the steps is `here`.
fn done_by(program: &Path, image: &Path, steps: Steps, here: &Path) -> Mounted {
    let here = here.to_str().unwrap();
    let steps = steps.iter().flatten().map(|word| word.replace("HERE", here));
    let format = if image.extension().is_some_and(|end| end == "raw") { "raw" } else { "qcow2" };
    let mut sysprep = command("timeout");
    sysprep.arg("900").arg(program).args(["--format", format, "-a"]).arg(image).args(steps);
    sysprep.env("HOME", here).env("LIBGUESTFS_BACKEND", "direct");
    sysprep.env("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg");
    // By its own name: for hosts that have none themselves.
    if let Ok(kernel) = kernel().canonicalize() {
        let version = kernel.file_name().unwrap().to_str().unwrap().strip_prefix("vmlinuz-").unwrap();
        let modules = kernel.ancestors().nth(2).unwrap().join("lib/modules").join(version);
        sysprep.env("SUPERMIN_KERNEL", &kernel).env("SUPERMIN_KERNEL_VERSION", version);
        sysprep.env("SUPERMIN_MODULES", modules);
    }
    let started = std::time::Instant::now();
    let ran = finish(sysprep).expect(0);
    println!("{} {:.1} s\n{}", image.display(), started.elapsed().as_secs_f64(), ran.stderr);
    Mounted::new(image)
}

/// Compares what both make of a guest, and holds it against the list.
fn compare(name: &str) {
    if !ready() {
        return;
    }
    let (_, guest, steps) = COMPARED.iter().find(|(one, ..)| *one == name).unwrap();
    let folder = TempDir::with_prefix_in("guestseal-differential-", "/var/tmp").unwrap();
    prepare(folder.path());
    let end = if matches!(guest, Guest::Debian) { "qcow2" } else { "raw" };
    let programs = [PathBuf::from("virt-sysprep"), folder.path().join("virt-sysprep")];
    let mut number = 0;
    let [theirs, ours] = programs.map(|program| {
        number += 1;
        let image = folder.path().join(format!("{name}{number}.{end}"));
        if number == 1 {
            guest.make(&image);
            fs::copy(&image, folder.path().join(format!("{name}2.{end}"))).unwrap();
        }
        done_by(&program, &image, steps, folder.path())
    });
    assert_eq!(ours.wrong_labels(), "", "files have not the label that the policy has for them");
    let (theirs, ours) = (theirs.tree(), ours.tree());
    let found = differences(&theirs, &ours);
    println!("{} differences", found.len());
    for (path, what) in &found {
        if *what == "content" || *what == "attributes" {
            println!("{path}\n--- theirs\n{}\n--- ours\n{}", theirs[path].show(what), ours[path].show(what));
        }
    }
    let known = Known::of(name);
    let unexplained: Vec<_> =
        found.iter().filter(|(path, what)| !known.iter().any(|one| one.is(path, what))).collect();
    for (path, what) in &unexplained {
        println!("{name}\t{path}\t{what}");
    }
    let idle: Vec<_> = known
        .iter()
        .filter(|one| !found.iter().any(|(path, what)| one.is(path, what)))
        .map(|one| one.line)
        .collect();
    assert!(idle.is_empty(), "these are no differences any more of {name}: {idle:#?}");
    assert!(unexplained.is_empty(), "{} differences have no reason", unexplained.len());
}

#[test]
fn chosen_operations_on_debian() {
    compare("chosen");
}

#[test]
fn the_default_operations_on_debian() {
    compare("debian");
}

#[test]
fn fedora_with_selinux() {
    compare("fedora");
}

#[test]
fn opensuse() {
    compare("opensuse");
}

#[test]
fn arch() {
    compare("arch");
}

#[test]
fn accounts_of_alpine() {
    compare("alpine");
}

/// A line for a guest that there is not would never be missed.
#[test]
fn the_list_names_guests_that_are_compared() {
    for known in Known::all() {
        for guest in known.guests() {
            assert!(COMPARED.iter().any(|(name, ..)| name == guest), "{}", known.line);
        }
    }
}
