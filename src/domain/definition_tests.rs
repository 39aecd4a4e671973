use proptest::prelude::*;

use super::super::disks::{Chosen, Place, choose};
use super::*;
use crate::error::ErrorKind;
use crate::image::format::Format;

const UUID: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

/// A definition with these devices.
fn domain(devices: &str) -> String {
    format!(
        "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n<name>web</name>\n\
         <uuid>{UUID}</uuid>\n<metadata><x:disk xmlns:x='urn:x'><source file='/etc/shadow'/></x:disk></metadata>\n\
         <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{devices}</devices>\n\
         <qemu:commandline><qemu:arg value='-snapshot'/></qemu:commandline></domain>\n"
    )
}

fn disks(devices: &str) -> Vec<Disk> {
    parse(&domain(devices)).unwrap().disks
}

/// The only disk, and the error or note that comes of it.
fn judged(devices: &str) -> Result<(Vec<Chosen>, Vec<String>)> {
    choose(&parse(&domain(devices)).unwrap())
}

const FILE: &str = "<disk type='file' device='disk'><driver name='qemu' type='qcow2' discard='unmap'/>\
    <source file='/srv/a &amp; b.qcow2' startupPolicy='optional'/><target dev='vda' bus='virtio'/><boot order='1'/></disk>";
const BLOCK: &str = "<disk type='block' device='lun'><driver name='qemu' type='raw'/><source dev='/dev/vg/web'/>\
    <target dev='sda' bus='scsi'/></disk>";
const VOLUME: &str = "<disk type='volume' device='disk'><driver name='qemu' type='raw'/>\
    <source pool='default' volume='web.img'/><target dev='vdb' bus='virtio'/></disk>";
const CHAIN: &str = "<disk type='file'><driver name='qemu' type='qcow2'/><source file='/srv/top.qcow2'/>\
    <backingStore type='file'><format type='raw'/><source file='/srv/base.img'/><backingStore/></backingStore>\
    <mirror type='file'><source file='/srv/mirror.qcow2'/></mirror><target dev='vda'/></disk>";

#[test]
fn ordinary_disks_in_libvirts_order() {
    let found = parse(&domain(&[FILE, VOLUME, BLOCK].concat())).unwrap();
    assert_eq!((found.name.as_str(), found.uuid.as_str()), ("web", UUID));
    let (chosen, notes) = choose(&found).unwrap();
    let path = |path: &str| Place::Path(path.into());
    let volume = Place::Volume { pool: "default".into(), volume: "web.img".into() };
    let wanted = [
        ("vda", Format::Qcow2, path("/srv/a & b.qcow2")),
        ("vdb", Format::Raw, volume),
        ("sda", Format::Raw, path("/dev/vg/web")),
    ];
    let chosen: Vec<_> =
        chosen.iter().map(|disk| (disk.target.as_str(), disk.format, disk.place.clone())).collect();
    assert_eq!(chosen, wanted);
    assert!(notes.is_empty());
}

#[test]
fn what_is_below_or_beside_a_disk_is_not_its_source() {
    assert_eq!(disks(CHAIN)[0].source, Source::File("/srv/top.qcow2".into()));
    // Of another namespace, and not in <devices>.
    let foreign =
        FILE.replace("<source ", "<x:source xmlns:x='urn:x' file='/x'/><source x:file='/y' xmlns:x='urn:x' ");
    assert_eq!(disks(&foreign), disks(FILE));
    assert!(parse(&domain("").replace("</name>", &format!("</name>{FILE}"))).unwrap().disks.is_empty());
}

#[test]
fn disks_that_are_not_the_guests_own_are_left_alone_with_a_note() {
    for (from, to, note) in [
        ("device='disk'", "device='cdrom'", "CD"),
        ("device='disk'", "device='floppy'", "floppy"),
        ("<target ", "<readonly/><target ", "only read"),
        ("<target ", "<shareable/><target ", "shared"),
        ("bus='virtio'/>", "bus='usb' removable='on'/>", "removable"),
    ] {
        let other = FILE.replace(from, to);
        let (chosen, notes) = judged(&[&other, BLOCK].concat()).unwrap();
        assert_eq!(chosen.len(), 1);
        assert_eq!(chosen[0].target, "sda");
        assert!(notes.len() == 1 && notes[0].contains(note), "{notes:?}");
        // Alone it leaves nothing to seal, and says why.
        let error = judged(&other).unwrap_err();
        assert!(error.chain().contains("no disk") && error.what_to_do().unwrap().contains(note), "{error:?}");
    }
    let empty = "<disk type='file' device='cdrom'><target dev='sda'/><readonly/></disk>";
    assert_eq!(judged(&[empty, FILE].concat()).unwrap().0.len(), 1);
    assert!(judged("").unwrap_err().chain().contains("web has no disk"));
}

#[test]
fn disks_that_cannot_be_worked_on_are_refused_by_name() {
    for (disk, words) in [
        (FILE.replace("<target ", "<encryption format='luks'/><target "), "vda of the domain is encrypted"),
        (
            FILE.replace(
                "optional'/>",
                "optional'><encryption format='luks'><secret/></encryption></source>",
            ),
            "encrypted",
        ),
        (FILE.replace("<target ", "<transient/><target "), "transient"),
        (
            FILE.replace("optional'/>", "optional'><slices><slice type='storage'/></slices></source>"),
            "slices",
        ),
        (FILE.replace("type='qcow2'", "type='qed'"), "the format qed"),
        (FILE.replace("/srv/", "srv/"), "not absolute"),
        (
            "<disk type='network'><source protocol='rbd' name='pool/web'><host name='h'/></source></disk>"
                .into(),
            "(rbd)",
        ),
        ("<disk type='nvme'><source type='pci' namespace='1'><address/></source></disk>".into(), "type nvme"),
        ("<disk type='vhostuser'><source type='unix' path='/run/s'/></disk>".into(), "type vhostuser"),
        ("<disk type='dir'><source dir='/srv'/></disk>".into(), "type dir"),
        ("<disk type='file'><target dev='vda'/></disk>".into(), "has no source"),
    ] {
        let error = judged(&disk).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{disk}");
        assert!(error.chain().contains(words), "{error:?}");
        assert!(error.what_to_do().is_some(), "{error:?}");
    }
    // Left alone whatever it is.
    let cd = "<disk type='network' device='cdrom'><source protocol='https' name='x'/><readonly/></disk>";
    assert_eq!(judged(&[cd, FILE].concat()).unwrap().0.len(), 1);
}

#[test]
fn a_format_that_is_not_said_is_raw_to_the_guest() {
    let (chosen, _) = judged(&FILE.replace("type='qcow2'", "")).unwrap();
    assert_eq!(chosen[0].format, Format::Raw);
}

#[test]
fn what_contradicts_itself_is_refused() {
    let good = domain(FILE);
    parse(&good).unwrap();
    for (from, to) in [
        ("<name>web</name>", ""),
        ("<name>web</name>", "<name>web</name><name>db</name>"),
        ("<name>web</name>", "<name> </name>"),
        (UUID, "x"),
        (UUID, "6695eb01-f6a4-8304-79aa-97f2502e193f'; reboot"),
        ("<target ", "<source file='/other'/><target "),
        ("<target ", "<driver type='raw'/><target "),
        ("</devices>", "</devices><devices/>"),
        ("</domain>", ""),
        ("<domain ", "<!DOCTYPE d [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><domain "),
        ("/srv/a &amp;", "/srv/&e;"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        assert_eq!(parse(&bad).unwrap_err().kind(), ErrorKind::Unsupported, "{bad}");
    }
    assert!(parse("<network/>").is_err() && parse("").is_err());
}

#[test]
fn hostile_depth_and_size_end_in_an_error_or_in_time() {
    let deep = 400_000;
    let nested = ["<a>".repeat(deep), "</a>".repeat(deep)].concat();
    assert!(parse(&domain(&nested)).is_err());
    assert!(parse(&"<domain>".repeat(deep)).is_err());
    assert!(parse(&domain(&"<disk/>".repeat(deep))).is_err());
    let laughs = "<!DOCTYPE d [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]><domain>&b;</domain>";
    assert!(parse(laughs).is_err());
}

proptest! {
    #[test]
    fn names_and_paths_come_back_as_they_were(name in "[^\\s<&>\\p{C}][^<&>\\p{C}]{0,20}", path in "/[^<&>'\\p{C}]{1,40}") {
        let text = domain(&FILE.replace("/srv/a &amp; b.qcow2", &path)).replace("web", &name);
        let found = parse(&text).unwrap();
        prop_assert_eq!(&found.name, &name);
        prop_assert_eq!(&found.disks[0].source, &Source::File(path.into()));
    }

    #[test]
    fn no_damage_makes_it_panic(at in 0usize..1200, with in "\\PC{0,8}") {
        let mut text = domain(&[FILE, CHAIN, VOLUME].concat());
        if let Some((at, _)) = text.char_indices().nth(at) {
            text.insert_str(at, &with);
        }
        if let Ok(found) = parse(&text) {
            prop_assert!(is_uuid(&found.uuid) && !found.name.trim().is_empty());
            let _ = choose(&found);
        }
    }
}
