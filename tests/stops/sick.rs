//! Guests whose filesystem finds an error in itself half way and takes no more writes: nothing of the run may count.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::common::{ready, tool};
use crate::guests::guest;
use crate::stage::Stage;

/// Runs one line of debugfs on a raw image that is one ext4.
fn debugfs(image: &Path, line: &str) -> String {
    tool("debugfs", ["-w", "-R", line, image.to_str().unwrap()])
}

/// The first block of a file of the guest.
fn block_of(image: &Path, path: &str) -> u64 {
    debugfs(image, &format!("bmap {path} 0")).trim().parse().unwrap()
}

/// The image of a guest, and words that remove just this from it.
fn stage(remove: &str) -> (Stage, String) {
    let stage = Stage::copy(&guest("arch").image);
    let text = format!(
        "name = \"just-this\"\nsummary = \"s\"\nreason = \"r\"\ndefault = false\n[[action]]\n[action.remove]\npaths = [{remove:?}]\nrecursive = true\n"
    );
    std::fs::create_dir(stage.path("operations")).unwrap();
    stage.write("operations/just-this.toml", 0o644, &text);
    let words = format!("seal --operations-dir {} --enable just-this", stage.path("operations").display());
    (stage, words)
}

/// The kernel notices when the file's blocks are freed a second time, after the removal was reported as done.
#[test]
fn an_error_after_the_last_operation() {
    if !ready() {
        return;
    }
    let (stage, words) = stage("/var/log/syslog");
    let block = block_of(&stage.image, "/var/log/syslog");
    debugfs(&stage.image, &format!("freeb {block} 8"));
    let ran = stage.unchanged_by(&words, 1);
    ran.says(&["ext4", "stopped taking writes half way", "what to do", "e2fsck -f"]);
}

/// The kernel notices in the middle of an operation.
#[test]
fn an_error_in_an_operation() {
    if !ready() {
        return;
    }
    let (stage, words) = stage("/var/log/journal");
    let block_size: u64 = 1024;
    let block = block_of(&stage.image, "/var/log/journal");
    let file = File::options().write(true).open(&stage.image).unwrap();
    file.write_all_at(&[0x5a; 1024], block * block_size).unwrap();
    drop(file);
    let ran = stage.unchanged_by(&words, 6);
    ran.says(&[
        "has errors",
        "the operation just-this failed",
        "/var/log/journal",
        "what to do",
        "e2fsck -f",
    ]);
}
