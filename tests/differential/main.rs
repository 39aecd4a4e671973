//! The same guest and the same command line through Debian's virt-sysprep and through guestseal in its place: the two
//! trees are compared file by file. Every difference is in differences.tsv with its reason, or is a defect. Needs root,
//! virt-sysprep and a minute.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

#[path = "../images/common.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod common;
#[path = "../common/kernel.rs"]
mod kernel;
mod trees;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::{GUESTSEAL, command, finish, on_path, require, run};
use kernel::kernel;
use tempfile::TempDir;
use trees::{Mounted, differences};

const KNOWN: &str = include_str!("differences.tsv");

/// The steps, as one pipeline has them; HERE stands for a folder of this host.
const STEPS: &[&str] = &[
    "--operations",
    "customize,machine-id,ssh-hostkeys,bash-history,passwd-backups,tmp-files,logfiles,utmp",
    "--hostname",
    "web.example.org",
    "--timezone",
    "Europe/Berlin",
    "--root-password",
    "disabled",
    "--mkdir",
    "/srv/site/deep",
    "--write",
    "/srv/site/index:first\n",
    "--append-line",
    "/srv/site/index:second",
    "--append-line",
    "/etc/hosts:10.0.0.1 db",
    "--edit",
    "/etc/ssh/sshd_config:s/^#?UseDNS.*/UseDNS no/",
    "--edit",
    "/etc/login.defs:s/^(UMASK\\s+)\\d+/${1}027/",
    "--chmod",
    "0640:/srv/site/index",
    "--upload",
    "HERE/upload:/srv/site",
    "--upload",
    "HERE/upload:/srv/site/renamed",
    "--copy-in",
    "HERE/tree:/srv/site",
    "--copy",
    "/srv/site/tree:/srv/site/copied",
    "--copy",
    "/etc/skel:/srv",
    "--move",
    "/srv/site/renamed:/srv/site/deep",
    "--link",
    "/srv/site/index:/srv/index:/srv/site/deep",
    "--touch",
    "/srv/site/touched",
    "--truncate",
    "/etc/motd",
    "--truncate-recursive",
    "/srv/site/tree",
    "--write",
    "/srv/scrubbed:secret",
    "--scrub",
    "/srv/scrubbed",
    "--delete",
    "/usr/share/doc/a*",
    "--delete",
    "/srv/site/copied/*",
    "--ssh-inject",
    "root:string:ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHostKeyOfNobodyAtAll me@host",
    "--firstboot",
    "HERE/upload",
    "--firstboot-command",
    "echo up",
    "--password-crypto",
    "sha512",
];

fn ready() -> bool {
    require(nix::unistd::geteuid().is_root(), "needs root")
        && ["virt-sysprep", "qemu-img", "qemu-storage-daemon", "sfdisk", "mount"]
            .iter()
            .all(|tool| require(on_path(tool), &format!("needs {tool}")))
        && require(Path::new("/dev/loop-control").exists(), "needs loop devices")
        && require(Path::new("/dev/fuse").exists(), "needs /dev/fuse")
}

/// What the steps bring from the host.
fn prepare(folder: &Path) {
    fs::create_dir_all(folder.join("tree/sub")).unwrap();
    for (name, mode) in
        [("upload", 0o4755), ("tree/file", 0o600), ("tree/.hidden", 0o644), ("tree/sub/x", 0o444)]
    {
        fs::write(folder.join(name), format!("#!/bin/sh\necho {name}\n")).unwrap();
        fs::set_permissions(folder.join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    symlink("sub/x", folder.join("tree/link")).unwrap();
    symlink(GUESTSEAL, folder.join("virt-sysprep")).unwrap();
}

#[test]
fn guestseal_does_to_a_guest_what_virt_sysprep_does() {
    if !ready() {
        return;
    }
    let folder = TempDir::with_prefix_in("guestseal-differential-", "/var/tmp").unwrap();
    prepare(folder.path());
    let made = run(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/make-guest"), ["debian12"]).expect(0);
    let guest = PathBuf::from(made.stdout.trim());
    let here = folder.path().display().to_string();
    let steps: Vec<String> = STEPS.iter().map(|word| word.replace("HERE", &here)).collect();
    let [theirs, ours] = ["theirs.qcow2", "ours.qcow2"].map(|name| folder.path().join(name));
    for (image, program) in
        [(&theirs, PathBuf::from("virt-sysprep")), (&ours, folder.path().join("virt-sysprep"))]
    {
        fs::copy(&guest, image).unwrap();
        let mut sysprep = command("timeout");
        sysprep.arg("600").arg(program).arg("-a").arg(image).args(&steps).env("HOME", folder.path());
        sysprep.env("LIBGUESTFS_BACKEND", "direct").env("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg");
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
    }
    let (theirs, ours) = (Mounted::new(&theirs), Mounted::new(&ours));
    let (theirs, ours) = (theirs.tree(), ours.tree());
    let found = differences(&theirs, &ours);
    println!("{} differences", found.len());
    for (path, _) in found.iter().filter(|(_, what)| *what == "content") {
        println!("{path}\n--- theirs\n{}\n--- ours\n{}", theirs[path].content, ours[path].content);
    }
    let known: Vec<Known> =
        KNOWN.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(Known::parse).collect();
    let unexplained: Vec<_> =
        found.iter().filter(|(path, what)| !known.iter().any(|one| one.is(path, what))).collect();
    for (path, what) in &unexplained {
        println!("{path}\t{what}");
    }
    let idle: Vec<_> = known
        .iter()
        .filter(|one| !found.iter().any(|(path, what)| one.is(path, what)))
        .map(|one| one.line)
        .collect();
    assert!(unexplained.is_empty(), "{} differences have no reason", unexplained.len());
    assert!(idle.is_empty(), "these are no differences any more: {idle:#?}");
}

/// One line of differences.tsv: glob, what, reason.
struct Known {
    line: &'static str,
    glob: globset::GlobMatcher,
    what: Vec<&'static str>,
}

impl Known {
    fn parse(line: &'static str) -> Self {
        let columns: Vec<_> = line.split('\t').collect();
        let [glob, what, reason] = columns[..] else { panic!("{line:?} has not three columns") };
        assert!(reason.len() > 10, "{line:?}: why?");
        let glob = globset::GlobBuilder::new(glob).literal_separator(true).build().unwrap().compile_matcher();
        Self { line, glob, what: what.split(',').collect() }
    }

    fn is(&self, path: &str, what: &str) -> bool {
        self.what.contains(&what) && self.glob.is_match(path)
    }
}
