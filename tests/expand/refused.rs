//! What cannot grow is refused before anything is touched.

use crate::disks::volume;
use crate::rig::{GPT, Image, MBR, USUAL, can_run};

#[test]
fn a_partition_with_another_behind_it() {
    if !can_run() {
        return;
    }
    let volumes = [volume(64, "ext4", "/", "UUID"), volume(16, "swap", "-", "-")];
    for (label, name) in [(GPT, "partition 2 (part2) lies behind it"), (MBR, "partition 2 lies behind it")] {
        let image = Image::new(label, &volumes, "qcow2");
        for how in ["", "--dry-run", "--rehearse"] {
            image.refuses(
                &format!("seal {how} --expand +64M"),
                6,
                &["partition 1 cannot grow", name, "--expand-volume"],
            );
        }
        image.refuses("seal --expand +64M --expand-volume /dev/sda2", 6, &["partition 2", "swap"]);
        image.refuses("seal --expand +64M --expand-volume /srv", 2, &["/srv names no volume", "what to do"]);
    }
}

#[test]
fn what_would_shrink_or_is_no_size() {
    if !can_run() {
        return;
    }
    let image = Image::new(GPT, &USUAL, "qcow2");
    let bytes = image.bytes().to_string();
    image.refuses("seal --expand 64M", 2, &["would shrink", &bytes, "67108864"]);
    image.refuses("seal --expand 5X", 2, &["is no size", "+5G"]);
    image.refuses("seal --expand +1G --in-place", 2, &["--in-place"]);
    image.refuses("seal --expand +1G --repair", 2, &["--repair"]);
    image.refuses("seal --expand-volume /", 2, &["--expand"]);
}

#[test]
fn a_format_that_cannot_grow() {
    if !can_run() {
        return;
    }
    for format in ["vmdk", "vdi", "vhdx"] {
        let image = Image::new(GPT, &USUAL, format);
        let says = ["cannot be made longer", format, "--output-format qcow2"];
        image.refuses("seal --expand +64M", 6, &says);
        image.refuses("seal --dry-run --expand +64M", 6, &says);
    }
}

#[test]
fn more_than_an_mbr_can_say() {
    if !can_run() {
        return;
    }
    let image = Image::new(MBR, &[volume(64, "ext4", "/", "UUID")], "qcow2");
    image.refuses("seal --expand 3T", 6, &["an MBR knows 2199023255040 bytes at most", "GPT"]);
}
