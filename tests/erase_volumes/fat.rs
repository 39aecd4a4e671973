//! FAT12, FAT16 and FAT32, planted with mtools: no kernel is needed.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use guestseal::erase::map::fat::free_extents;
use guestseal::erase::metadata::Act;
use guestseal::erase::metadata::fat::walk;
use guestseal::erase::volume::VolumeBytes;

use crate::common::{has_tool, require};
use crate::image::{Image, tool, words};

const KINDS: [(&str, usize); 4] = [
    ("-F 12 -s 4 -r 224", 4 << 20),
    ("-F 16 -s 2", 12 << 20),
    ("-F 32 -s 1", 40 << 20),
    ("-F 16 -S 4096 -s 1", 24 << 20),
];

fn ready() -> bool {
    ["mkfs.vfat", "fsck.vfat", "mcopy", "mdel", "mmd"]
        .iter()
        .all(|tool| require(has_tool(tool), &format!("needs {tool}")))
}

/// Runs one of mtools on an image.
fn mtool(image: &Image, name: &str, args: &[&str]) -> String {
    let all = [
        "MTOOLS_SKIP_CHECK=1".to_owned(),
        name.to_owned(),
        "-i".to_owned(),
        image.path().display().to_string(),
    ];
    tool("env", all.into_iter().chain(args.iter().map(|arg| (*arg).to_owned())))
}

/// Puts a file into the image.
fn put(image: &Image, name: &str, content: &[u8]) {
    let from = image.path().with_file_name("new");
    fs::write(&from, content).unwrap();
    mtool(image, "mcopy", &["-D", "o", from.to_str().unwrap(), &format!("::{name}")]);
}

fn get(image: &Image, name: &str) -> Vec<u8> {
    let to = image.path().with_file_name("got");
    let _ = fs::remove_file(&to);
    mtool(image, "mcopy", &[&format!("::{name}"), to.to_str().unwrap()]);
    fs::read(to).unwrap()
}

fn secret(length: usize) -> Vec<u8> {
    b"CANARY-content ".iter().copied().cycle().take(length).collect()
}

/// What is kept: name and length.
const KEPT: [(&str, usize); 5] = [
    ("/a short.txt", 20),
    ("/EFI/kept with a long name.cfg", 5000),
    ("/EFI/BOOTX64.EFI", 60_000),
    ("/empty", 0),
    ("/EFI/deep/last", 4096),
];

fn kept(name: &str, length: usize) -> Vec<u8> {
    name.bytes().cycle().take(length).collect()
}

/// A vfat over old data, with files, and with what was left of deleted ones.
fn planted(mkfs: &str, bytes: usize) -> Image {
    let image = Image::new(bytes);
    tool("mkfs.vfat", words(&format!("-n TEMPLATES {mkfs}"), &[&image.path()]));
    for folder in ["/EFI", "/EFI/deep", "/gone", "/EFI/CANARY-folder"] {
        mtool(&image, "mmd", &[&format!("::{folder}")]);
    }
    for number in 0..40 {
        put(&image, &format!("/gone/CANARY-name {number}"), &secret(3000));
        put(&image, &format!("/EFI/CANARY-name with many letters in it {number}.txt"), &secret(700));
    }
    put(&image, "/CANARY~1.TXT", &secret(200_000));
    for (name, length) in KEPT {
        put(&image, name, &kept(name, length));
    }
    mtool(&image, "mdel", &["::/CANARY~1.TXT", "::/EFI/CANARY-name*"]);
    mtool(&image, "mdeltree", &["::/gone", "::/EFI/CANARY-folder"]);
    image
}

#[test]
fn what_was_deleted_goes_and_what_is_used_stays() {
    if !ready() {
        return;
    }
    for (mkfs, bytes) in KINDS {
        let image = planted(mkfs, bytes);
        let (file, length) = (image.open(), image.length());
        // Another volume behind it is none of its business.
        let volume = VolumeBytes::new(&file, 0, length);
        let before = image.canaries();
        let found = walk(&volume, Act::Count).unwrap();
        let kinds: Vec<_> = found.iter().map(|remains| (&*remains.kind, remains.nonzero > 0)).collect();
        assert_eq!(kinds, [("directories", true), ("file slack", true), ("lost clusters", false)], "{mkfs}");
        assert_eq!(image.canaries(), before, "counting changes nothing");
        assert_eq!(walk(&volume, Act::Zero).unwrap(), found, "{mkfs}");
        image.zero(&free_extents(&volume).unwrap());
        assert!(walk(&volume, Act::Count).unwrap().iter().all(|remains| remains.nonzero == 0), "{mkfs}");
        // The reserved sectors that mkfs did not write keep what was there before it.
        let reserved = reserved(&image);
        file.write_all_at(&vec![0; reserved.len()], reserved.start as u64).unwrap();
        assert_eq!(image.canaries(), 0, "{mkfs}");
        tool("fsck.vfat", words("-n -V", &[&image.path()]));
        for (name, length) in KEPT {
            assert_eq!(get(&image, name), kept(name, length), "{mkfs}: {name}");
        }
        assert!(mtool(&image, "mlabel", &["-s", "::"]).contains("TEMPLATES"));
        // Long names are still there.
        assert!(mtool(&image, "mdir", &["-b", "::/EFI"]).contains("kept with a long name.cfg"));
    }
}

/// Reserved sectors that are neither boot sector, information sector nor their copies.
fn reserved(image: &Image) -> std::ops::Range<usize> {
    let boot = fs::read(image.path()).unwrap();
    let [sector, reserved] = [11, 14].map(|at| usize::from(u16::from_le_bytes([boot[at], boot[at + 1]])));
    // FAT32 has the copies at 6 and 7 of 32.
    if reserved > 8 { sector * 8..sector * reserved } else { 0..0 }
}

#[test]
fn clusters_of_no_file_and_orphaned_names_go() {
    if !ready() {
        return;
    }
    let image = planted("-F 16 -s 2", 12 << 20);
    put(&image, "/LOST.TXT", &secret(5000));
    put(&image, "/another long name.txt", b"kept");
    let (file, bytes) = (image.open(), fs::read(image.path()).unwrap());
    // The entry goes, its clusters stay in the table.
    let entry = bytes.windows(11).position(|name| name == b"LOST    TXT").unwrap();
    file.write_all_at(&[0xe5], entry as u64).unwrap();
    // A system that knows no long names deletes the short one only.
    let entry = bytes.windows(6).position(|name| name == b"ANOTHE").unwrap();
    let before = &bytes[entry - 64..entry];
    assert_eq!((before[11], before[43]), (0x0f, 0x0f));
    file.write_all_at(&[0xe5], entry as u64).unwrap();
    let volume = VolumeBytes::new(&file, 0, image.length());
    let found = walk(&volume, Act::Zero).unwrap();
    assert!(found[2].nonzero >= 5000, "{found:?}");
    let bytes = fs::read(image.path()).unwrap();
    assert_eq!(bytes[entry - 64..entry].iter().filter(|byte| **byte != 0).count(), 2);
    assert!(walk(&volume, Act::Count).unwrap().iter().all(|remains| remains.nonzero == 0));
}

fn refused(image: &Image, why: &str) {
    let file = image.open();
    let volume = VolumeBytes::new(&file, 0, image.length());
    let error = walk(&volume, Act::Count).unwrap_err();
    assert!(error.to_string().contains(why), "{error:?}");
}

#[test]
fn what_is_damaged_or_was_not_unmounted_is_refused() {
    if !ready() {
        return;
    }
    let image = planted("-F 16 -s 2", 12 << 20);
    let good = fs::read(image.path()).unwrap();
    let half = |at: usize| usize::from(u16::from_le_bytes([good[at], good[at + 1]]));
    let (table, length) = (half(11) * half(14), half(11) * half(22));
    let check = |at: usize, bytes: &[u8], why: &str| {
        fs::write(image.path(), &good).unwrap();
        image.open().write_all_at(bytes, at as u64).unwrap();
        refused(&image, why);
    };
    check(0x25, &[1], "not unmounted");
    check(table + 200, &[1, 2, 3], "copies differ");
    check(0, &[0; 512], "no boot sector");
    let root = table + 2 * length;
    check(root + 32 * 100, b"GHOST   TXT ", "behind its end");
    let entry = |name: &[u8]| good.windows(name.len()).position(|at| at == name).unwrap();
    // Two files with one cluster; a folder in itself; a file longer than its clusters.
    let (one, two) = (entry(b"ASHORT~1TXT"), entry(b"EFI        "));
    check(one + 26, &good[two + 26..two + 28], "two files");
    let deep = entry(b"DEEP       ");
    check(deep + 26, &good[two + 26..two + 28], "two files");
    check(one + 28, &[0, 0, 1], "longer than its clusters");
    check(one + 26, &[0xff, 0x7f], "number of a cluster");
    fs::write(image.path(), &good[..8 << 20]).unwrap();
    refused(&image, "sizes");
}

#[test]
fn any_damage_ends_in_an_answer() {
    if !ready() {
        return;
    }
    for (mkfs, bytes) in &KINDS[..3] {
        let image = planted(mkfs, *bytes);
        let (file, length) = (image.open(), image.length());
        let volume = VolumeBytes::new(&file, 0, length);
        let good = fs::read(image.path()).unwrap();
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for round in 0..150 {
            // The boot sector at first, then the tables and folders.
            let reach = if round < 60 { 90 } else { length / 4 };
            let places: Vec<u64> =
                (0..=random(6) * if round < 60 { 1 } else { 400 }).map(|_| random(reach)).collect();
            let byte = [u8::try_from(random(256)).unwrap()];
            places.iter().for_each(|at| file.write_all_at(&byte, *at).unwrap());
            let _ = (walk(&volume, Act::Count), free_extents(&volume));
            for at in places {
                let whole = usize::try_from(at).unwrap();
                file.write_all_at(&good[whole..=whole], at).unwrap();
            }
        }
        walk(&volume, Act::Count).unwrap();
    }
}

#[test]
fn nothing_outside_of_the_volume_is_named() {
    if !ready() {
        return;
    }
    let image = planted("-F 12 -s 4 -r 224", 4 << 20);
    let disk = image.path().with_file_name("disk");
    let bytes = fs::read(image.path()).unwrap();
    // At an odd place of a disk, with room behind the filesystem.
    fs::write(&disk, [vec![b'x'; 1536], bytes, vec![b'y'; 3000], vec![b'x'; 512]].concat()).unwrap();
    let file = fs::File::options().read(true).write(true).open::<&Path>(&disk).unwrap();
    let volume = VolumeBytes::new(&file, 1536, image.length() + 3000);
    let free = free_extents(&volume).unwrap();
    assert_eq!(free.iter().last().unwrap().end(), image.length() + 3000);
    walk(&volume, Act::Zero).unwrap();
    free.iter().for_each(|extent| {
        volume.write(extent.start, &vec![0; usize::try_from(extent.length).unwrap()]).unwrap();
    });
    let bytes = fs::read(PathBuf::from(&disk)).unwrap();
    let end = bytes.len() - 512;
    assert!(bytes[end - 3000..end].iter().all(|byte| *byte == 0));
    assert!(bytes[..1536].iter().chain(&bytes[end..]).all(|byte| *byte == b'x'));
}
