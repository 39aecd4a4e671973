use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::definition::parse;
use super::*;
use crate::error::ErrorKind;
use crate::image::format::Format;

/// As libvirt 9 prints what virt-install 4 defined, while it ran, and some that people add.
const UEFI: &str = include_str!("testdata/q35-uefi.xml");
/// As libvirt's test driver has its own domain.
const TEST: &str = include_str!("testdata/test.xml");
/// A paravirtual guest of Xen on a block device.
const XEN: &str = include_str!("testdata/xen.xml");
const ALL: [&str; 3] = [UEFI, TEST, XEN];
const UUID: &str = "0e7e1f3c-7a4b-4a59-9d6c-2f1d2c3b4a59";

fn disk(target: &str, path: &str, format: Format) -> CloneDisk {
    CloneDisk { target: target.into(), path: path.into(), format }
}

/// A clone with an image for each disk.
fn clone_of(template: &str, name: &str, format: Format) -> CloneOf {
    let own = own_disks(template).unwrap();
    let disks = own.iter().map(|(target, _)| disk(target, &format!("/clones/{target}.img"), format));
    CloneOf {
        name: name.into(),
        uuid: UUID.into(),
        macs: fresh_macs(template, &mut BTreeSet::new()).unwrap(),
        disks: disks.collect(),
        nvram: None,
    }
}

/// The lines of one text that another has not.
fn only_in(one: &str, other: &str) -> Vec<String> {
    let mut left: Vec<&str> = other.lines().collect();
    let mut more = Vec::new();
    for line in one.lines() {
        match left.iter().position(|known| *known == line) {
            Some(place) => drop(left.remove(place)),
            None => more.push(line.trim().to_owned()),
        }
    }
    more
}

#[test]
fn a_template_has_nothing_that_one_machine_alone_can_have() {
    let template = template(UEFI).unwrap();
    let gone = only_in(UEFI, &template);
    let wanted = include_str!("testdata/q35-uefi.gone");
    assert_eq!(gone, wanted.lines().collect::<Vec<_>>());
    let made = only_in(&template, UEFI);
    let wanted = [
        "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>",
        "<genid/>",
        "<nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'/>",
        "<source file='/var/lib/libvirt/images/web.qcow2'/>",
        "<source network='default' bridge='virbr0'/>",
        "<parameters/>",
        "<console type='pty'>",
        "<source mode='bind'/>",
        "<target type='virtio' name='org.qemu.guest_agent.0'/>",
        "<graphics type='spice' autoport='yes' listen='127.0.0.1'>",
        "<graphics type='vnc' autoport='yes' websocket='-1' listen='127.0.0.1'>",
        "<cid auto='yes'/>",
    ];
    let mut made: Vec<_> = made.iter().map(String::as_str).collect();
    made.sort_unstable();
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    assert_eq!(made, wanted);
    assert!(!template.contains("geheim"));
    assert_eq!(nvram(UEFI).unwrap().unwrap().to_str(), Some("/var/lib/libvirt/qemu/nvram/web_VARS.fd"));
    assert_eq!((nvram(&template).unwrap(), nvram(TEST).unwrap()), (None, None));
    let notes = shared(&template).unwrap();
    assert!(
        notes.len() == 3 && notes[0].contains("/run/console.sock") && notes[1].contains("hostdev"),
        "{notes:?}"
    );
    assert!(shared(TEST).unwrap().is_empty());
}

#[test]
fn a_template_of_a_template_is_the_same() {
    for xml in ALL {
        let once = template(xml).unwrap();
        assert_eq!(template(&once).unwrap(), once);
        assert!(parse(&once).is_err(), "it has a UUID");
    }
}

#[test]
fn a_clone_has_its_own_identity_and_disks() {
    for xml in ALL {
        let template = template(xml).unwrap();
        let before = parse(xml).unwrap();
        for format in [Format::Qcow2, Format::Raw] {
            let clone = clone_of(&template, "clone-1", format);
            let text = for_clone(&template, &clone).unwrap();
            let after = parse(&text).unwrap();
            assert_eq!((after.name.as_str(), after.uuid.as_str()), ("clone-1", UUID));
            assert_eq!(after.macs, clone.macs);
            assert!(after.macs.iter().all(|mac| !before.macs.contains(mac)));
            assert_eq!(after.disks.len(), before.disks.len());
            for (old, new) in before.disks.iter().zip(&after.disks) {
                assert_eq!((&old.target, old.traits), (&new.target, new.traits));
                if !is_own(old) {
                    assert_eq!(old, new);
                    continue;
                }
                assert_eq!(new.source, Source::File(format!("/clones/{}.img", old.target).into()));
                assert_eq!((new.format.as_deref(), new.device.as_str()), (Some(format.driver()), "disk"));
            }
            // From the saved definition it is the same.
            assert_eq!(for_clone(xml, &clone).unwrap(), text);
        }
    }
}

#[test]
fn what_a_clone_opens_is_not_the_templates() {
    let template = template(UEFI).unwrap();
    let clone =
        CloneOf { nvram: Some("/clones/a & b_VARS.fd".into()), ..clone_of(&template, "a'b", Format::Qcow2) };
    let text = for_clone(&template, &clone).unwrap();
    assert_eq!(nvram(&text).unwrap(), clone.nvram);
    assert!(
        text.contains("<nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>/clones/a &amp; b_VARS.fd</nvram>")
    );
    assert!(text.contains("<source path='/var/log/vm/a&apos;b-web.log' append='on'/>"), "{text}");
    assert!(!text.contains("web.qcow2") && text.contains("metadata_cache"), "{text}");
    let raw = for_clone(&template, &clone_of(&template, "a", Format::Raw)).unwrap();
    assert!(!raw.contains("metadata_cache"), "{raw}");
    // Nowhere to keep them.
    let clone = CloneOf { nvram: Some("/x".into()), ..clone_of(TEST, "a", Format::Raw) };
    assert!(for_clone(TEST, &clone).unwrap_err().chain().contains("keeps no variables"));
    // Xen's driver for block devices opens no files; its addresses have its own beginning.
    let clone = clone_of(XEN, "a", Format::Qcow2);
    let text = for_clone(XEN, &clone).unwrap();
    assert!(clone.macs[0].starts_with("00:16:3e:"), "{clone:?}");
    assert!(text.contains("<driver type='qcow2' name='qemu'/>") && !text.contains("/dev/vg"), "{text}");
    assert!(clone_of(TEST, "a", Format::Raw).macs[0].starts_with("52:54:00:"));
}

#[test]
fn a_disk_without_driver_or_source_gets_both() {
    for disks in [
        "<disk type='network' device='lun' sgio='unfiltered' rawio='yes'><auth username='u'><secret type='ceph' uuid='x'/></auth>\
                   <source protocol='rbd' name='p/web'><host name='h'/></source><target dev='sda' bus='scsi'/></disk>",
        "<disk><target dev='sda'/></disk>",
        "<disk type='file'>\n  <target dev='sda'/>\n</disk>",
    ] {
        let xml = format!(
            "<domain type='qemu'><name>web</name><devices>{disks}<interface type='user'/><interface type='user'></interface></devices></domain>"
        );
        let clone = clone_of(&xml, "a", Format::Raw);
        let text = for_clone(&xml, &clone).unwrap();
        let found = parse(&text).unwrap();
        assert_eq!(found.disks[0].source, Source::File("/clones/sda.img".into()), "{text}");
        assert_eq!(found.disks[0].format.as_deref(), Some("raw"));
        assert_eq!(found.macs, clone.macs);
        for gone in ["lun", "sgio", "rawio", "auth", "rbd"] {
            assert!(!text.contains(gone), "{gone}: {text}");
        }
    }
}

#[test]
fn what_does_not_fit_the_template_is_refused() {
    let good = clone_of(TEST, "a", Format::Raw);
    let other = |change: &dyn Fn(&mut CloneOf)| {
        let mut clone = good.clone();
        change(&mut clone);
        for_clone(TEST, &clone).unwrap_err()
    };
    for name in ["", " ", "a/b", "..", "a\nb", "a\u{0}b"] {
        assert_eq!(other(&|clone| clone.name = name.into()).kind(), ErrorKind::Usage, "{name:?}");
    }
    assert_eq!(other(&|clone| clone.uuid = "'/><x y='".into()).kind(), ErrorKind::Usage);
    assert_eq!(other(&|clone| clone.disks[0].path = "/a\nb".into()).kind(), ErrorKind::Usage);
    assert!(other(&|clone| clone.disks[0].path = "a".into()).chain().contains("not absolute"));
    assert!(other(&|clone| clone.disks.clear()).chain().contains("no image for the disk vda"));
    assert!(other(&|clone| clone.disks.push(disk("vdz", "/x", Format::Raw))).chain().contains("no disk vdz"));
    assert!(other(&|clone| clone.macs.clear()).chain().contains("1 interfaces, and 0 addresses"));
    assert!(for_clone("<network/>", &good).is_err() && template("").is_err());
}

#[test]
fn addresses_are_not_given_twice() {
    let mut taken = BTreeSet::new();
    let macs: Vec<_> = (0..1000).flat_map(|_| fresh_macs(TEST, &mut taken).unwrap()).collect();
    assert_eq!((macs.len(), taken.len()), (1000, 1000));
}

proptest! {
    #[test]
    fn names_and_paths_come_back_as_they_were(name in "[^/\\p{C}\\s][^/\\p{C}]{0,20}", path in "/[^\\p{C}]{1,40}") {
        prop_assume!(name != "." && name != "..");
        let mut clone = clone_of(UEFI, &name, Format::Qcow2);
        clone.disks[0].path = path.clone().into();
        let found = parse(&for_clone(UEFI, &clone).unwrap()).unwrap();
        prop_assert_eq!(&found.name, &name);
        prop_assert_eq!(&found.disks[0].source, &Source::File(path.into()));
    }

    #[test]
    fn no_damage_makes_it_panic_or_write_what_is_no_xml(at in 0usize..9000, with in "\\PC{0,8}") {
        for xml in ALL {
            let mut text = xml.to_owned();
            if let Some((at, _)) = text.char_indices().nth(at) {
                text.insert_str(at, &with);
            }
            if let Ok(template) = template(&text) {
                prop_assert!(document(&template, NODES).is_ok(), "{}", template);
                if own_disks(&template).is_ok() {
                    let clone = clone_of(&template, "clone", Format::Raw);
                    if let Ok(text) = for_clone(&template, &clone) {
                        prop_assert!(document(&text, NODES).is_ok(), "{}", text);
                    }
                }
            }
        }
    }
}
