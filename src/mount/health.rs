//! Whether a mounted filesystem of the guest took all that was written. umount(2) does not tell: what cannot be written
//! then is lost in silence, and a filesystem that finds an error in itself just stops writing.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::unistd::syncfs;

use crate::disk::Content;
use crate::error::{Context, Error, Result};

/// Words among a filesystem's options that say that it writes no more. On newer kernels an ext4 that found an error in
/// itself is not `ro` for everybody to see, but keeps a flag of its own.
const NO_MORE: [&str; 3] = ["ro", "emergency_ro", "shutdown"];

/// Writes the filesystem mounted at `target` out, and sees whether it still writes.
///
/// # Errors
/// When something could not be written (syncfs(2)), now or before, and when it turned read-only.
pub(super) fn write_out(target: &Path, content: Content) -> Result<()> {
    let folder = File::open(target).context(|| format!("cannot open {}", target.display()))?;
    let synced = syncfs(&folder);
    let Some(word) = stopped_writing(&folder)? else {
        return synced.context(|| format!("cannot write out the guest's {content} filesystem"));
    };
    let error =
        Error::failed(format!("the guest's {content} filesystem stopped taking writes half way ({word})"));
    let error = error.hint(format!(
        "it has errors, or its disk has: check it with {}, on a copy; the kernel's log says more",
        check_tool(content)
    ));
    Err(match synced {
        Ok(()) => error,
        Err(errno) => error.caused_by(errno),
    })
}

/// The word by which the kernel says that it writes no more (proc_pid_mountinfo(5)).
fn stopped_writing(folder: &File) -> Result<Option<&'static str>> {
    let failed = || "cannot see how a filesystem of the guest is mounted";
    let info =
        fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", folder.as_raw_fd())).context(failed)?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim);
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").context(failed)?;
    let line = mounts.lines().find(|line| line.split(' ').next() == id);
    let line = line.ok_or_else(|| Error::failed(failed()))?;
    Ok(options(line).find_map(|option| NO_MORE.into_iter().find(|word| *word == option)))
}

/// The options of the mount and those of its filesystem: the sixth field, and the third after the dash.
fn options(line: &str) -> impl Iterator<Item = &str> {
    let mount = line.split(' ').nth(5);
    let filesystem = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').nth(2));
    mount.into_iter().chain(filesystem).flat_map(|options| options.split(','))
}

/// The program that checks such a filesystem.
fn check_tool(content: Content) -> &'static str {
    match content {
        Content::Xfs => "xfs_repair",
        Content::Btrfs => "btrfs check",
        Content::Vfat => "fsck.fat",
        _ => "e2fsck -f",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_that_writes_no_more_says_so() {
        let head = "92 27 7:3 / /run/guestseal/root";
        for (line, expected) in [
            ("rw,nosuid - ext4 /dev/loop3 rw,errors=remount-ro", None),
            ("rw,nosuid - ext4 /dev/loop3 ro,errors=remount-ro", Some("ro")),
            ("rw,nosuid shared:1 - ext4 /dev/loop3 rw,emergency_ro", Some("emergency_ro")),
            ("rw,nosuid - ext4 /dev/loop3 rw,shutdown", Some("shutdown")),
            ("ro,nosuid - xfs /dev/loop3 rw", Some("ro")),
        ] {
            let line = format!("{head} {line}");
            let found = options(&line).find_map(|option| NO_MORE.into_iter().find(|word| *word == option));
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn this_filesystem_takes_writes() {
        let folder = tempfile::tempdir().unwrap();
        write_out(folder.path(), Content::Ext4).unwrap();
    }
}
