//! Superblocks as mkfs and its kin write them.

use guestseal::disk::{Content, FsState, Superblock, probe};

use crate::tools::{Image, has, run, try_run};

const MIB: u64 = 1 << 20;

fn superblock(image: &Image) -> Superblock {
    probe(&mut image.open(), 0, image.bytes).unwrap().expect("nothing known on the image")
}

/// What `blkid -p` says about one key; none when it does not say anything.
fn blkid(image: &Image, key: &str) -> Option<String> {
    let path = image.path().display().to_string();
    let (_, out, _) = try_run("blkid", &["-p", "-o", "value", "-s", key, &path], "");
    let value = out.trim_end_matches('\n');
    (!value.is_empty()).then(|| value.to_owned())
}

/// Makes an image and compares what is found on it with `blkid`; none when a tool is missing.
fn compare(bytes: u64, tool: &str, args: &[&str]) -> Option<Superblock> {
    if !has(&[tool, "blkid"]) {
        return None;
    }
    let image = Image::new(bytes).make(tool, args, "");
    let found = superblock(&image);
    let command = format!("{tool} {}", args.join(" "));
    assert_eq!(Some(found.content.name().to_owned()), blkid(&image, "TYPE"), "{command}");
    assert_eq!(found.uuid, blkid(&image, "UUID"), "{command}");
    assert_eq!(found.label, blkid(&image, "LABEL"), "{command}");
    assert!(!found.damaged && !found.hibernated && found.also.is_empty(), "{command}: {found:?}");
    // Formats that are packed into a file of their own size may be padded.
    let total = found.total_bytes.unwrap_or(image.bytes);
    let lost = image.bytes.checked_sub(total).expect("larger than the image");
    assert!(lost < 4096.max(image.bytes / 10), "{command}: {total} of {}", image.bytes);
    Some(found)
}

macro_rules! made_by {
    ($($name:ident: $content:ident $state:ident, $mib:literal MiB, $tool:literal $args:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let Some(found) = compare($mib * MIB, $tool, &$args) else { return };
                assert_eq!((found.content, found.state), (Content::$content, FsState::$state));
            }
        )*
    };
}

made_by! {
    ext2: Ext2 Clean, 8 MiB, "mke2fs" ["-qFt", "ext2", "-L", "two", "{}"];
    ext3: Ext3 Clean, 16 MiB, "mke2fs" ["-qFt", "ext3", "-L", "three", "{}"];
    ext4: Ext4 Clean, 16 MiB, "mke2fs" ["-qFt", "ext4", "-L", "a long label 16c", "{}"];
    ext4_small_blocks: Ext4 Clean, 16 MiB, "mke2fs" ["-qFt", "ext4", "-b", "1024", "-O", "^metadata_csum,inline_data", "{}"];
    ext4_without_journal: Ext4 Clean, 16 MiB, "mke2fs" ["-qFt", "ext4", "-O", "^has_journal", "{}"];
    ext4_without_64bit: Ext4 Clean, 16 MiB, "mke2fs" ["-qFt", "ext4", "-O", "^64bit", "-L", "ä ö", "{}"];
    ext_journal: ExtJournal Unknown, 16 MiB, "mke2fs" ["-qFO", "journal_dev", "{}"];
    xfs: Xfs Clean, 512 MiB, "mkfs.xfs" ["-qf", "-L", "root-xfs", "{}"];
    xfs_sectors_of_4096: Xfs Clean, 512 MiB, "mkfs.xfs" ["-qf", "-s", "size=4096", "{}"];
    xfs_version_4: Xfs Clean, 512 MiB, "mkfs.xfs" ["-qf", "-m", "crc=0", "-L", "twelvechars!", "{}"];
    xfs_striped_log: Xfs Clean, 512 MiB, "mkfs.xfs" ["-qf", "-l", "su=64k", "{}"];
    btrfs: Btrfs Clean, 128 MiB, "mkfs.btrfs" ["-qf", "-L", "root btrfs", "{}"];
    btrfs_with_xxhash: Btrfs Clean, 128 MiB, "mkfs.btrfs" ["-qf", "--csum", "xxhash", "{}"];
    fat12: Vfat Clean, 2 MiB, "mkfs.vfat" ["-F", "12", "-n", "TWELVE", "{}"];
    fat16: Vfat Clean, 32 MiB, "mkfs.vfat" ["-F", "16", "-n", "SIXTEEN", "-i", "00abcdef", "{}"];
    fat32: Vfat Clean, 64 MiB, "mkfs.vfat" ["-F", "32", "-n", "EFI SYSTEM", "{}"];
    fat32_sectors_of_4096: Vfat Clean, 512 MiB, "mkfs.vfat" ["-F", "32", "-S", "4096", "{}"];
    fat32_with_fake_mbr: Vfat Clean, 64 MiB, "mkfs.vfat" ["-F", "32", "--mbr=y", "-n", "FAKE", "{}"];
    swap: Swap Unknown, 16 MiB, "mkswap" ["-L", "swappy", "{}"];
    swap_of_large_pages: Swap Unknown, 16 MiB, "mkswap" ["-p", "65536", "{}"];
    exfat: Exfat Clean, 32 MiB, "mkfs.exfat" ["-L", "Größe", "{}"];
    f2fs: F2fs Unknown, 64 MiB, "mkfs.f2fs" ["-q", "-l", "flash", "{}"];
    f2fs_with_checksum: F2fs Unknown, 64 MiB, "mkfs.f2fs" ["-q", "-O", "extra_attr,sb_checksum", "{}"];
    jfs: Jfs Clean, 32 MiB, "mkfs.jfs" ["-q", "-L", "jay", "{}"];
    nilfs2: Nilfs2 Unknown, 256 MiB, "mkfs.nilfs2" ["-q", "-L", "log", "{}"];
    squashfs: Squashfs Clean, 0 MiB, "mksquashfs" ["{folder}", "{}", "-noappend", "-no-progress"];
    erofs: Erofs Clean, 0 MiB, "mkfs.erofs" ["{}", "{folder}"];
    iso9660: Iso9660 Clean, 0 MiB, "genisoimage" ["-quiet", "-V", "CIDATA", "-o", "{}", "{folder}"];
}

#[test]
fn ntfs() {
    if !has(&["mkfs.ntfs", "blkid"]) {
        return;
    }
    let image = Image::new(16 * MIB).make("mkfs.ntfs", &["-qF", "-L", "win", "{}"], "");
    let found = superblock(&image);
    assert_eq!((found.content, found.uuid), (Content::Ntfs, blkid(&image, "UUID")));
}

#[test]
fn udf() {
    if has(&["mkudffs"]) {
        let image = Image::new(16 * MIB).make("mkudffs", &["-b", "2048", "{}"], "");
        assert_eq!(superblock(&image).content, Content::Udf);
    }
}

#[test]
fn luks() {
    for (version, content) in [("luks1", Content::Luks1), ("luks2", Content::Luks2)] {
        if !has(&["cryptsetup", "blkid"]) {
            return;
        }
        let args = [
            "luksFormat",
            "-q",
            "--type",
            version,
            "--pbkdf",
            "pbkdf2",
            "--pbkdf-force-iterations",
            "1000",
            "{}",
        ];
        let image = Image::new(32 * MIB).make("cryptsetup", &args, "secret");
        let found = superblock(&image);
        assert_eq!((found.content, &found.uuid), (content, &blkid(&image, "UUID")));
        assert_eq!(Some(content.name().to_owned()), blkid(&image, "TYPE"));
    }
}

/// The label of a FAT32 root folder that has files before it, in another cluster.
#[test]
fn fat32_label_behind_other_entries() {
    let Some(()) = has(&["mkfs.vfat", "blkid"]).then_some(()) else { return };
    let image = Image::new(64 * MIB).make("mkfs.vfat", &["-F", "32", "-s", "1", "{}"], "");
    let boot = std::fs::read(image.path()).unwrap();
    let word = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let (table, root) = (word(14) * 512, (word(14) + 2 * word(36)) * 512);
    // Clusters 2 → 3: the first is full of entries, the second has the label.
    image.write(table + 8, &[3, 0, 0, 0, 0xff, 0xff, 0xff, 0x0f]);
    for number in 0..16 {
        image.write(root + number * 32, b"FILE    TXT\x20");
    }
    image.write(root + 512, b"SECOND     \x08");
    assert_eq!(superblock(&image).label.as_deref(), Some("SECOND"));
    assert_eq!(blkid(&image, "LABEL").as_deref(), Some("SECOND"));
}

/// One bit of the UUID changed, where a checksum covers it.
#[test]
fn damaged_superblocks() {
    for (tool, args, uuid) in [
        ("mke2fs", &["-qFt", "ext4", "{}"][..], 1024 + 104),
        ("mkfs.xfs", &["-qf", "{}"], 32),
        ("mkfs.xfs", &["-qf", "-s", "size=4096", "{}"], 32),
        ("mkfs.btrfs", &["-qf", "{}"], (64 << 10) + 32),
        ("mkfs.f2fs", &["-q", "-O", "extra_attr,sb_checksum", "{}"], 1024 + 0x6c),
        ("mkfs.erofs", &["{}", "{folder}"], 1024 + 48),
    ] {
        if !has(&[tool]) {
            continue;
        }
        let image = Image::new(512 * MIB).make(tool, args, "");
        let sound = superblock(&image);
        let first = u8::from_str_radix(&sound.uuid.unwrap()[..2], 16).unwrap();
        image.write(uuid, &[first ^ 1]);
        let found = superblock(&image);
        assert!(!sound.damaged && found.damaged, "{tool} {args:?}");
        assert_eq!(found.state, FsState::Errors);
    }
}

#[test]
fn ext4_states_that_debugfs_sets() {
    if !has(&["mke2fs", "debugfs"]) {
        return;
    }
    for (command, state) in [
        ("feature needs_recovery", FsState::NeedsRecovery),
        ("set_super_value state 0", FsState::Errors),
        ("set_super_value state 3", FsState::Errors),
        ("set_super_value last_orphan 12", FsState::NeedsRecovery),
    ] {
        let image = Image::new(16 * MIB).make("mke2fs", &["-qFt", "ext4", "{}"], "");
        let image = image.make("debugfs", &["-w", "-R", command, "{}"], "");
        let found = superblock(&image);
        assert_eq!((found.state, found.damaged), (state, false), "{command}");
    }
}

#[test]
fn an_external_log_is_needed() {
    if !has(&["mkfs.xfs"]) {
        return;
    }
    let log = Image::new(64 * MIB);
    let option = format!("logdev={},size=64m", log.path().display());
    let image = Image::new(512 * MIB).make("mkfs.xfs", &["-qf", "-l", &option, "{}"], "");
    let found = superblock(&image);
    assert_eq!((found.needs_other_device, found.state), (true, FsState::Unknown));
}

#[test]
fn btrfs_on_two_devices() {
    if !has(&["mkfs.btrfs", "blkid"]) {
        return;
    }
    let (one, two) = (Image::new(128 * MIB), Image::new(128 * MIB));
    let paths = [one.path().display().to_string(), two.path().display().to_string()];
    run("mkfs.btrfs", &["-qf", "-d", "single", "-m", "raid1", &paths[0], &paths[1]], "");
    for (image, number) in [(&one, 1), (&two, 2)] {
        let found = superblock(image);
        let device = found.btrfs.clone().unwrap();
        assert_eq!((device.devices, device.device_id), (2, number));
        assert_eq!(device.device_uuid, blkid(image, "UUID_SUB"));
        assert_eq!(found.uuid, blkid(image, "UUID"));
        assert!(found.needs_other_device);
    }
}

/// The log of XFS is judged as xfs_logprint judges it, before and after its unmount record is spoilt.
#[test]
fn xfs_log_states() {
    if !has(&["mkfs.xfs", "xfs_logprint"]) {
        return;
    }
    let image = Image::new(512 * MIB).make("mkfs.xfs", &["-qf", "{}"], "");
    let path = image.path().display().to_string();
    let judged = || run("xfs_logprint", &["-t", &path], "");
    assert_eq!(superblock(&image).state, FsState::Clean);
    let clean = judged();
    assert!(clean.contains("<CLEAN>"), "{clean}");
    // "log device: … daddr: 524336 length: …", in sectors of 512 bytes; the second block is the unmount record.
    let words: Vec<&str> = clean.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "daddr:").unwrap();
    let log: u64 = words[at + 1].parse().unwrap();
    image.write((log + 1) * 512 + 9, &[0]);
    assert_eq!(superblock(&image).state, FsState::NeedsRecovery);
    let dirty = judged();
    assert!(dirty.contains("<DIRTY>"), "{dirty}");
    // A log that was never written to, as xfs_repair -L of old left it.
    image.write(log * 512, &[0; 4096]);
    assert_eq!(superblock(&image).state, FsState::Clean);
    let zeroed = judged();
    assert!(zeroed.contains("<CLEAN>"), "{zeroed}");
}
