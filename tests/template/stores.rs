//! The store: templates come and go whole.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use serde_json::Value;

use crate::common::{GUESTSEAL, command, ready, run, tool};
use crate::guests::guest;
use crate::pair::make_pair;
use crate::{PLACE, Rig, disk_bytes, mode};

#[test]
fn a_template_is_sealed_read_only_and_says_where_seeds_go() {
    if !ready() {
        return;
    }
    let rig = Rig::with("debian12");
    let image = rig.of("t", "t.qcow2");
    assert_eq!((mode(&image), mode(&rig.of("t", "t.qcow2.seal.json"))), (0o444, 0o444));
    let facts = rig.facts("t");
    assert_eq!(facts["disks"][0]["format"], "qcow2");
    if facts["disks"][0]["immutable"] == true {
        assert!(fs::OpenOptions::new().write(true).open(&image).is_err(), "root can write to it");
    }
    let offset = facts["seed"]["offset"].as_u64().expect("a place for seeds");
    assert!(disk_bytes(&image, offset, 512).starts_with(PLACE));

    let listed = rig.run("template list", &[]).expect(0);
    assert!(listed.stdout.contains("t  Debian") && listed.stdout.contains("3.00 GiB"), "{listed:#?}");
    rig.run("template verify", &["t"]).expect(0);
    // A place for seeds is none that operations object to.
    let verdict = rig.run("verify --json", &[image.to_str().unwrap()]).expect(0).result();
    assert_eq!((&verdict["sealed"], &verdict["found"]), (&true.into(), &Value::Array(Vec::new())));

    rig.run("template create", &["t", guest("debian12").image.to_str().unwrap()])
        .expect(2)
        .says(&["already"]);
    rig.run("template delete", &["t"]).expect(0);
    assert_eq!(rig.names(), ["store"]);
    rig.run("template show", &["t"]).expect(2).says(&["there is no template"]);
}

#[test]
fn what_fails_or_is_killed_leaves_no_template() {
    if !ready() {
        return;
    }
    let rig = Rig::new();
    let image = guest("alpine").image;
    let image = image.to_str().unwrap();
    rig.run("template create", &["t", image, "--script", "/bin/false"]).expect(1);
    assert_eq!(rig.names(), ["store"]);
    for refused in ["--output=x", "--in-place", "--dry-run"] {
        rig.run("template create", &["t", image, refused]).expect(2);
    }
    rig.run("template create", &["../t", image]).expect(2);
    let mut killed = command(GUESTSEAL);
    killed.args(["template", "create", "--store"]).arg(rig.at("store")).args(["t", image]);
    let killed = killed.env("GUESTSEAL_FAULT", "output-named=kill").output().unwrap();
    assert_eq!(killed.status.signal(), Some(9));
    assert_eq!(rig.names().len(), 2, "{:?}", rig.names());
    rig.run("template list", &[]).expect(0);
    rig.run("template create", &["t", image, "--enable", "machine-id"]).expect(0);
    assert_eq!(rig.names(), ["store", "t"]);
    assert_eq!(rig.facts("t")["seed"], Value::Null);
}

#[test]
fn a_guest_with_two_disks_is_one_template_and_its_clones_have_two() {
    if !ready() {
        return;
    }
    let rig = Rig::new();
    let [root, home] = make_pair(rig.0.path(), ["qcow2", "raw"]);
    rig.run("template create", &["pair", "-a", root.to_str().unwrap(), "-a", home.to_str().unwrap()])
        .expect(0);
    let names = ["pair.qcow2", "pair-1.qcow2", "pair.qcow2.seal.json"];
    assert!(names.iter().all(|name| rig.of("pair", name).is_file()));
    rig.run("template verify", &["pair"]).expect(0);
    let cloned = rig.run("clone --json", &["pair", "./c"]).expect(0).result();
    assert_eq!(cloned["others"][0], rig.at("c-1.qcow2").to_str().unwrap());
    for (clone, template) in [("c.qcow2", "pair.qcow2"), ("c-1.qcow2", "pair-1.qcow2")] {
        let info = tool("qemu-img", ["info", "--output=json", rig.at(clone).to_str().unwrap()]);
        let info: Value = serde_json::from_str(&info).unwrap();
        assert_eq!(info["full-backing-filename"], rig.of("pair", template).to_str().unwrap());
        run("qemu-img", ["check", "-q", rig.at(clone).to_str().unwrap()]).expect(0);
        rig.run("verify", &[rig.at(clone).to_str().unwrap()]).expect(0);
    }
    // The second name is taken: nothing of the first is left.
    rig.run("clone", &["pair", "./d"]).expect(0);
    fs::remove_file(rig.at("d.qcow2")).unwrap();
    rig.run("clone", &["pair", "./d"]).expect(2).says(&["d-1.qcow2 is there already"]);
    assert!(!rig.at("d.qcow2").exists());
}

#[test]
fn without_room_nothing_is_left_of_a_clone_or_a_template() {
    if !ready() {
        return;
    }
    let rig = Rig::with("alpine");
    let small = rig.at("small");
    // Seen by this shell alone.
    let tried = |words: &str, why: &str| {
        let line = format!(
            "mkdir -p {0}; mount -t tmpfs -o size=256k none {0}; timeout 120 {GUESTSEAL} {words}; echo code $?; ls -A {0}",
            small.display()
        );
        let ran = run("unshare", ["-m", "sh", "-c", &line]).expect(0);
        assert!(ran.stdout.ends_with("code 1\n"), "{ran:#?}");
        ran.says(&[why]);
    };
    let (store, image, small) = (rig.at("store"), guest("alpine").image, small.display());
    tried(&format!("clone --store {} --full t {small}/c", store.display()), "No space left on device");
    tried(&format!("template create --store {small} u {}", image.display()), "no space is left in");
    let nowhere =
        run(GUESTSEAL, ["template", "create", "--store", "/proc/nowhere", "u", image.to_str().unwrap()]);
    nowhere.expect(1).says(&["/proc/nowhere"]);
}
