//! Looking into an image without guestseal: qemu-img makes it raw, and the kernel mounts it where nobody else sees it.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use crate::common::{run, tool};

/// Works in a mount namespace of its own.
pub(crate) fn in_private_mounts<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether a guest is only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Look,
    Write,
}

/// Mounts the guest of a raw image as its inspection says, and works in it.
pub(crate) fn with_guest<T: Send>(
    raw: &Path,
    inspection: &Value,
    access: Access,
    work: impl FnOnce(&Path) -> T + Send,
) -> T {
    in_private_mounts(|| {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let layout = &inspection["layout"];
        for place in std::iter::once(&layout["root"]).chain(layout["others"].as_array().unwrap()) {
            let volume = &inspection["storage"]["volumes"]
                [usize::try_from(place["volume"].as_u64().unwrap()).unwrap()];
            let point = place["point"].as_str().unwrap().trim_start_matches('/');
            tool(
                "mount",
                [
                    "-t".into(),
                    place["content"].as_str().unwrap().into(),
                    "-o".into(),
                    options(place, volume, access).into(),
                    raw.to_path_buf(),
                    folder.path().join(point),
                ],
            );
        }
        let result = work(folder.path());
        // A program that another test starts just now has our open files until it is executed.
        let unmount = "until umount -R \"$0\" 2>/dev/null; do sleep 0.02; done";
        tool("timeout", ["10".as_ref(), "sh".as_ref(), "-c".as_ref(), unmount.as_ref(), folder.path()]);
        result
    })
}

fn options(place: &Value, volume: &Value, access: Access) -> String {
    let mut options = format!("loop,offset={},sizelimit={}", volume["offset"], volume["length"]);
    if access == Access::Look {
        options += ",ro";
    }
    if place["content"] == "xfs" {
        options += ",nouuid";
    }
    if let Some(subvolume) = place["subvolume"].as_str() {
        options += &format!(",subvol={subvolume}");
    }
    options
}

/// The image as raw bytes, beside it; a raw image is that already.
pub(crate) fn export(image: &Path, format: &str) -> PathBuf {
    if format == "raw" {
        return image.to_path_buf();
    }
    let raw = image.with_extension("exported");
    let args = ["convert", "-q", "-f", format, "-O", "raw"].map(PathBuf::from);
    tool("qemu-img", args.into_iter().chain([image.to_path_buf(), raw.clone()]));
    raw
}

/// Checks every filesystem of a raw image that the guest mounts, with the checker of its own tools, which must find
/// nothing to do.
pub(crate) fn check_filesystems(raw: &Path, inspection: &Value) {
    for volume in inspection["storage"]["volumes"].as_array().unwrap() {
        let content = volume["superblock"]["content"].as_str().unwrap_or_default();
        let checker: &[&str] = match content {
            "ext2" | "ext3" | "ext4" => &["e2fsck", "-fn"],
            "xfs" => &["xfs_repair", "-n"],
            "btrfs" => &["btrfs", "check", "--readonly"],
            _ => continue,
        };
        let (offset, length) = (volume["offset"].to_string(), volume["length"].to_string());
        let node = tool(
            "losetup",
            [
                Path::new("--show"),
                Path::new("-rfo"),
                Path::new(&offset),
                Path::new("--sizelimit"),
                Path::new(&length),
                raw,
            ],
        );
        let ran = run(checker[0], checker[1..].iter().copied().chain([node.trim()]));
        tool("losetup", ["-d", node.trim()]);
        assert!(ran.code == 0 && !ran.stdout.contains("Fix?"), "{ran:#?}");
    }
}

/// Whether the file is there and holds these bytes.
pub(crate) fn holds(path: &Path, needle: &[u8]) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle))
}
