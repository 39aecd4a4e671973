//! Clones: each whole, each with what is its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{fingerprint, ready, run, tool};
use crate::mounts::{Access, export, with_guest};
use crate::{PLACE, Rig, disk_bytes, mode};

/// Where the guest of a clone reads its seed.
const SEED: &str = "var/lib/systemd/random-seed";

/// The seed and host name in a clone, as its guest has them.
fn own(rig: &Rig, name: &str, format: &str) -> (Vec<u8>, String) {
    let image = rig.at(name);
    let inspection = rig
        .run("inspect --json --allow-backing --enable machine-id", &[image.to_str().unwrap()])
        .expect(0)
        .result();
    with_guest(&export(&image, format), &inspection["inspection"], Access::Look, |root: &Path| {
        let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        assert_eq!(text("etc/machine-id"), "");
        (fs::read(root.join(SEED)).unwrap(), text("etc/hostname"))
    })
}

#[test]
fn thin_clones_differ_from_their_template_by_their_seeds_alone() {
    if !ready() {
        return;
    }
    let rig = Rig::with("debian12");
    let (template, offset) = (rig.of("t", "t.qcow2"), rig.facts("t")["seed"]["offset"].as_u64().unwrap());
    let before = fingerprint(&template);
    let cloned = rig.run("clone --json", &["t", "./a"]).expect(0).result();
    assert_eq!((&cloned["seed"], &cloned["thin"]), (&"placed".into(), &true.into()));
    rig.run("clone --relative", &["t", "./b.qcow2"]).expect(0);
    rig.run("clone --no-random-seed", &["t", "./none"]).expect(0);
    let mut seeds = BTreeSet::new();
    for name in ["a.qcow2", "b.qcow2"] {
        let image = rig.at(name);
        run("qemu-img", ["check", "-q", image.to_str().unwrap()]).expect(0);
        assert_eq!(mode(&image), 0o600);
        let seed = disk_bytes(&image, offset, 512);
        assert!(!seed.starts_with(&PLACE[..20]));
        assert_eq!(own(&rig, name, "qcow2").0, seed);
        seeds.insert(seed);
        rig.run("verify", &[image.to_str().unwrap()]).expect(0);
        assert!(image.metadata().unwrap().len() < 1 << 20);
    }
    assert_eq!(seeds.len(), 2, "two clones start from one seed");
    // But for these bytes nothing differs.
    let none = rig.at("none.qcow2");
    tool("qemu-img", ["compare", "-q", none.to_str().unwrap(), template.to_str().unwrap()]);
    assert!(disk_bytes(&none, offset, 512).starts_with(PLACE));
    let info: Value = serde_json::from_str(&tool(
        "qemu-img",
        ["info", "--output=json", rig.at("b.qcow2").to_str().unwrap()],
    ))
    .unwrap();
    assert_eq!(info["backing-filename"], "store/t/t.qcow2");
    assert_eq!(info["backing-filename-format"], "qcow2");
    assert_eq!(fingerprint(&template), before);
    rig.run("clone", &["t", "./a"]).expect(2).says(&["is there already"]);
}

#[test]
fn many_clones_have_their_own_names_and_full_ones_stand_alone() {
    if !ready() {
        return;
    }
    let rig = Rig::with("debian12");
    let words = ["t", "./n-%02d", "--count", "3", "--first", "9", "--hostname", "node-%02d"];
    rig.run("clone", &words).expect(0);
    let mut seeds = BTreeSet::new();
    for number in ["09", "10", "11"] {
        let (seed, hostname) = own(&rig, &format!("n-{number}.qcow2"), "qcow2");
        assert_eq!((hostname, seed.len()), (format!("node-{number}\n"), 512));
        seeds.insert(seed);
    }
    assert_eq!(seeds.len(), 3);
    // One of the names is taken: none is made.
    rig.run("clone", &["t", "./n-%d", "--count", "3", "--first", "10"]).expect(2);
    assert!(!rig.at("n-12.qcow2").exists());
    rig.run("clone", &["t", "./m", "--count", "2"]).expect(2).says(&["%d"]);
    rig.run("clone", &["t", "./m-%d", "--count", "2", "--hostname", "same"])
        .expect(2)
        .says(&["one host name"]);

    rig.run("clone --full", &["t", "./full", "--hostname", "whole"]).expect(0);
    let raw = rig.run("clone --full --output-format raw --json", &["t", "./full"]).expect(0).result();
    assert_eq!(raw["seed"], "placed");
    rig.run("template delete --force", &["t"]).expect(0);
    tool("qemu-img", ["check", "-q", rig.at("full.qcow2").to_str().unwrap()]);
    let (seed, hostname) = own(&rig, "full.qcow2", "qcow2");
    assert_eq!(hostname, "whole\n");
    assert_ne!(own(&rig, "full.raw", "raw").0, seed);
    // Thin ones know that what they lie over has gone.
    rig.run("verify", &["./n-09.qcow2"]).expect(5).says(&["is not there"]);
}

#[test]
fn clones_may_be_larger_than_their_template() {
    if !ready() {
        return;
    }
    let rig = Rig::with("alpine");
    rig.run("clone --expand 300M", &["t", "./less"]).expect(2).says(&["would shrink"]);
    for (name, words) in [("thin", ""), ("full", "--full"), ("raw", "--full --output-format raw")] {
        let cloned = rig
            .run(&format!("clone --json --expand +512M {words}"), &["t", &format!("./{name}")])
            .expect(0)
            .result();
        let grown = &cloned["expanded"];
        assert_eq!((&grown["from"], &grown["to"]), (&(512 << 20).into(), &(1 << 30).into()), "{cloned:#}");
        assert!(grown["filesystem-bytes-after"].as_u64() > grown["filesystem-bytes-before"].as_u64());
        let info = tool("qemu-img", ["info", "--output=json", cloned["image"].as_str().unwrap()]);
        assert_eq!(serde_json::from_str::<Value>(&info).unwrap()["virtual-size"], 1 << 30);
    }
    rig.run("template verify", &["t"]).expect(0);
}

#[test]
fn where_files_have_checksums_an_operation_gives_the_seed() {
    if !ready() {
        return;
    }
    let rig = Rig::with("debian12-btrfs");
    assert_eq!(rig.facts("t")["seed"], Value::Null);
    let cloned = rig.run("clone --json", &["t", "./a"]).expect(0).result();
    assert_eq!(cloned["seed"], "operation");
    let (seed, _) = own(&rig, "a.qcow2", "qcow2");
    assert!(seed.len() == 512 && !seed.starts_with(&PLACE[..20]));
    rig.run("clone", &["t", "./b", "--script", "/bin/false"]).expect(1);
    assert!(!rig.at("b.qcow2").exists());
}
