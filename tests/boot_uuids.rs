//! A guest whose filesystems got new UUIDs boots by them. Needs root, qemu and some minutes, so the test is ignored unless
//! asked for: `cargo test --test boot_uuids -- --ignored`.

#![expect(clippy::disallowed_methods, reason = "a test drives the program from outside")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const PASSWORD: &str = "a new Secret!9";
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

#[test]
#[ignore = "boots a guest: minutes"]
fn a_guest_with_new_uuids_boots_by_them() {
    let folder = tempfile::Builder::new().prefix("guestseal-boot-").tempdir_in("/var/tmp").unwrap();
    let made = run(Command::new(format!("{SCRIPTS}/make-guest")).arg("debian12"));
    let original = String::from_utf8(made.stdout).unwrap();
    let original = Path::new(original.trim());
    let image = folder.path().join("template.qcow2");
    fs::copy(original, &image).unwrap();
    for file in ["vmlinuz", "initrd"] {
        fs::copy(original.with_extension(file), image.with_extension(file)).unwrap();
    }
    let secret = folder.path().join("password");
    fs::write(&secret, PASSWORD).unwrap();
    let mut seal = Command::new(env!("CARGO_BIN_EXE_guestseal"));
    seal.args(["seal", "--operations", "defaults,fs-uuids", "--root-password"]);
    run(seal.arg(format!("file:{}", secret.display())).arg(&image));
    run(Command::new(env!("CARGO_BIN_EXE_guestseal")).arg("verify").arg(&image));

    let record = fs::read_to_string(folder.path().join("template.qcow2.seal.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    let operations = record["predicate"]["operations"].as_array().unwrap();
    let uuids = operations.iter().find(|operation| operation["name"] == "fs-uuids").unwrap()["uuids"].clone();
    let pairs = uuids.as_array().unwrap().iter();
    let pairs: Vec<_> =
        pairs.map(|uuid| (uuid["old"].as_str().unwrap(), uuid["new"].as_str().unwrap())).collect();
    assert_eq!(pairs.len(), 2, "root and swap: {uuids:#}");
    // What a boot loader would say.
    let old = fs::read_to_string(original.with_extension("cmdline")).unwrap();
    let new = pairs.iter().fold(old.clone(), |text, (old, new)| text.replace(old, new));
    assert_ne!(old, new);
    fs::write(image.with_extension("cmdline"), new).unwrap();

    let mut boot = Command::new(format!("{SCRIPTS}/boot-guest"));
    boot.args(["--json", "--timeout", "570", "--password", PASSWORD, "--guest"]).arg(&image).arg(&image);
    boot.args([
        "systemctl is-system-running --wait",
        "findmnt -no UUID /; swapon --show=UUID --noheadings",
        "systemctl --failed --no-legend --plain",
    ]);
    let report: Value = serde_json::from_slice(&run(&mut boot).stdout).unwrap();
    let said = report["commands"].as_array().unwrap().iter();
    let said: Vec<_> = said.map(|done| done["output"].as_str().unwrap().trim()).collect();
    assert_eq!((said[0], said[2]), ("running", ""), "{said:#?}");
    for (old, new) in pairs {
        assert!(said[1].contains(new) && !said[1].contains(old), "{said:#?}");
    }
}
