//! A guest whose filesystems got new UUIDs boots by them.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::{Guest, UP, boot};

/// Seals a guest with new UUIDs and boots it as a boot loader would that knows the new ones only. What the commands print
/// comes back.
pub(crate) fn new_ones_are_booted_by(variant: &str, commands: &[&str]) -> Vec<String> {
    let guest = Guest::sealed(variant, &["--operations", "defaults,fs-uuids"]);
    for file in ["vmlinuz", "initrd"] {
        symlink(guest.original.with_extension(file), guest.image().with_extension(file)).unwrap();
    }
    let record: Value =
        serde_json::from_slice(&fs::read(guest.at("template.qcow2.seal.json")).unwrap()).unwrap();
    let operations = record["predicate"]["operations"].as_array().unwrap();
    let uuids = operations.iter().find(|operation| operation["name"] == "fs-uuids").unwrap()["uuids"].clone();
    let pairs = uuids.as_array().unwrap().iter();
    let pairs: Vec<_> =
        pairs.map(|uuid| (uuid["old"].as_str().unwrap(), uuid["new"].as_str().unwrap())).collect();
    assert_eq!(pairs.len(), 2, "root and swap: {uuids:#}");
    let old = fs::read_to_string(guest.original.with_extension("cmdline")).unwrap();
    let new = pairs.iter().fold(old.clone(), |text, (old, new)| text.replace(old, new));
    assert_ne!(old, new);
    fs::write(guest.image().with_extension("cmdline"), new).unwrap();

    let mine = [UP, "findmnt -no UUID /; swapon --show=UUID --noheadings"];
    let mut said = boot(&guest.image(), &guest.image(), &[], &[&mine, commands].concat());
    assert_eq!(said[0], "running", "{said:#?}");
    for (old, new) in pairs {
        assert!(said[1].contains(new) && !said[1].contains(old), "{said:#?}");
    }
    said.split_off(mine.len())
}
