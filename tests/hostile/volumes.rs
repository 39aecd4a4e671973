//! Partition tables and superblocks that lie: entries that overlap, lead out of the disk or in circles, counts beyond
//! all bounds, filesystems larger than what they lie on, of unknown kinds, or two in one place.

use crate::bases::base;
use crate::common::{on_path, ready, require, tool};
use crate::headers::Forgery;

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;

/// The checksum of a GPT.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// A disk with a GPT, its primary header or entries changed and, if wanted, its checksums made right again.
fn gpt(change: impl Fn(&Forgery), sums: bool) -> Forgery {
    let forged = Forgery::new("disk", "raw", &[]);
    change(&forged);
    if sums {
        let sectors = forged.file.metadata().unwrap().len() / SECTOR;
        for header in [1, sectors - 1] {
            let at = header * SECTOR;
            let count = u32::from_le_bytes(forged.bytes(at + 80, 4).try_into().unwrap());
            let entries = u64::from_le_bytes(forged.bytes(at + 72, 8).try_into().unwrap());
            if count <= 4096 && entries < sectors - 32 || header != 1 && entries < sectors {
                let entries = forged.bytes(entries * SECTOR, 128 * 128);
                forged.put(at + 88, &crc32(&entries).to_le_bytes());
            }
            forged.put(at + 16, &[0; 4]);
            let sum = crc32(&forged.bytes(at, 92));
            forged.put(at + 16, &sum.to_le_bytes());
        }
    }
    forged
}

/// A field of an entry of the primary table: 32 is where the first sector stands, 40 the last.
fn entry(number: u64, field: u64) -> u64 {
    2 * SECTOR + number * 128 + field
}

#[test]
fn gpts_that_lie() {
    if !ready() {
        return;
    }
    gpt(|_| {}, true).must_be_sealed("a sound GPT");
    gpt(|forged| forged.le64(entry(1, 32), 4096), true).must_be_refused("overlapping", &[6], &["overlap"]);
    gpt(|forged| forged.le64(entry(1, 40), 1 << 40), true).must_be_refused(
        "out of the disk",
        &[6],
        &["partition 2", "sectors"],
    );
    gpt(|forged| forged.le64(entry(1, 40), u64::MAX), true).must_be_refused(
        "beyond all numbers",
        &[6],
        &["partition 2"],
    );
    gpt(|forged| forged.le64(entry(0, 32), u64::MAX), true).must_be_refused(
        "inverted",
        &[6],
        &["partition 1", "ends before it starts"],
    );
    gpt(|forged| forged.le64(entry(0, 32), 0), true).must_be_refused(
        "over the table",
        &[6],
        &["the GPT itself"],
    );
    gpt(|forged| forged.put(SECTOR + 16, &[1; 4]), false)
        .must_be_sealed("a wrong checksum, but a sound backup");
    gpt(|forged| forged.put(entry(0, 56), &[1; 4]), false)
        .must_be_sealed("entries with a wrong checksum, but a sound backup");
    let both = |forged: &Forgery| {
        let end = forged.file.metadata().unwrap().len();
        forged.put(SECTOR + 16, &[1; 4]);
        forged.put(end - SECTOR + 16, &[1; 4]);
    };
    gpt(both, false).must_be_refused("wrong checksums in both", &[6], &["both copies"]);
    for count in [u32::MAX, 0, 1 << 25] {
        gpt(|forged| forged.put(SECTOR + 80, &count.to_le_bytes()), true)
            .must_be_sealed("an impossible count, but a sound backup");
        let both = |forged: &Forgery| {
            let end = forged.file.metadata().unwrap().len();
            forged.put(SECTOR + 80, &count.to_le_bytes());
            forged.put(end - SECTOR + 80, &count.to_le_bytes());
        };
        gpt(both, true).must_be_refused(
            "an impossible count in both",
            &[6],
            &["both copies", "number or size of entries"],
        );
    }
    gpt(|forged| forged.put(entry(1, 56), b"x\0y\0"), true).must_be_sealed("a backup that differs");
    gpt(|forged| forged.le64(SECTOR + 72, u64::MAX), true)
        .must_be_sealed("entries beyond all numbers, but a sound backup");
}

/// A disk with one ext4 guest in partition 1 of an MBR, and an extended partition behind it.
fn mbr(change: impl Fn(&Forgery)) -> Forgery {
    let forged = Forgery::empty(300);
    let whole = tempfile::tempdir_in("/var/tmp").unwrap();
    let guest = whole.path().join("guest");
    base("ext4", &guest);
    let args = ["conv=sparse,notrunc", "bs=1M", "seek=1", "status=none"];
    tool(
        "dd",
        args.map(String::from)
            .into_iter()
            .chain([format!("if={}", guest.display()), format!("of={}", forged.stage.image.display())]),
    );
    part(&forged, 0, 0, 0x83, 2048, 256 * 2048);
    part(&forged, 0, 1, 5, 257 * 2048, 40 * 2048);
    forged.put(510, &[0x55, 0xaa]);
    change(&forged);
    forged
}

/// Writes an entry of the table in this sector.
fn part(forged: &Forgery, sector: u64, index: u64, kind: u8, start: u32, sectors: u32) {
    let at = sector * SECTOR + 446 + index * 16;
    forged.put(at, &[0, 0, 0, 0, kind, 0, 0, 0]);
    forged.put(at + 8, &start.to_le_bytes());
    forged.put(at + 12, &sectors.to_le_bytes());
    forged.put(sector * SECTOR + 510, &[0x55, 0xaa]);
}

#[test]
fn chains_of_boot_records_that_lie() {
    if !ready() {
        return;
    }
    const FIRST: u32 = 257 * 2048;
    let first = u64::from(FIRST);
    mbr(|forged| part(forged, first, 0, 0x83, 64, 64)).must_be_sealed("one logical partition");
    mbr(|forged| part(forged, first, 1, 5, 0, 64)).must_be_refused(
        "a record that names itself",
        &[6],
        &["in a circle"],
    );
    let circle = |forged: &Forgery| {
        part(forged, first, 1, 5, 100, 64);
        part(forged, first + 100, 1, 5, 200, 64);
        part(forged, first + 200, 1, 5, 100, 64);
    };
    mbr(circle).must_be_refused("a circle of three", &[6], &["in a circle"]);
    mbr(|forged| part(forged, first, 1, 5, u32::MAX, 64)).must_be_refused(
        "out of the disk",
        &[6],
        &["out of bounds"],
    );
    mbr(|forged| part(forged, first, 0, 0x83, 1, u32::MAX)).must_be_refused(
        "a logical one out of the disk",
        &[6],
        &["logical partition 5"],
    );
    let many = |forged: &Forgery| {
        for number in 0..1000_u32 {
            let at = first + u64::from(number) * 8;
            part(forged, at, 0, 0x83, 1, 1);
            part(forged, at, 1, 5, (number + 1) * 8, 8);
        }
    };
    mbr(many).must_be_refused("1,000 logical partitions", &[6], &["more than 256"]);
    mbr(|forged| part(forged, 0, 2, 0x83, 4096, 100)).must_be_refused("overlapping", &[6], &["overlap"]);
    mbr(|forged| part(forged, 0, 2, 0x83, u32::MAX, u32::MAX)).must_be_refused(
        "out of the disk",
        &[6],
        &["partition 3"],
    );
    mbr(|forged| part(forged, 0, 2, 5, 257 * 2048, 40 * 2048)).must_be_refused(
        "two extended ones in one place",
        &[6],
        &["overlap"],
    );
}

fn raw(kind: &str, change: impl Fn(&Forgery)) -> Forgery {
    let forged = Forgery::new(kind, "raw", &[]);
    change(&forged);
    forged
}

/// An ext4 whose superblock was changed by its own tool, so that its checksum is right.
fn ext4(field: &str, value: &str) -> Forgery {
    raw("ext4", |forged| {
        let set = format!("set_super_value {field} {value}");
        tool("debugfs", ["-w", "-R", &set, forged.stage.image.to_str().unwrap()]);
    })
}

#[test]
fn superblocks_that_lie() {
    if !ready() {
        return;
    }
    let longer = ["longer than what it lies on", "the whole disk"];
    ext4("blocks_count", "99999999").must_be_refused("an ext4 that is too long", &[6], &longer);
    ext4("log_block_size", "20").must_be_refused("blocks of a GiB", &[6], &["neither a partition table"]);
    ext4("feature_incompat", "0xffffffff").must_be_refused("all features", &[6], &[]);
    ext4("feature_incompat", "0x400002c2").must_be_refused(
        "an unknown feature",
        &[6],
        &["cannot mount", "ext4"],
    );
    ext4("inode_size", "0").must_be_refused("inodes of no length", &[6], &["ext4"]);
    ext4("blocks_per_group", "0").must_be_refused("groups of no length", &[6], &["ext4"]);
    ext4("first_data_block", "4000000000").must_be_refused("a first block out of the disk", &[6], &["ext4"]);
    raw("ext4", |forged| forged.put(1024 + 4, &[0xff; 3])).must_be_refused(
        "a wrong checksum",
        &[6],
        &["checksum", "e2fsck"],
    );
    raw("xfs", |forged| forged.be64(8, 1 << 40)).must_be_refused("an xfs that is too long", &[6], &[]);
    raw("xfs", |forged| forged.be32(4, 1 << 31)).must_be_refused(
        "an xfs of senseless blocks",
        &[6],
        &["neither a partition table"],
    );
    raw("xfs", |forged| forged.put(120, &[0xff; 8])).must_be_refused(
        "an xfs of senseless logarithms",
        &[6],
        &[],
    );
    raw("xfs", |forged| forged.put(216, &[0xff; 4])).must_be_refused("an xfs of unknown features", &[6], &[]);
    raw("btrfs", |forged| forged.le64((64 << 10) + 112, u64::MAX)).must_be_refused(
        "a btrfs that is too long",
        &[6],
        &[],
    );
    raw("btrfs", |forged| forged.put((64 << 10) + 144, &[0xff; 4])).must_be_refused(
        "a btrfs of senseless sectors",
        &[6],
        &[],
    );
    raw("btrfs", |forged| forged.le64((64 << 10) + 188, u64::MAX)).must_be_refused(
        "a btrfs of unknown features",
        &[6],
        &[],
    );
    raw("btrfs", |forged| forged.le64((64 << 10) + 136, 1 << 60)).must_be_refused(
        "a btrfs of many devices",
        &[6],
        &["devices"],
    );
}

/// An md superblock of version 1.0, which stands at the end, or 1.2.
fn md(forged: &Forgery, length: u64, version2: bool) {
    let at = if version2 { 4096 } else { length / 4096 * 4096 - 8192 };
    let mut sb = vec![0_u8; 4096];
    sb[..8].copy_from_slice(&[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]);
    sb[16..32].fill(7);
    sb[144..152].copy_from_slice(&(at / SECTOR).to_le_bytes());
    let sum: u64 =
        sb[..256].chunks(4).map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap()))).sum();
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    sb[216..220].copy_from_slice(&u32::try_from(sum).unwrap().to_le_bytes());
    forged.put(at, &sb);
}

#[test]
fn two_things_in_one_place() {
    if !ready() {
        return;
    }
    let length = |forged: &Forgery| forged.file.metadata().unwrap().len();
    let half = gpt(|forged| md(forged, length(forged), false), false);
    half.must_be_refused("half a mirror with a GPT", &[6], &["software RAID", "half of a mirror"]);
    mbr(|forged| md(forged, length(forged), false)).must_be_refused(
        "half a mirror with an MBR",
        &[6],
        &["software RAID"],
    );
    raw("ext4", |forged| md(forged, length(forged), false)).must_be_refused(
        "half a mirror without partitions",
        &[6],
        &["linux_raid_member"],
    );
    gpt(
        |forged| {
            // The kernel of the guest would find the array in partition 1.
            let inside = 128 * MIB;
            let at = MIB + inside - 8192;
            md(forged, inside, false);
            let sb = forged.bytes(inside - 8192, 4096);
            forged.put(inside - 8192, &[0; 4096]);
            forged.put(at, &sb);
        },
        false,
    )
    .must_be_refused("half a mirror in a partition", &[6], &["linux_raid_member"]);
    let two = Forgery::new("xfs", "raw", &[]);
    let ext = Forgery::new("ext4", "raw", &[]);
    two.put(1024, &ext.bytes(1024, 1024));
    two.must_be_refused("xfs and ext4", &[6], &["xfs and ext4", "wipefs"]);
    let two = Forgery::new("ext4", "raw", &[]);
    let btrfs = Forgery::new("btrfs", "raw", &[]);
    two.put(64 << 10, &btrfs.bytes(64 << 10, 4096));
    two.must_be_refused("ext4 and btrfs", &[6], &["ext4 and btrfs", "wipefs"]);
}

/// What guestseal does not mount, whatever the host's kernel could: the kernel is never asked to find out.
#[test]
fn filesystems_of_other_kinds() {
    if !ready() {
        return;
    }
    let makers: [(&str, &str, &str); 6] = [
        (
            "mksquashfs",
            "squashfs",
            "mkdir $D/etc && touch $D/etc/os-release && rm -f $I && mksquashfs $D $I -quiet -no-progress >/dev/null",
        ),
        (
            "genisoimage",
            "iso9660",
            "mkdir $D/etc && touch $D/etc/os-release && genisoimage -quiet -R -o $I $D",
        ),
        ("mkfs.ntfs", "ntfs", "mkfs.ntfs -q -F $I"),
        ("mkfs.minix", "neither a partition table nor a filesystem", "mkfs.minix -3 $I >/dev/null"),
        ("mkfs.vfat", "vfat", "mkfs.vfat $I >/dev/null"),
        ("mkfs.ext4", "no operating system", "mkfs.ext4 -q -F $I"),
    ];
    for (maker, word, line) in makers {
        if !require(on_path(maker), &format!("needs {maker}")) {
            continue;
        }
        let forged = Forgery::empty(64);
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let line = format!("D={}; I={}; {line}", folder.path().display(), forged.stage.image.display());
        crate::common::shell(&line);
        let forged = Forgery {
            file: std::fs::File::options().read(true).write(true).open(&forged.stage.image).unwrap(),
            ..forged
        };
        forged.must_be_refused(maker, &[6], &[word]);
    }
    // Their magic numbers where their superblocks stand.
    let bcachefs = Forgery::empty(64);
    bcachefs.put(4096 + 24, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef");
    bcachefs.put(4096 + 104, &[8]);
    bcachefs.put(4096 + 122, &[0, 1]);
    bcachefs.must_be_refused("bcachefs", &[6], &["bcachefs"]);
    let zfs = Forgery::empty(128);
    let mut pairs = vec![1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    for (name, kind, value) in
        [("name\0\0\0\0", 9_u32, &b"\0\0\0\x04tank"[..]), ("pool_guid\0\0\0", 8, &[7; 8])]
    {
        let name_length = u32::try_from(name.trim_end_matches('\0').len()).unwrap();
        let padded = name_length.next_multiple_of(4);
        let length = u32::try_from(8 + 4 + 8 + value.len()).unwrap() + padded;
        for word in [length, length, name_length] {
            pairs.extend(word.to_be_bytes());
        }
        pairs.extend(&name.as_bytes()[..usize::try_from(padded).unwrap()]);
        pairs.extend(kind.to_be_bytes());
        pairs.extend(1_u32.to_be_bytes());
        pairs.extend(value);
    }
    zfs.put(16 << 10, &pairs);
    zfs.must_be_refused("zfs", &[6], &["zfs_member"]);
}
