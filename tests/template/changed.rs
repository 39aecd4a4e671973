//! Templates that were started, written to, or replaced: it is seen before a clone is made or broken.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::Rig;
use crate::common::{ready, run, tool};
use crate::guests::guest;

fn unlock(image: &Path) {
    run("chattr", [Path::new("-i"), image]);
    tool("chmod", [Path::new("u+w"), image]);
}

#[test]
fn a_template_that_was_mounted_is_refused_and_breaks_its_clones() {
    if !ready() {
        return;
    }
    let rig = Rig::with("alpine");
    let image = rig.of("t", "t.qcow2");
    rig.run("clone", &["t", "./a"]).expect(0);
    // Unlocked, it is the same: its digest says so.
    unlock(&image);
    let list = rig.run("template list", &[]).expect(0).stdout;
    assert!(list.contains("touched since"), "{list}");
    rig.run("clone", &["t", "./b"]).expect(0);
    rig.run("verify", &["./a.qcow2"]).expect(0);
    let touched = rig.run("template verify --json", &["--look-in", "./", "t"]).expect(0).result();
    assert_eq!((&touched["untouched"], &touched["thin-clones"]), (&false.into(), &2.into()));
    // A machine runs on it.
    let touch = ["--in-place", "--enable", "customize-steps", "--touch", "/etc/was-here", "--erase", "none"];
    let record = fs::read_to_string(rig.of("t", "t.qcow2.seal.json")).unwrap();
    rig.run("verify", &[image.to_str().unwrap()]).expect(0);
    run(crate::common::GUESTSEAL, touch.iter().map(Path::new).chain([image.as_path()])).expect(0);
    fs::write(rig.of("t", "t.qcow2.seal.json"), &record).unwrap();

    rig.run("clone", &["t", "./c"]).expect(5).says(&["was changed after it was sealed", "--force"]);
    assert!(!rig.at("c.qcow2").exists());
    rig.run("verify", &["./a.qcow2"]).expect(5).says(&["is broken", "do not start it"]);
    let verdict = rig.run("template verify --json", &["--look-in", "./", "t"]).expect(5).result();
    assert_eq!(verdict["broken-clones"].as_array().unwrap().len(), 2, "{verdict:#}");
    rig.run("clone --force", &["t", "./c"]).expect(0).says(&["cloned all the same"]);
    rig.run("template delete", &["--look-in", "./", "t"]).expect(3).says(&["3 thin clones"]);
    // The filesystem knows when it was mounted; records have whole seconds.
    let at = record.find("\"finished\": \"20").unwrap() + 13;
    let earlier = format!("{}2020{}", &record[..at], &record[at + 4..]);
    fs::write(rig.of("t", "t.qcow2.seal.json"), earlier).unwrap();
    let verdict = rig.run("verify --json", &[image.to_str().unwrap()]).expect(5).result();
    let mounted = verdict["mounted"][0].as_str().unwrap_or_default();
    assert!(mounted.contains("was mounted at"), "{verdict:#}");
}

#[test]
fn a_template_that_took_the_place_of_another_is_not_that_of_its_clones() {
    if !ready() {
        return;
    }
    let rig = Rig::with("alpine");
    rig.run("clone", &["t", "./a"]).expect(0);
    rig.run("template delete --force", &["t"]).expect(0);
    rig.run("template create", &["t", guest("alpine").image.to_str().unwrap()]).expect(0);
    rig.run("verify", &["./a.qcow2"]).expect(5).says(&["not the template that it was made of"]);
    let verdict = rig.run("template verify --json", &["--look-in", "./", "t"]).expect(5).result();
    assert_eq!((&verdict["sealed"], verdict["broken-clones"].as_array().unwrap().len()), (&true.into(), 1));
}

#[test]
fn an_image_is_cloned_by_its_path_when_it_is_sealed() {
    if !ready() {
        return;
    }
    let rig = Rig::new();
    let image = rig.at("a.raw");
    tool("cp", [Path::new("--sparse=always"), &guest("alpine").image, &image]);
    rig.run("clone", &["./a.raw", "./b"]).expect(5).says(&["it has no record"]);
    rig.run("clone --force", &["./a.raw", "./b"]).expect(0);
    run(crate::common::GUESTSEAL, [Path::new("seal"), &image]).expect(0);
    rig.run("clone", &["./a.raw", "./c"]).expect(0);
    rig.run("verify", &["./c.qcow2"]).expect(0);
    OpenOptions::new().write(true).open(&image).unwrap().write_all_at(b"x", 200 << 20).unwrap();
    rig.run("clone", &["./a.raw", "./d"]).expect(5);
    rig.run("verify", &["./c.qcow2"]).expect(5);
    rig.run("clone --define", &["nothing", "./e"]).expect(2).says(&["there is no template"]);
    rig.run("clone --define", &["./a.raw", "./e", "--force"]).expect(2).says(&["no definition of a machine"]);
}
