//! The table of docs/erasure.md: how often the markers of each kind can be read back after a bare script, after
//! virt-sysprep and after guestseal. Takes minutes: scripts/erasure-table runs it.

use std::collections::BTreeSet;
use std::path::Path;

use crate::cells::{Sealed, Way};
use crate::common::{command, finish, on_path, require};
use crate::disk::{Filesystem, Planted};
use crate::proof::removed_by_a_script;
use crate::scan::{Counts, count};
use crate::stage::Stage;
use crate::variants::{BTRFS, EXT4, XFS, possible};

/// The kinds of markers, in words for people.
const KINDS: &[(&str, &str)] = &[
    ("ago", "file deleted long ago, in part overwritten since"),
    ("deleted", "file the guest deleted before it was shut down"),
    ("large", "large file (8 MiB)"),
    ("small", "small files"),
    ("tiny", "tiny files (inline where the filesystem does that)"),
    ("tinygone", "the same, deleted by the guest"),
    ("fragmented", "fragmented file"),
    ("sparse", "sparse file"),
    ("hardlinked", "file with several names"),
    ("overwritten", "live file: its text before it was overwritten, shortened, replaced"),
    ("truncated", "live log that sealing empties"),
    ("rotated", "rotated log"),
    ("noise", "file that cannot be compressed"),
    ("reflinked", "file with shared extents"),
    ("zeroed", "live file: what its unwritten extents held"),
    ("reserved", "file deleted before others preallocated its place"),
    ("name", "names of files"),
    ("longname", "long names"),
    ("manynames", "names in a large folder"),
    ("slackname", "names deleted from a folder that stays"),
    ("oldname", "names from before a rename"),
    ("fastlink", "targets of short links"),
    ("slowlink", "targets of long links"),
    ("xattr", "small extended attributes"),
    ("xattrblock", "extended attributes in a block"),
    ("xattrremote", "extended attributes of many blocks"),
    ("xattrgone", "attribute removed from a file that stays"),
    ("esp", "ESP: files"),
    ("espdir", "ESP: files with long names"),
    ("espname", "ESP: short names"),
    ("esplongname", "ESP: long names"),
    ("swap", "swap partition"),
    ("swapfile", "swap file"),
    ("gap", "between partitions"),
    ("tail", "behind the last partition"),
    ("boot", "before the first partition: the boot loader's, stays"),
    ("snapshot", "held by a snapshot of the guest's: in the record, stays"),
];

/// What was found in the disk and in the file of a qcow2 image.
struct Found {
    disk: Counts,
    file: Counts,
}

#[test]
#[ignore = "prints a table; scripts/erasure-table runs it"]
fn table() {
    if !possible() || !require(on_path("virt-sysprep"), "needs virt-sysprep") {
        return;
    }
    let columns: Vec<_> = [EXT4, XFS, BTRFS].map(measure).into();
    print(&columns);
}

/// One filesystem: before, after a script, after virt-sysprep, after guestseal.
fn measure(filesystem: Filesystem) -> (&'static str, [Found; 4]) {
    let planted = Planted::make(filesystem);
    let image = Stage::convert(&planted.disk, "qcow2", &[]);
    let before = Found { disk: planted.counts.clone(), file: count(&image.image) };
    let raw = Stage::convert(&planted.disk, "raw", &[]);
    removed_by_a_script(&raw.image, &planted);
    let disk = count(&raw.image);
    let script = Found { file: disk.clone(), disk };
    virt_sysprep(&image.image);
    let raw = crate::mounts::export(&image.image, "qcow2");
    let sysprep = Found { disk: count(&raw), file: count(&image.image) };
    let sealed = Sealed::make(&planted, "qcow2", Way::Overlay, "");
    let (disk, file) = sealed.left(&[]);
    (filesystem.name, [before, script, sysprep, Found { disk, file }])
}

/// Its default operations remove log files and temporary files as well.
#[expect(clippy::disallowed_methods, reason = "scripts/erasure-table says which kernel the appliance has")]
fn virt_sysprep(image: &Path) {
    let mut limited = command("timeout");
    limited.args(["--kill-after=5", "580", "virt-sysprep", "--quiet", "-a"]).arg(image);
    limited
        .env("HOME", "/root")
        .env("LIBGUESTFS_BACKEND", "direct")
        .env("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg");
    for name in ["SUPERMIN_KERNEL", "SUPERMIN_KERNEL_VERSION", "SUPERMIN_MODULES"] {
        if let Some(value) = std::env::var_os(name) {
            limited.env(name, value);
        }
    }
    finish(limited).expect(0);
}

fn print(columns: &[(&str, [Found; 4])]) {
    let planted: BTreeSet<&str> =
        columns.iter().flat_map(|(_, found)| found[0].disk.keys()).map(String::as_str).collect();
    let told: BTreeSet<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(planted, told);
    let (mut head, mut rule) = (String::from("| kind |"), String::from("|---|"));
    for (name, _) in columns {
        head += &format!(" {name}: before | `rm` | virt-sysprep | guestseal |");
        rule += "--:|--:|--:|--:|";
    }
    println!("TABLE {head}\nTABLE {rule}");
    for (kind, words) in KINDS {
        let mut line = format!("| {words} |");
        for (_, found) in columns {
            let [before, script, sysprep, sealed] = found;
            let number = |counts: &Counts| counts.get(*kind).copied().unwrap_or_default();
            let both = |found: &Found| format!("{} / {}", number(&found.disk), number(&found.file));
            if number(&before.disk) == 0 {
                line += " – | – | – | – |";
            } else {
                line += &format!(
                    " {} | {} | {} | {} |",
                    number(&before.disk),
                    number(&script.disk),
                    both(sysprep),
                    both(sealed)
                );
            }
        }
        println!("TABLE {line}");
    }
}
