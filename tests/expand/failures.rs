//! A run that fails or is killed leaves the image as it was, or one `recover` from the end.

use crate::common::tool;
use crate::rig::{GPT, Image, MIB, USUAL, can_run};

#[test]
fn a_failure_undoes_everything() {
    if !can_run() {
        return;
    }
    for format in ["qcow2", "raw"] {
        let image = Image::new(GPT, &USUAL, format);
        let before = image.print();
        for (fault, code) in [
            ("mounted=fail", Some(1)),
            ("erased=fail", Some(1)),
            ("mounted=kill", None),
            ("proven=kill", None),
        ] {
            let ended = image.faulty(fault, "seal --expand +64M");
            // timeout(1) ends by the signal that ended its child, or says so.
            assert!(ended == code || (code.is_none() && ended == Some(137)), "{fault}: {ended:?}");
            assert_eq!(image.print(), before, "{fault}");
        }
    }
}

#[test]
fn a_kill_in_the_commit_is_recovered() {
    if !can_run() {
        return;
    }
    for format in ["qcow2", "raw"] {
        for fault in
            ["journal-named", "image-written", "container-cleaned", "image-flushed", "journal-marked"]
        {
            let image = Image::new(GPT, &USUAL, format);
            let bytes = image.bytes();
            image.faulty(&format!("{fault}=kill"), "seal --expand +64M --quiet");
            if fault == "journal-named" {
                // As qemu-img leaves it when it is killed just after it made the image longer.
                tool("qemu-img", ["resize", "-q", "-f", format, image.path.to_str().unwrap(), "+64M"]);
            }
            image.guestseal("seal --expand +64M").expect(4).says(&["interrupted", "guestseal recover"]);
            image.guestseal("recover").expect(0);
            assert_eq!(image.bytes(), bytes + 64 * MIB, "{format} {fault}");
            let seen = image.guestseal("inspect --json").expect(0).result();
            image.is_whole(GPT, &seen["inspection"]);
            assert_eq!(image.print().1, [format!("guest.{format}"), format!("guest.{format}.seal.json")]);
        }
    }
}

/// Between the kill and `recover` somebody gave the image a length of their own.
#[test]
fn an_image_with_another_length_is_not_recovered() {
    if !can_run() {
        return;
    }
    let image = Image::new(GPT, &USUAL, "qcow2");
    image.faulty("journal-named=kill", "seal --expand +64M --quiet");
    tool("qemu-img", ["resize", "-q", image.path.to_str().unwrap(), "+32M"]);
    let before = image.print();
    image.guestseal("recover").expect(1).says(&["the header differs", "what to do"]);
    assert_eq!(image.print(), before);
}
