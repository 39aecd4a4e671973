//! What `recover` does with journals that are not what they should be: each is refused in so many words, and neither
//! image nor journal is touched.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use guestseal::fault::Point;

use crate::common::{Ran, guestseal, ready, require, tool};
use crate::guest;
use crate::mode::{Commit, Digest, Mode, record_of};
use crate::run::{End, Run};
use crate::stage::Stage;

/// An image with a partition table, whose first MiB no sealing writes.
fn image(format: &str) -> Stage {
    Stage::convert(&guest("alpine"), format, &[])
}

/// The same, whose sealing was killed at this point.
fn killed_at(point: Point, format: &str) -> Stage {
    let stage = image(format);
    let mode = Mode::new("qcow2", "fuse", Commit::Overlay);
    assert_eq!(Run::whole(&mode.seal(&stage.image, Digest::Sha256), Some((point, "kill"))), End::Killed);
    assert!(beside(&stage.image, "journal").exists());
    stage
}

fn beside(image: &Path, what: &str) -> PathBuf {
    let name = image.file_name().unwrap().to_str().unwrap();
    image.with_file_name(format!(".{name}.guestseal-{what}"))
}

/// `recover` refuses, with these words, and changes nothing.
#[track_caller]
fn refused(stage: &Stage, words: &[&str]) -> Ran {
    let journal = fs::read(beside(&stage.image, "journal")).unwrap();
    let ran = stage.unchanged_by("recover", 1);
    ran.says(&["cannot use the journal", "what to do"]);
    ran.says(words);
    assert_eq!(fs::read(beside(&stage.image, "journal")).unwrap(), journal);
    stage.unchanged_by("seal", 4);
    stage.unchanged_by("inspect", 4);
    ran
}

#[test]
fn a_damaged_journal() {
    if !ready() {
        return;
    }
    let stage = killed_at(Point::JournalNamed, "qcow2");
    let journal = beside(&stage.image, "journal");
    let whole = fs::read(&journal).unwrap();
    for (at, word) in
        [(5, "does not begin like one"), (30, "digest differs"), (whole.len() - 9, "digest differs")]
    {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&journal, bytes).unwrap();
        refused(&stage, &[word]);
    }
    for (length, word) in [(0, "no first line"), (40, "no first line"), (whole.len() - 1, "cut off")] {
        fs::write(&journal, &whole[..length]).unwrap();
        refused(&stage, &[word]);
    }
    fs::write(&journal, [&whole, &b"written soon\n"[..]].concat()).unwrap();
    refused(&stage, &["ends in something else"]);
    // A torn last line is what a power failure leaves.
    fs::write(&journal, [&whole, &b"written 17"[..]].concat()).unwrap();
    stage.guestseal("recover").expect(0);
    stage.guestseal("verify").expect(0);
}

#[test]
fn a_journal_of_another_image() {
    if !ready() {
        return;
    }
    for format in ["qcow2", "raw"] {
        let stage = killed_at(Point::JournalNamed, format);
        let other = image(format);
        for what in ["journal", "overlay"] {
            fs::rename(beside(&stage.image, what), beside(&other.image, what)).unwrap();
        }
        refused(&other, &["made for another image: the file differs"]);
        for what in ["journal", "overlay"] {
            fs::rename(beside(&other.image, what), beside(&stage.image, what)).unwrap();
        }
        // The same file with another content: its identity is its header's.
        let kept = stage.path("kept");
        fs::copy(&stage.image, &kept).unwrap();
        let at = if format == "raw" { 520 } else { 31 };
        let image = File::options().write(true).open(&stage.image).unwrap();
        image.write_all_at(&[0x77], at).unwrap();
        refused(&stage, &["made for another image: the header differs"]);
        image.set_len(4096).unwrap();
        refused(&stage, &["made for another image: the length differs"]);
        fs::copy(&kept, &stage.image).unwrap();
        stage.guestseal("recover").expect(0);
        stage.guestseal("verify").expect(0);
    }
}

#[test]
fn a_missing_or_foreign_overlay() {
    if !ready() {
        return;
    }
    let stage = killed_at(Point::ImageWritten, "qcow2");
    let overlay = beside(&stage.image, "overlay");
    let kept = stage.path("kept");
    fs::rename(&overlay, &kept).unwrap();
    refused(&stage, &["the overlay", "is missing"]);
    fs::copy(&kept, &overlay).unwrap();
    refused(&stage, &["another overlay"]);
    fs::remove_file(&overlay).unwrap();
    fs::rename(&kept, &overlay).unwrap();
    let bytes = fs::metadata(&overlay).unwrap().len();
    File::options().write(true).open(&overlay).unwrap().set_len(bytes / 2).unwrap();
    refused(&stage, &["cut off"]);
}

#[test]
fn files_that_somebody_else_put_there() {
    if !ready() || !require(nix::unistd::geteuid().is_root(), "needs root") {
        return;
    }
    let stage = killed_at(Point::JournalNamed, "qcow2");
    let journal = beside(&stage.image, "journal");
    tool("chown", [Path::new("65534"), &journal]);
    refused(&stage, &["not of guestseal's making"]);
    tool("chown", [Path::new("0"), &journal]);
    fs::set_permissions(&journal, PermissionsExt::from_mode(0o666)).unwrap();
    refused(&stage, &["not of guestseal's making"]);
    fs::set_permissions(&journal, PermissionsExt::from_mode(0o600)).unwrap();
    let real = stage.path("real");
    fs::rename(&journal, &real).unwrap();
    std::os::unix::fs::symlink(&real, &journal).unwrap();
    refused(&stage, &["cannot open"]);
}

#[test]
fn an_overlay_in_the_way_that_is_not_ours() {
    if !ready() {
        return;
    }
    let stage = image("qcow2");
    let overlay = beside(&stage.image, "overlay");
    fs::write(&overlay, "a letter").unwrap();
    stage.unchanged_by("seal", 1).says(&["in the way", "what to do"]);
    fs::remove_file(&overlay).unwrap();
    let image = stage.image.to_str().unwrap();
    tool("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image, overlay.to_str().unwrap()]);
    stage.unchanged_by("seal", 1).says(&["in the way", "what to do"]);
    stage.unchanged_by("recover", 1).says(&["in the way"]);
}

/// A guest that was started, or anything else that wrote to the image after the commit, is not recorded as sealed.
#[test]
fn an_image_that_was_written_after_its_commit() {
    if !ready() {
        return;
    }
    let stage = killed_at(Point::JournalMarked, "raw");
    let image = File::options().write(true).open(&stage.image).unwrap();
    image.write_all_at(b"x", 100 << 20).unwrap();
    refused(&stage, &["written by another program after its commit"]);
    assert!(!record_of(&stage.image).exists());
}

#[test]
fn a_folder_that_was_moved() {
    if !ready() {
        return;
    }
    let mut stage = killed_at(Point::ImageWritten, "qcow2");
    let moved = tempfile::tempdir_in("/var/tmp").unwrap();
    let place = moved.path().join("moved");
    fs::rename(stage.folder(), &place).unwrap();
    stage.image = place.join("guest.qcow2");
    let done = stage.guestseal("recover --json").expect(0).result();
    assert_eq!(done["recovered"], true, "{done}");
    assert_eq!(done["record"], record_of(&stage.image).to_str().unwrap(), "{done}");
    stage.guestseal("verify").expect(0);
}

#[test]
fn nothing_to_recover_and_a_busy_image() {
    if !ready() {
        return;
    }
    let stage = image("qcow2");
    let ran = stage.unchanged_by("recover", 0);
    assert!(ran.stdout.contains("nothing to recover"), "{ran:?}");
    let mode = Mode::new("qcow2", "fuse", Commit::Overlay);
    // In the middle of its commit the run is alive: that is no interruption.
    let words = mode.seal(&stage.image, Digest::Sha256);
    let mut run = Run::start(&words, Some((Point::ImageWritten, "stop")));
    run.stops().unwrap();
    for command in ["recover", "seal"] {
        guestseal(command, &[&stage.image]).expect(3).says(&["in use", "what to do"]);
    }
    run.signal(nix::sys::signal::Signal::SIGCONT);
    assert!(run.end().is_good());
    stage.guestseal("verify").expect(0);
}

/// A temporary name that is not a leftover of guestseal stays: it is not known by its name.
#[test]
fn names_alone_remove_nothing() {
    if !ready() {
        return;
    }
    let stage = killed_at(Point::RecordNamed, "qcow2");
    let stranger = stage.write(".guestseal-1234", 0o600, "somebody else's");
    stage.guestseal("recover").expect(0);
    stage.guestseal("seal").expect(0);
    assert_eq!(fs::read_to_string(stranger).unwrap(), "somebody else's");
}
