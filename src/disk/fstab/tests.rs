use proptest::prelude::*;

use super::*;
use crate::disk::content::{Content, Superblock};
use crate::disk::{Partition, Volume};

const TEXT: &str = r#"
# /etc/fstab: static file system information.
UUID=0a1b2c3d-0000-4000-8000-112233445566	/	btrfs	subvol=@,compress=zstd:1,subvolid=0x100	0 1
 UUID="9A5B-01FF"  /boot/efi  vfat  umask=0077,shortname=winnt  0  2
LABEL=my\040root / ext4 defaults
PARTUUID=1a2b3c4d-05 none swap sw,pri=5 0 0
PARTLABEL='EFI System' /efi auto noauto,x-systemd.automount,nofail
PARTLABEL=EFI\040System /efi auto noauto,x-systemd.automount,nofail
/dev/vda3 /data\134x xfs noauto,context="system_u:object_r:tmp_t:s0:c1,c2",rw 1 x
server:/export /mnt/n nfs defaults,_netdev 0 0
//srv/share /mnt/c cifs credentials=/root/c 0 0
tmpfs /tmp tmpfs size=1G
/home/a /home/b none bind
/swap.img none swap sw 0 0
ID=virtio-x-part2 /x ext4 auto,noauto,auto
lonely /mnt
"#;

fn entries() -> Vec<FstabEntry> {
    parse(TEXT.as_bytes()).entries
}

#[test]
fn fields_and_lines() {
    let fstab = parse(TEXT.as_bytes());
    let lines: Vec<_> = fstab.entries.iter().map(|entry| entry.line).collect();
    assert_eq!(lines, [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
    assert_eq!(fstab.ignored_lines, [16]);
    let root = &fstab.entries[0];
    assert_eq!(root.source, Source::Uuid("0a1b2c3d-0000-4000-8000-112233445566".into()));
    assert_eq!((&*root.mount_point, &*root.fs_type, root.dump, root.pass), ("/", "btrfs", 0, 1));
    assert_eq!((root.subvolume(), root.subvolume_id()), (Some("@"), Some(256)));
    assert_eq!(root.option("compress"), Some(Some("zstd:1")));
    assert_eq!(fstab.entries[1].source, Source::Uuid("9A5B-01FF".into()));
    assert_eq!(fstab.entries[2].source, Source::Label("my root".into()));
    assert_eq!(fstab.entries[3].source, Source::PartUuid("1a2b3c4d-05".into()));
    assert_eq!(fstab.entries[5].source, Source::PartLabel("EFI System".into()));
    let data = &fstab.entries[6];
    assert_eq!((&*data.mount_point, data.dump, data.pass), ("/data\\x", 1, 0));
    assert_eq!(data.option("context"), Some(Some("system_u:object_r:tmp_t:s0:c1,c2")));
    assert_eq!(data.options.len(), 3);
}

/// Quotes do not keep a field together: fstab(5) wants \040.
#[test]
fn a_space_ends_a_field_even_in_quotes() {
    let broken = &entries()[4];
    assert_eq!((&broken.source, &*broken.mount_point), (&Source::PartLabel("'EFI".into()), "System'"));
}

#[test]
fn kinds_of_sources() {
    let kinds: Vec<_> = entries().into_iter().skip(6).map(|entry| entry.source).collect();
    let expected = [
        Source::Device("/dev/vda3".into()),
        Source::Network("server:/export".into()),
        Source::Network("//srv/share".into()),
        Source::Other("tmpfs".into()),
        Source::Other("/home/a".into()),
        Source::Other("/swap.img".into()),
        Source::Device("/dev/disk/by-id/virtio-x-part2".into()),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(Source::parse("[fe80::1]:/x", "auto"), Source::Network("[fe80::1]:/x".into()));
    assert_eq!(
        Source::parse("/dev/disk/by-path/pci-0:/x", "ext4"),
        Source::Device("/dev/disk/by-path/pci-0:/x".into())
    );
    assert_eq!(Source::parse("uuid=1", "ext4"), Source::Other("uuid=1".into()));
    assert_eq!(Source::Label("x".into()).to_string(), "LABEL=x");
    let json = serde_json::to_value(Source::PartUuid("x".into())).unwrap();
    assert_eq!(json, serde_json::json!({"kind": "part-uuid", "value": "x"}));
}

#[test]
fn flags_among_the_options() {
    let entries = entries();
    let at_boot: Vec<_> = entries.iter().filter(|entry| entry.is_noauto()).map(|entry| entry.line).collect();
    assert_eq!(at_boot, [9], "an automount comes up, and of auto and noauto the last one counts");
    assert!(entries[5].is_nofail() && !entries[0].is_nofail());
    let swap: Vec<_> = entries.iter().filter(|entry| entry.is_swap()).map(|entry| entry.line).collect();
    assert_eq!(swap, [6, 14]);
    assert!(entries[10].is_bind() && !entries[9].is_bind());
    let with =
        |id: &str| parse(format!("a b c subvolid=1,subvolid={id}").as_bytes()).entries[0].subvolume_id();
    assert_eq!([with("0400"), with("0"), with("5"), with("x")], [Some(256), Some(0), Some(5), None]);
}

fn volume(content: Content, uuid: &str, label: &str, number: Option<u32>) -> Volume {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let partition = number.map(|number| Partition {
        number,
        start: 0,
        length: 1,
        type_id: "0x83".to_owned(),
        part_uuid: Some(format!("1a2b3c4d-{number:02x}")),
        part_label: Some("Linux root".to_owned()),
        bootable: false,
    });
    let superblock = Superblock { uuid: text(uuid), label: text(label), ..Superblock::new(content) };
    Volume { disk: 0, on: None, partition, offset: 0, length: 1, superblock: Some(superblock) }
}

fn matches(text: &str, volume: &Volume, disk: usize, disks: usize) -> bool {
    Source::parse(text, "ext4").matches(volume, disk, disks)
}

#[test]
fn volumes_by_their_names() {
    let root = volume(Content::Ext4, "0a1b2c3d-0000-4000-8000-112233445566", "my root", Some(2));
    let efi = volume(Content::Vfat, "9A5B-01FF", "ESP", Some(1));
    for text in [
        "UUID=0a1b2c3d-0000-4000-8000-112233445566",
        "UUID=\"0A1B2C3D-0000-4000-8000-112233445566\"",
        "LABEL=my root",
        "PARTUUID=1A2B3C4D-02",
        "PARTLABEL=Linux root",
        "/dev/disk/by-uuid/0a1b2c3d-0000-4000-8000-112233445566",
        "/dev/disk/by-label/my\\x20root",
        "/dev/disk/by-partuuid/1a2b3c4d-02",
        "/dev/disk/by-partlabel/Linux\\x20root",
    ] {
        assert!(matches(text, &root, 5, 9), "{text}");
        assert_eq!(matches(text, &efi, 5, 9), text.to_lowercase().contains("partlabel"), "{text}");
    }
    for text in ["UUID=9a5b-01ff", "/dev/disk/by-uuid/9A5B-01FF", "LABEL=ESP"] {
        assert!(matches(text, &efi, 0, 1), "{text}");
        assert!(!matches(text, &root, 0, 1), "{text}");
    }
    for text in
        ["UUID=", "LABEL=", "LABEL=esp", "LABEL=MY ROOT", "tmpfs", "/dev/mapper/x", "server:/x", "PARTUUID="]
    {
        assert!(!matches(text, &root, 0, 1) && !matches(text, &efi, 0, 1), "{text}");
    }
}

#[test]
fn volumes_by_their_devices() {
    let second = volume(Content::Ext4, "", "", Some(2));
    let whole = volume(Content::Ext4, "", "", None);
    for text in ["/dev/vdb2", "/dev/sdb2", "/dev/xvdb2", "/dev/nvme1n1p2", "/dev/mmcblk1p2"] {
        assert!(matches(text, &second, 1, 2), "{text}");
        assert!(!matches(text, &second, 0, 2), "{text}: another disk");
        assert!(!matches(text, &whole, 1, 2), "{text}: another partition");
    }
    assert!(matches("/dev/vdb", &whole, 1, 2) && !matches("/dev/vdb", &second, 1, 2));
    for text in
        ["/dev/disk/by-path/pci-0000:00:04.0-part2", "/dev/disk/by-id/virtio-x-part2", "ID=ata-x-part2"]
    {
        assert!(matches(text, &second, 0, 1), "{text}");
        assert!(!matches(text, &second, 0, 2), "{text}: which disk?");
        assert!(!matches(text, &whole, 0, 1), "{text}");
    }
}

/// A volume without a superblock or partition has no names.
#[test]
fn nothing_matches_an_unknown_volume() {
    let unknown = Volume { disk: 0, on: None, partition: None, offset: 0, length: 1, superblock: None };
    for text in ["UUID=", "LABEL=", "PARTUUID=", "PARTLABEL=", "UUID=x", "/dev/disk/by-label/"] {
        assert!(!matches(text, &unknown, 0, 1), "{text}");
    }
}

#[test]
fn bounds() {
    let many = "LABEL=a /a ext4\n".repeat(MAX_ENTRIES + 1);
    let fstab = parse(many.as_bytes());
    assert_eq!((fstab.entries.len(), fstab.ignored_lines), (MAX_ENTRIES, vec![MAX_ENTRIES + 1]));
    let long = format!("LABEL=a /{} ext4\nLABEL=b /b ext4\n", "x".repeat(MAX_LINE));
    let fstab = parse(long.as_bytes());
    assert_eq!((fstab.entries.len(), fstab.ignored_lines), (1, vec![1]));
    let huge = [b"LABEL=a / ext4\n".to_vec(), vec![b'#'; MAX_BYTES]].concat();
    let fstab = parse(&huge);
    assert_eq!((fstab.entries.len(), fstab.ignored_lines), (1, vec![2]));
    let odd = parse(b"LABEL=\xff / ext4\nLABEL=a /\\377 ext4\nLABEL=a /\\000x ext4\nLABEL=a /\\999 ext4\r\n");
    assert_eq!(odd.ignored_lines, [1, 2, 3]);
    assert_eq!((&*odd.entries[0].mount_point, &*odd.entries[0].fs_type), ("/\\999", "ext4"));
}

proptest! {
    #[test]
    fn any_bytes_are_read(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "UUID=", "\n", " ", "\t", "\\", "\\040", "\\777", "\"", ",", "=", "#", "a", "/", "nfs", "ä", "\0",
            ]),
            0..80,
        ),
        odd in any::<u8>(),
    ) {
        let mut text = words.concat().into_bytes();
        text.push(odd);
        let fstab = parse(&text);
        let lines = text.split(|byte| *byte == b'\n').count();
        prop_assert!(fstab.entries.len() + fstab.ignored_lines.len() <= lines);
    }

    #[test]
    fn what_is_escaped_comes_back(path in "/[a-zA-Z \t\\\\\"#,=ä]{0,30}") {
        let escaped = path.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
        let fstab = parse(format!("LABEL=x {escaped} ext4 ro").as_bytes());
        prop_assert_eq!(&fstab.entries[0].mount_point, &path);
    }
}
