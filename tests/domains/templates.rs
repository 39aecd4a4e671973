//! Templates of domains, and the domains of their clones.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use crate::common::{GUESTSEAL, Ran, run};
use crate::rig::{Daemon, Disks, NAME, UUID, virsh};
use crate::{kernel_with_daemon, ready_with_daemon};

const CARD: &str =
    "<interface type='user'><mac address='52:54:00:12:34:56'/><model type='virtio'/></interface>";

/// A store beside the disks; what is immutable in it would stay.
struct Store<'a>(&'a Disks);

impl Store<'_> {
    #[track_caller]
    fn run(&self, words: &str) -> Ran {
        let (store, images) = (self.0.path("store"), self.0.path("images"));
        let words = words.split_whitespace().map(|word| match word.strip_prefix("./") {
            Some(name) => images.join(name),
            None => word.into(),
        });
        run(GUESTSEAL, words.chain(["--store".into(), store]))
    }

    fn images(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path("images")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Store<'_> {
    fn drop(&mut self) {
        run("chattr", [Path::new("-R"), Path::new("-i"), &self.0.path("store")]);
    }
}

#[test]
fn clones_of_a_domain_are_domains_of_their_own() {
    if !ready_with_daemon() {
        return;
    }
    let disks = Disks::new();
    let daemon = Daemon::start();
    let uri = daemon.test();
    let store = Store(&disks);
    std::fs::create_dir(disks.path("images")).unwrap();
    daemon.define(&uri, NAME, &format!("{}{CARD}", disks.both()));
    let before = disks.print();
    store.run(&format!("template create t -c {uri} -d {NAME}")).expect(0);
    assert_eq!((&disks.print().0, &disks.print().1), (&before.0, &before.1), "its disks were written");
    let xml = std::fs::read_to_string(disks.path("store/t/t.xml")).unwrap();
    assert!(!xml.contains(UUID) && !xml.contains("52:54:00:12:34:56"), "{xml}");

    let cloned = store.run(&format!("clone t ./c%d --count 2 --define -c {uri} --json")).expect(0);
    let cloned: Value = serde_json::from_str(&cloned.stdout).unwrap();
    for (number, name) in ["c1", "c2"].iter().enumerate() {
        let of = &cloned["images"][number]["domain"];
        assert_eq!(virsh(&uri, &["domuuid", name]), of["uuid"].as_str().unwrap());
        assert_eq!(virsh(&uri, &["domstate", name]), "shut off");
        let xml = virsh(&uri, &["dumpxml", name]);
        let own = [format!("images/{name}.qcow2"), format!("images/{name}-1.qcow2")];
        assert!(own.iter().all(|path| xml.contains(path.as_str())), "{xml}");
        assert!(xml.contains(of["macs"][0].as_str().unwrap()) && !xml.contains("52:54:00:12:34:56"), "{xml}");
    }
    assert_ne!(cloned["images"][0]["domain"]["uuid"], cloned["images"][1]["domain"]["uuid"]);
    store.run(&format!("clone t ./d --define --start -c {uri}")).expect(0);
    assert_eq!(virsh(&uri, &["domstate", "d"]), "running");
    let images = store.images();
    store.run(&format!("clone t ./{NAME} --define -c {uri}")).expect(2).says(&["there is a domain"]);
    assert_eq!(store.images(), images);
    // They are found by their disks, and by nothing else.
    store.run(&format!("template delete t -c {uri}")).expect(3).says(&["6 thin clones"]);
    std::fs::set_permissions(disks.path("store/t/t.xml"), PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(disks.path("store/t/t.xml"), format!("{xml}\n")).unwrap();
    store.run(&format!("clone t ./e --define -c {uri}")).expect(5).says(&["t.xml was changed"]);
    store.run("clone t ./e").expect(0);
}

#[test]
fn a_domain_that_cannot_be_started_leaves_nothing() {
    if !ready_with_daemon() {
        return;
    }
    let disks = Disks::new();
    let daemon = Daemon::start();
    let uri = daemon.qemu();
    let store = Store(&disks);
    std::fs::create_dir(disks.path("images")).unwrap();
    daemon.define(&uri, NAME, &disks.root());
    store.run(&format!("template create t -c {uri} -d {NAME} --enable machine-id")).expect(0);
    // The clone is its owner's, and the daemon another user's.
    store.run(&format!("clone t ./c --define --start -c {uri}")).expect(1).says(&["nothing of it is kept"]);
    assert!(store.images().is_empty());
    assert_eq!(virsh(&uri, &["list", "--all", "--name"]), NAME);
}

#[test]
fn all_disks_of_a_guest_that_goes_on_become_a_template() {
    let Some(kernel) = kernel_with_daemon() else { return };
    let disks = Disks::new();
    let daemon = Daemon::start();
    let uri = daemon.qemu();
    let store = Store(&disks);
    std::fs::set_permissions(disks.path(""), PermissionsExt::from_mode(0o755)).unwrap();
    let both = disks.both().replace("type='block'", "type='file'").replace("source dev", "source file");
    let (own, _cd) = both.rsplit_once("<disk ").unwrap();
    daemon.start_listening(&kernel, own);
    let before = disks.print();
    store.run(&format!("template create t -c {uri} -d {NAME}")).expect(3).says(&["is running"]);
    store.run(&format!("template create t -c {uri} -d {NAME} --no-shutdown")).expect(0);
    assert_eq!(virsh(&uri, &["domstate", NAME]), "running");
    assert_eq!((&disks.print().0, &disks.print().1), (&before.0, &before.1));
    store.run("template verify t").expect(0);
    let record = std::fs::read_to_string(disks.path("store/t/t.qcow2.seal.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["predicate"]["point-in-time"], "crash-consistent");
    assert_eq!(record["predicate"]["input"][1]["name"], "data.img");
    assert_eq!(record["subject"][1]["name"], "t-1.qcow2");
}
