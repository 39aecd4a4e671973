//! Superblocks made by hand, for fields and refusals that no maker of filesystems brings about.

use super::*;

/// Changes one byte after the other and expects each change to make the superblock unknown.
fn every_change_refuses(parts: &[(u64, &[u8])], changes: &[(u64, u8)]) {
    let content = find(disk(parts)).content;
    for (at, byte) in changes {
        let mut spoilt = disk(parts);
        spoilt.put(*at, &[*byte]);
        let found = probe(&mut spoilt, 0, SIZE).unwrap();
        assert_eq!(found.map(|found| found.content), None, "{content} with {byte:#x} at {at}");
    }
}

#[test]
fn fields_of_ext() {
    let mut ext = Disk::new(SIZE);
    put_ext2(&mut ext, 0, 100, 1);
    // Revision 1 with inodes of 256 bytes, a journal on another device, 64bit.
    ext.put(1024 + 76, &[1]).put(1024 + 88, &[0, 1]).put(1024 + 92, &[4]).put(1024 + 228, &[9]);
    ext.put(1024 + 336, &[1]);
    let found = find(ext.clone());
    let features = found.ext.unwrap();
    assert_eq!((features.inode_size, features.has_journal(), features.has_inline_data()), (256, true, false));
    assert_eq!((found.content, found.needs_other_device), (Content::Ext3, true));
    assert_eq!(found.total_bytes, Some(100 * 1024), "the high half counts with 64bit only");
    ext.put(1024 + 96, &[0x80, 0x80, 1]).put(1024 + 224, &[8]);
    let found = find(ext.clone());
    let features = found.ext.unwrap();
    assert_eq!((features.has_inline_data(), features.has_encrypt()), (true, true));
    assert_eq!((found.content, found.needs_other_device), (Content::Ext4, false));
    assert_eq!(found.total_bytes, Some((100 + (1 << 32)) * 1024));
    ext.put(1024 + 24, &[6]);
    assert_eq!(find(ext.clone()).block_size, Some(65_536));
    ext.put(1024 + 24, &[7]);
    assert!(probe(&mut ext, 0, SIZE).unwrap().is_none());
}

/// One device, sector size 4096, and a checksum.
fn btrfs_with(changes: &[(usize, u8)]) -> Disk {
    let mut sb = vec![0; 4096];
    sb[32..48].copy_from_slice(&UUID);
    sb[48..56].copy_from_slice(&(64_u64 << 10).to_le_bytes());
    sb[64..72].copy_from_slice(b"_BHRfS_M");
    sb[112..120].copy_from_slice(&SIZE.to_le_bytes());
    (sb[136], sb[145], sb[201]) = (1, 16, 1);
    sb[299..303].copy_from_slice(b"root");
    for (at, byte) in changes {
        sb[*at] = *byte;
    }
    let crc = !crc32c(!0, &sb[32..]);
    sb[..4].copy_from_slice(&crc.to_le_bytes());
    disk(&[(64 << 10, &sb)])
}

#[test]
fn fields_of_btrfs() {
    let found = find(btrfs_with(&[]));
    assert_eq!(names(&found), (Content::Btrfs, UUID_TEXT, Some("root")));
    assert_eq!((found.state, found.damaged, found.needs_other_device), (FsState::Clean, false, false));
    assert_eq!(find(btrfs_with(&[(96, 1)])).state, FsState::NeedsRecovery);
    assert_eq!(find(btrfs_with(&[(56, 4)])).state, FsState::Errors);
    assert!(find(btrfs_with(&[(136, 2)])).needs_other_device);
    let mut damaged = btrfs_with(&[]);
    damaged.put((64 << 10) + 300, b"x");
    let found = find(damaged.clone());
    assert_eq!((found.damaged, found.state), (true, FsState::Errors));
    damaged.put((64 << 10) + 196, &[1]); // a checksum of a kind that is not computed here
    assert!(!find(damaged).damaged);
    for refused in [(48, 1), (145, 3), (145, 0)] {
        assert!(probe(&mut btrfs_with(&[refused]), 0, SIZE).unwrap().is_none(), "{refused:?}");
    }
}

#[test]
fn refusals_of_xfs() {
    let xfs: [(u64, &[u8]); 8] = [
        (0, b"XFSB\0\0\x10\0"),
        (8, &[0, 0, 0, 0, 0, 0, 0x40, 0]),
        (32, &UUID),
        (84, &[0, 0, 0x10, 0, 0, 0, 0, 4]),
        (100, &[0xb4, 0xa4, 2, 0, 2, 0, 0, 8]),
        (108, b"root"),
        (120, &[12, 9, 9, 3]),
        (127, &[100]),
    ];
    let found = find(disk(&xfs));
    assert_eq!(names(&found), (Content::Xfs, UUID_TEXT, Some("root")));
    assert_eq!((found.needs_other_device, found.total_bytes), (true, Some(SIZE - (16 << 20))));
    let changes = [
        (6, 0x20),
        (102, 4),
        (104, 4),
        (120, 8),
        (121, 10),
        (122, 8),
        (123, 4),
        (127, 101),
        (91, 3),
        (14, 0),
        (13, 1),
    ];
    every_change_refuses(&xfs, &changes);
    // A file system that mkfs did not finish, one with a realtime device, version 5 without a checksum.
    for (at, byte, state, damaged) in
        [(126, 1, FsState::Errors, false), (23, 1, FsState::Unknown, false), (101, 5, FsState::Errors, true)]
    {
        let mut other = disk(&xfs);
        other.put(at, &[byte]);
        let found = find(other);
        assert_eq!((found.state, found.damaged), (state, damaged), "{at}");
    }
}

#[test]
fn refusals_of_fat() {
    // FAT32: 512-byte sectors, 1 sector a cluster, 32 reserved, 2 tables of 1000 sectors, 80 MiB.
    let fat: [(u64, &[u8]); 5] = [
        (11, &[0, 2, 1, 32, 0, 2, 0, 0, 0, 0, 0xf8]),
        (32, &[0, 0x80, 2, 0, 0xe8, 3]),
        (44, &[2, 0, 0, 0, 1, 0]),
        (67, &[0xef, 0xbe, 0xad, 0xde]),
        (510, &[0x55, 0xaa]),
    ];
    let found = find(disk(&fat));
    assert_eq!(names(&found), (Content::Vfat, Some("DEAD-BEEF"), None));
    assert_eq!((found.state, found.total_bytes), (FsState::Clean, Some(SIZE)));
    let changes =
        [(12, 1), (13, 3), (14, 0), (16, 0), (21, 0xf1), (38, 2), (510, 0), (512, 1), (512 + 484, 1)];
    every_change_refuses(&fat, &changes);
    every_change_refuses(&[&fat[..], &[(0x36, b"JFS    ")]].concat(), &[(0x3d, b' ')]);
    for dirty in [1, 2] {
        let mut volume = disk(&fat);
        volume.put(65, &[dirty]);
        assert_eq!(find(volume).state, FsState::Errors);
    }
    // A root folder whose chain of full clusters leads back to itself ends, without a label.
    let mut circle = disk(&fat);
    circle.put(32 * 512 + 8, &[3, 0, 0, 0, 2]);
    for number in 0..32 {
        circle.put((2032 * 512) + number * 32, b"NAME");
    }
    assert_eq!(probe(&mut circle, 0, SIZE).unwrap().unwrap().label, None);
    assert!(circle.read < 1 << 20, "{} bytes were read", circle.read);
    circle.put(2032 * 512 + 31 * 32, b"\x05LABEL     \x08");
    assert_eq!(find(circle).label.as_deref(), Some("\u{fffd}LABEL"));
}

#[test]
fn refusals_of_exfat_and_ntfs() {
    let exfat: [(u64, &[u8]); 6] = [
        (0, b"\xeb\x76\x90EXFAT   "),
        (80, &[24]),
        (88, &[100, 0, 0, 0, 0, 0, 0, 0, 4]),
        (100, &[4, 3, 2, 1]),
        (108, &[9, 3, 1]),
        (510, &[0x55, 0xaa]),
    ];
    let with_label = [&exfat[..], &[((100 + 16) * 512, b"\x83\x02E\0x\0y\0")]].concat();
    let found = find(disk(&with_label));
    assert_eq!(names(&found), (Content::Exfat, Some("0102-0304"), Some("Ex")));
    every_change_refuses(
        &exfat,
        &[(1, 0), (30, 1), (108, 8), (108, 13), (109, 17), (110, 0), (110, 3), (511, 0)],
    );
    for (flags, state) in
        [(0, FsState::Clean), (2, FsState::Errors), (4, FsState::Errors), (8, FsState::Clean)]
    {
        let mut volume = disk(&exfat);
        volume.put(106, &[flags]);
        assert_eq!(find(volume).state, state);
    }
    let ntfs: [(u64, &[u8]); 5] =
        [(3, b"NTFS    "), (11, &[0, 2, 8]), (40, &[0, 0, 1]), (48, &[4]), (4 * 8 * 512, b"FILE")];
    let serial = [&ntfs[..], &[(72, &[8, 7, 6, 5, 4, 3, 2, 1])]].concat();
    assert_eq!(names(&find(disk(&serial))), (Content::Ntfs, Some("0102030405060708"), None));
    let changes = [
        (12, 3),
        (13, 3),
        (13, 239),
        (14, 1),
        (16, 1),
        (17, 1),
        (19, 1),
        (22, 1),
        (32, 1),
        (48, 5),
        (55, 255),
    ];
    every_change_refuses(&ntfs, &changes);
}

#[test]
fn recognition_sequences() {
    let descriptor = |number: u64| (32 << 10) + number * 2048 + 1;
    let udf: [(u64, &[u8]); 3] =
        [(descriptor(0), b"BEA01"), (descriptor(1), b"BOOT2"), (descriptor(2), b"NSR03")];
    assert_eq!(find(disk(&udf)).content, Content::Udf);
    every_change_refuses(&udf, &[(descriptor(0), b'X'), (descriptor(1), b'X'), (descriptor(2), b'X')]);
    // A bridge disc carries ISO 9660 as well, on purpose.
    let date = b"2024010203040506";
    let iso: [(u64, &[u8]); 5] = [
        (descriptor(0), b"CD001"),
        (descriptor(1) - 1, b"\x01CD001"),
        (descriptor(1) + 39, b"CIDATA  "),
        (descriptor(1) + 127, &[0, 8]),
        (descriptor(1) + 829, date),
    ];
    assert_eq!(names(&find(disk(&iso))), (Content::Iso9660, Some("2024-01-02-03-04-05-06"), Some("CIDATA")));
    let bridge = [&iso[..], &[(descriptor(2), b"NSR02")]].concat();
    let found = find(disk(&bridge));
    assert_eq!((found.content, found.also), (Content::Udf, vec![]));
    every_change_refuses(&iso, &[(descriptor(0) - 1, 255), (descriptor(1), b'X'), (descriptor(1) + 128, 7)]);
    // The time of making stands in for that of the last change.
    let created: [(u64, &[u8]); 2] =
        [(descriptor(1) + 829, b"0000000000000000"), (descriptor(1) + 812, date)];
    let found = find(disk(&[&iso[..], &created].concat()));
    assert_eq!(found.uuid.as_deref(), Some("2024-01-02-03-04-05-06"));
}

#[test]
fn old_journalling_filesystems() {
    for at in [8 << 10, 64 << 10] {
        let reiser: [(u64, &[u8]); 4] =
            [(at, &[50]), (at + 12, &[18]), (at + 44, &[0, 16]), (at + 52, b"ReIsErFs")];
        let found = find(disk(&reiser));
        assert_eq!((names(&found), found.total_bytes), ((Content::Reiserfs, None, None), Some(50 * 4096)));
        every_change_refuses(&reiser, &[(at + 45, 1 | 2), (at + 45, 0), (at + 12, 1), (at + 52, b'X')]);
    }
    let jfs: [(u64, &[u8]); 5] = [
        (32 << 10, b"JFS1"),
        ((32 << 10) + 8, &[100]),
        ((32 << 10) + 17, &[16, 0, 0, 12, 0, 3]),
        ((32 << 10) + 25, &[2, 0, 0, 9]),
        ((32 << 10) + 136, &UUID),
    ];
    let found = find(disk(&jfs));
    assert_eq!((names(&found), found.state), ((Content::Jfs, UUID_TEXT, None), FsState::Clean));
    assert_eq!((found.total_bytes, found.block_size), (Some(51_200), Some(4096)));
    let base = 32 << 10;
    every_change_refuses(
        &jfs,
        &[(base + 20, 13), (base + 21, 1), (base + 22, 4), (base + 28, 10), (base + 3, b'2')],
    );
    let mut mounted = disk(&jfs);
    mounted.put(base + 40, &[1]);
    assert_eq!(find(mounted).state, FsState::NeedsRecovery);
}
