//! Formats whose makers need root or are rarely installed, signs of hibernation, and volumes with several superblocks.
//! The others are made by their own tools in tests/disk_images.

mod filesystems;

use proptest::prelude::*;

use super::*;
use crate::disk::content::FsState;
use crate::disk::crc::{crc32, crc32c};
use crate::disk::testing::{Disk, noise, put_ext2};

const SIZE: u64 = 80 << 20;

fn disk(parts: &[(u64, &[u8])]) -> Disk {
    let mut disk = Disk::new(SIZE);
    for (at, bytes) in parts {
        disk.put(*at, bytes);
    }
    disk
}

fn find(mut disk: Disk) -> Superblock {
    let bytes = disk.bytes;
    probe(&mut disk, 0, bytes).unwrap().expect("nothing found")
}

/// What is found all the same.
fn nothing(parts: &[(u64, &[u8])]) -> Option<Content> {
    probe(&mut disk(parts), 0, SIZE).unwrap().map(|found| found.content)
}

fn names(found: &Superblock) -> (Content, Option<&str>, Option<&str>) {
    (found.content, found.uuid.as_deref(), found.label.as_deref())
}

const UUID: [u8; 16] = [0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe, 1, 2, 3, 4, 5, 6, 7, 8];
const UUID_TEXT: Option<&str> = Some("10325476-98ba-dcfe-0102-030405060708");

#[test]
fn lvm_physical_volumes() {
    for sector in 0..4_u64 {
        let mut label = [0; 512];
        label[..8].copy_from_slice(b"LABELONE");
        label[8..16].copy_from_slice(&sector.to_le_bytes());
        label[20..24].copy_from_slice(&32_u32.to_le_bytes());
        label[24..32].copy_from_slice(b"LVM2 001");
        label[32..64].copy_from_slice(b"abcdefghijklmnopqrstuvwxyzABCDEF");
        let crc = crc32(0xf597_a6cf, &label[20..]);
        label[16..20].copy_from_slice(&crc.to_le_bytes());
        let found = find(disk(&[(sector * 512, &label)]));
        let uuid = Some("abcdef-ghij-klmn-opqr-stuv-wxyz-ABCDEF");
        assert_eq!((names(&found), found.damaged), ((Content::LvmPv, uuid, None), false));
        label[33] = b'x';
        assert!(find(disk(&[(sector * 512, &label)])).damaged);
    }
}

fn md1(at: u64) -> Vec<u8> {
    let mut sb = vec![0; 256 + 2 * 3];
    sb[..8].copy_from_slice(&[0xfc, 0x4e, 0x2b, 0xa9, 1, 0, 0, 0]);
    sb[16..32].copy_from_slice(&UUID);
    sb[32..38].copy_from_slice(b"host:0");
    sb[144..152].copy_from_slice(&(at / 512).to_le_bytes());
    sb[220] = 3;
    sb[256..].copy_from_slice(&[1, 0, 2, 0, 0xfe, 0xff]);
    let sum: u64 =
        sb.chunks(4).map(|word| word.iter().rev().fold(0, |sum, byte| sum * 256 + u64::from(*byte))).sum();
    let sum = u32::try_from(sum & 0xffff_ffff).unwrap().wrapping_add(u32::try_from(sum >> 32).unwrap());
    sb[216..220].copy_from_slice(&sum.to_le_bytes());
    sb
}

#[test]
fn raid_members() {
    for at in [SIZE - 8192, 0, 4096] {
        let found = find(disk(&[(at, &md1(at))]));
        assert_eq!(
            (names(&found), found.damaged),
            ((Content::MdMember, UUID_TEXT, Some("host:0")), false),
            "{at}"
        );
        let mut spoilt = md1(at);
        spoilt[80] ^= 1;
        assert!(find(disk(&[(at, &spoilt)])).damaged, "{at}");
    }
    // A superblock that says that it belongs elsewhere is a copy.
    assert!(probe(&mut disk(&[(4096, &md1(0))]), 0, SIZE).unwrap().is_none());
}

#[test]
fn old_raid_members() {
    let words: [u32; 16] = [
        0xa92b_4efc,
        0,
        90,
        0,
        0,
        0x1032_5476,
        0,
        1,
        1000,
        2,
        2,
        0,
        0,
        0x98ba_dcfe,
        0x0102_0304,
        0x0506_0708,
    ];
    let little: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let big: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    // It needs room before it for what it says the member holds.
    let mut large = little.clone();
    large[32..36].copy_from_slice(&u32::try_from((SIZE - 65_536) / 1024).unwrap().to_le_bytes());
    assert_eq!(nothing(&[(SIZE - 65_536, &large)]), Some(Content::MdMember));
    large[32] += 1;
    assert_eq!(nothing(&[(SIZE - 65_536, &large)]), None);
    for bytes in [little, big] {
        let found = find(disk(&[(SIZE - 65_536, &bytes)]));
        assert_eq!(names(&found), (Content::MdMember, UUID_TEXT, None));
    }
}

/// A container hides what lies in it: the mirror's filesystem is not this volume's own.
#[test]
fn a_raid_member_is_no_filesystem() {
    let mut mirror = disk(&[(SIZE - 8192, &md1(SIZE - 8192))]);
    put_ext2(&mut mirror, 0, 1000, 7);
    let found = find(mirror);
    assert_eq!((found.content, found.also), (Content::MdMember, vec![]));
    // But it may be made over what was a member once.
    let mut spoilt = md1(SIZE - 8192);
    spoilt[80] ^= 1;
    let mut volume = disk(&[(SIZE - 8192, &spoilt)]);
    put_ext2(&mut volume, 0, 1000, 7);
    let found = find(volume);
    assert_eq!((found.content, found.also), (Content::Ext2, vec![Content::MdMember]));
}

#[test]
fn encrypted_and_verified() {
    let text = b"6c0a2f6e-5f0e-4d52-8d8b-2f7a4a3c1b9d";
    let uuid = Some("6c0a2f6e-5f0e-4d52-8d8b-2f7a4a3c1b9d");
    let one = find(disk(&[(0, b"LUKS\xba\xbe\0\x01"), (168, text)]));
    assert_eq!(names(&one), (Content::Luks1, uuid, None));
    let two = find(disk(&[(0, b"LUKS\xba\xbe\0\x02"), (168, text), (24, b"secret")]));
    assert_eq!(names(&two), (Content::Luks2, uuid, Some("secret")));
    assert_eq!(nothing(&[(0, b"LUKS\xba\xbe\0\x03")]), None);
    assert_eq!(nothing(&[(0, b"LUKS\xba\xbe\0\x02"), (263, &[1])]), None, "a header from elsewhere");
    assert_eq!(nothing(&[(0, b"verity\0\0\x02")]), None);
    assert_eq!(nothing(&[(0, b"integrt\0\0")]), None);
    let tree = find(disk(&[(0, b"verity\0\0\x01"), (16, &UUID)]));
    assert_eq!(names(&tree), (Content::VerityHash, UUID_TEXT, None));
    assert_eq!(find(disk(&[(0, b"integrt\0\x04")])).content, Content::Integrity);
    let go: [(u64, &[u8]); 3] = [(0, b"\xeb\x58\x90MSWIN4.1"), (440, &[0, 0x10]), (4096, b"-FVE-FS-")];
    assert_eq!(find(disk(&go)).content, Content::Bitlocker);
    assert!(probe(&mut disk(&go[..2]), 0, SIZE).unwrap().is_none());
}

#[test]
fn pools() {
    let magic = b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef";
    let bcachefs: [(u64, &[u8]); 6] = [
        (4096 + 24, magic),
        (4096 + 56, &UUID),
        (4096 + 72, b"pool"),
        (4096 + 104, &[8]),
        (4096 + 120, &[8, 0, 1, 2]),
        (4096 + 144, &[2]),
    ];
    let found = find(disk(&bcachefs));
    assert_eq!(names(&found), (Content::Bcachefs, UUID_TEXT, Some("pool")));
    assert_eq!((found.state, found.needs_other_device, found.block_size), (FsState::Clean, true, Some(4096)));
    let mut dirty = bcachefs;
    dirty[5].1 = &[1];
    dirty[4].1 = &[8, 0, 0, 1];
    let found = find(disk(&dirty));
    assert_eq!((found.state, found.needs_other_device), (FsState::NeedsRecovery, false));
    for senseless in [&[8, 0, 1, 1], &[8, 0, 0, 0]] {
        dirty[4].1 = senseless;
        assert_eq!(nothing(&dirty), None);
    }
    let magic = b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81";
    let bcache = find(disk(&[(4096 + 8, &[8]), (4096 + 24, magic), (4096 + 40, &UUID)]));
    assert_eq!(names(&bcache), (Content::Bcache, UUID_TEXT, None));

    let mut stratis = [0; 512];
    stratis[4..20].copy_from_slice(b"!Stra0tis\x86\xff\x02^\x41rh");
    stratis[64..96].copy_from_slice(b"1032547698badcfe0102030405060708");
    let crc = !crc32c(!0, &stratis[4..]);
    stratis[..4].copy_from_slice(&crc.to_le_bytes());
    for at in [512, 4608] {
        assert_eq!(names(&find(disk(&[(at, &stratis)]))), (Content::StratisMember, UUID_TEXT, None));
    }
}

fn pair(name: &str, value: &[u8]) -> Vec<u8> {
    let word = |number: usize| u32::try_from(number).unwrap().to_be_bytes();
    let mut name_bytes = name.as_bytes().to_vec();
    name_bytes.resize(name.len().next_multiple_of(4), 0);
    let size = 12 + name_bytes.len() + value.len();
    [&word(size)[..], &word(size), &word(name.len()), &name_bytes, value].concat()
}

#[test]
fn zfs_pools() {
    let list = [
        &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..],
        &pair("version", &[0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x13, 0x88]),
        &pair("name", b"\0\0\0\x09\0\0\0\x01\0\0\0\x05rpool\0\0\0"),
        &pair("pool_guid", &[0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0]),
    ]
    .concat();
    for label in [0, 256 << 10, SIZE - (512 << 10), SIZE - (256 << 10)] {
        let found = find(disk(&[(label + (16 << 10), &list)]));
        assert_eq!(names(&found), (Content::ZfsMember, Some("256"), Some("rpool")));
    }
    // Another encoding, another byte order, a disk that is too small, sizes that lead nowhere.
    for at in [0, 1] {
        let mut other = list.clone();
        other[at] = 2;
        assert_eq!(nothing(&[(16 << 10, &other)]), None);
    }
    let mut small = disk(&[(16 << 10, &list)]);
    assert!(probe(&mut small, 0, 64 << 20).unwrap().is_some());
    assert!(probe(&mut small, 0, (64 << 20) - 1).unwrap().is_none());
    let mut forged = list;
    forged[12..16].copy_from_slice(&[0xff; 4]);
    assert!(probe(&mut disk(&[(16 << 10, &forged)]), 0, SIZE).unwrap().is_none());
}

#[test]
fn hibernated_systems() {
    let header: [(u64, &[u8]); 3] = [(1024, &[1, 0, 0, 0, 99]), (1036, &UUID), (1052, b"swap0")];
    for page in [4096, 8192, 16_384, 65_536_u64] {
        for (magic, hibernated) in [
            (&b"SWAPSPACE2"[..], false),
            (b"S1SUSPEND\0", true),
            (b"ULSUSPEND\0", true),
            (b"LINHIB0001", true),
        ] {
            let mut disk = disk(&header);
            disk.put(page - 10, magic);
            let found = find(disk);
            assert_eq!(names(&found), (Content::Swap, UUID_TEXT, Some("swap0")));
            assert_eq!((found.hibernated, found.total_bytes), (hibernated, Some(100 * page)));
        }
    }
    let mut small = disk(&header);
    small.put(4086, b"SWAPSPACE2");
    assert!(probe(&mut small, 0, 40_960).unwrap().is_some());
    assert!(probe(&mut small, 0, 40_959).unwrap().is_none());
    assert_eq!(nothing(&[(4086, b"SWAPSPACE2"), (1024, &[2, 0, 0, 0, 99])]), None, "another version");
    assert_eq!(nothing(&[(4086, b"SWAPSPACE2"), (1024, &[1, 0, 0, 0, 0])]), None, "no pages");
    let mut tux = disk(&header);
    tux.put(4086, b"SWAPSPACE2").put(0, b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c");
    assert!(find(tux).hibernated);
    let mut big_endian = disk(&[(1024, &[0, 0, 0, 1, 0, 0, 0, 99])]);
    big_endian.put(4086, b"SWAPSPACE2");
    assert_eq!(find(big_endian).total_bytes, Some(100 * 4096));
}

#[test]
fn sound_superblocks_come_first() {
    let mut both = disk(&[(1024, &[1, 0, 0, 0, 99]), (4086, b"SWAPSPACE2")]);
    // The fields of the two overlap: an ext2 magic in the swap header's second KiB.
    both.put(1024 + 56, &[0x53, 0xef, 1]);
    let found = find(both.clone());
    assert_eq!((found.content, &found.also[..]), (Content::Swap, &[Content::Ext2][..]));
    both.put(0, b"hsqs").put(28, &[4]);
    assert_eq!(find(both.clone()).also, [Content::Ext2, Content::Squashfs]);
    // ext4 with a checksum that is wrong goes behind.
    let mut damaged = disk(&[(0, b"hsqs"), (28, &[4])]);
    put_ext2(&mut damaged, 0, 100, 1);
    damaged.put(1024 + 100, &[0, 4]);
    let found = find(damaged);
    assert_eq!(
        (found.content, &found.also[..], found.damaged),
        (Content::Squashfs, &[Content::Ext4][..], false)
    );
}

#[test]
fn probing_stays_inside_the_volume() {
    let mut disk = Disk::new(SIZE);
    put_ext2(&mut disk, 1 << 20, 100, 1);
    assert!(probe(&mut disk, 1 << 20, 4096).unwrap().is_some());
    assert!(probe(&mut disk, 1 << 20, 2047).unwrap().is_none());
    assert!(probe(&mut disk, SIZE, 4096).unwrap().is_none());
    assert!(probe(&mut disk, u64::MAX, u64::MAX).unwrap().is_none());
}

/// A magic, so that the code behind it is reached, and where it stands.
fn magic() -> impl Strategy<Value = (u64, &'static [u8])> {
    prop::sample::select(vec![
        (1024 + 56, &b"\x53\xef"[..]),
        (0, b"XFSB"),
        (64 << 10 | 64, b"_BHRfS_M"),
        (0x1fe, b"\x55\xaa"),
        (0x52, b"FAT32   "),
        (0x36, b"FAT16   "),
        (3, b"NTFS    "),
        (0, b"\xeb\x76\x90EXFAT   "),
        (0, b"\xeb\x58\x90-FVE-FS-"),
        (4086, b"SWAPSPACE2"),
        (4096 + 24, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"),
        (0, b"LABELONE"),
        (24, b"LVM2 001"),
        (4096, b"\xfc\x4e\x2b\xa9\x01\0\0\0"),
        (16 << 10, b"\x01\x01\0\0"),
        (1024, b"\x10\x20\xf5\xf2"),
        (1024, b"\xe2\xe1\xf5\xe0"),
        (1024 + 6, b"\x34\x34"),
        (32 << 10, b"JFS1"),
        (32 << 10, b"\x01CD001"),
        (34 << 10, b"\0NSR02"),
        (64 << 10 | 52, b"ReIsEr2Fs"),
        (0, b"LUKS\xba\xbe\0\x02"),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn forged_superblocks_are_survived(
        magics in prop::collection::vec(magic(), 1..4),
        start in prop::sample::select(vec![0_u64, 512, 1024, 4096, 16 << 10, 32 << 10, 64 << 10]),
        seed in any::<u64>(),
        len in 0_usize..600,
        bytes in prop_oneof![Just(SIZE), 0..70_000_u64, Just(u64::MAX)],
    ) {
        let mut disk = Disk::new(bytes);
        disk.put(start, &noise(seed, len));
        for (at, magic) in magics {
            disk.put(at, magic);
        }
        let found = probe(&mut disk, 0, bytes).unwrap();
        prop_assert!(disk.largest <= 256 << 10, "a buffer of {} bytes", disk.largest);
        prop_assert!(disk.read <= 8 << 20, "{} bytes were read", disk.read);
        if let Some(found) = found {
            prop_assert!(found.label.is_none_or(|label| label.chars().count() <= 512));
        }
    }
}
