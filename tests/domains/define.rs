//! Clones as libvirt itself takes their definitions, and who uses which file.

use std::collections::BTreeSet;
use std::path::PathBuf;

use guestseal::ErrorKind;
use guestseal::domain::definition::{Source, parse};
use guestseal::domain::deploy::{CloneDisk, CloneOf, for_clone, fresh_macs, own_disks, template};
use guestseal::domain::virsh::Libvirt;
use guestseal::image::format::Format;
use guestseal::uuids;

use crate::ready_with_daemon;
use crate::rig::{Daemon, Disks, NAME, state, virsh};

fn libvirt(uri: &str) -> Libvirt {
    Libvirt { uri: Some(uri.to_owned()), ..Libvirt::default() }
}

/// Devices that each machine has its own of.
const OWN: &str = "<interface type='user'><mac address='52:54:00:12:34:56'/><model type='virtio'/></interface>\
    <channel type='unix'><source mode='bind'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
    <graphics type='vnc' port='5907' autoport='no' passwd='geheim'><listen type='address' address='127.0.0.1'/></graphics>\
    <vsock model='virtio'><cid auto='no' address='3'/></vsock>";

/// qemu's driver is asked as well, for it looks closer at a definition; a machine with firmware has an NVRAM that is not there.
#[test]
fn clones_are_defined_as_machines_of_their_own() {
    if !ready_with_daemon() {
        return;
    }
    let disks = Disks::new();
    let daemon = Daemon::start();
    for uri in [daemon.qemu(), daemon.test()] {
        let libvirt = libvirt(&uri);
        let firmware = "</type><loader readonly='yes' type='pflash'>/nowhere/CODE.fd</loader>\
            <nvram template='/nowhere/VARS.fd'>/nowhere/web_VARS.fd</nvram>";
        let file = daemon.xml(&uri, NAME, &format!("{}{OWN}", disks.both()));
        let xml = std::fs::read_to_string(&file).unwrap();
        let qemu = uri.starts_with("qemu");
        libvirt.define(&if qemu { xml.replace("</type>", firmware) } else { xml }).unwrap();
        let saved = libvirt.definition(NAME).unwrap().unwrap();
        assert!(!saved.contains("geheim"), "{saved}");
        let template = template(&saved).unwrap();
        let mut taken: BTreeSet<_> =
            libvirt.definitions().unwrap().into_iter().flat_map(|d| d.macs).collect();
        assert!(taken.contains("52:54:00:12:34:56"), "{taken:?}");
        let mut uuids = Vec::new();
        for number in 0..3 {
            let own = own_disks(&template).unwrap();
            assert_eq!(own.iter().map(|(target, _)| target.as_str()).collect::<Vec<_>>(), ["vda", "vdb"]);
            let image = |(target, _): (String, _)| CloneDisk {
                path: format!("/clones/{number}-{target}.qcow2").into(),
                target,
                format: Format::Qcow2,
            };
            let clone = CloneOf {
                name: format!("web-{number}"),
                uuid: uuids::random().unwrap(),
                macs: fresh_macs(&template, &mut taken).unwrap(),
                disks: own.into_iter().map(image).collect(),
                nvram: None,
            };
            libvirt.define(&for_clone(&template, &clone).unwrap()).unwrap();
            let text = libvirt.definition(&clone.uuid).unwrap().unwrap();
            let defined = parse(&text).unwrap();
            assert_eq!((&defined.name, &defined.macs), (&clone.name, &clone.macs));
            assert_eq!(defined.disks[0].source, Source::File(format!("/clones/{number}-vda.qcow2").into()));
            assert!(defined.disks[2].source == Source::File("/nowhere.iso".into()), "{defined:?}");
            // libvirt chose a file of its own.
            assert_eq!(text.contains(&format!("web-{number}_VARS.fd</nvram>")), qemu, "{text}");
            uuids.push(clone.uuid);
        }
        // Another machine with a name that is taken.
        let again = saved.replace("6695eb01", "6695eb02");
        let error = libvirt.define(&again).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.what_to_do().unwrap().contains("web, web-0, web-1, web-2"), "{error:?}");
        for uuid in &uuids {
            libvirt.undefine(uuid).unwrap();
            assert_eq!(libvirt.definition(uuid).unwrap(), None);
            // One that is gone is not missed.
            libvirt.undefine(uuid).unwrap();
        }
        assert!(libvirt.names().unwrap().iter().all(|name| !name.starts_with("web-")));
        assert!(libvirt.define("<domain type='test'><name>x</name></domain>").is_err());
    }
    libvirt(&daemon.test()).start("6695eb01-f6a4-8304-79aa-97f2502e1931").unwrap();
    assert_eq!(state(&daemon.test()), "running");
}

#[test]
fn who_uses_a_file_is_known_from_domains_and_pools() {
    if !ready_with_daemon() {
        return;
    }
    let disks = Disks::new();
    let daemon = Daemon::start();
    let uri = daemon.test();
    virsh(&uri, &["pool-define-as", "some images", "dir", "--target", disks.path("").to_str().unwrap()]);
    virsh(&uri, &["pool-start", "some images"]);
    virsh(&uri, &["vol-create-as", "some images", "a volume.img", "1M"]);
    let volume = disks.path("a volume.img");
    let by_volume = "<disk type='volume' device='disk'><source pool='some images' volume='a volume.img'/><target dev='vda'/></disk>";
    daemon.define(&uri, NAME, &disks.both());
    daemon.define(&uri, "other", by_volume);
    let libvirt = libvirt(&uri);
    let volumes = libvirt.volumes().unwrap();
    assert!(volumes.contains(&volume), "{volumes:?}");
    let found = libvirt.domain_disks().unwrap();
    let of = |name: &str, path: PathBuf| found.contains(&(name.to_owned(), path));
    let known = [
        of(NAME, disks.root.clone()),
        of(NAME, disks.data.clone()),
        of(NAME, "/nowhere.iso".into()),
        of("other", volume.clone()),
        // The driver's own domain.
        of("test", "/guest/diskimage1".into()),
    ];
    assert!(known.iter().all(|known| *known), "{found:?}");
    // One that runs keeps what it has while it is given others.
    virsh(&uri, &["start", NAME]);
    daemon.define(&uri, NAME, &disks.root());
    let found = libvirt.domain_disks().unwrap();
    assert!(found.contains(&(NAME.to_owned(), disks.data.clone())), "{found:?}");
}
