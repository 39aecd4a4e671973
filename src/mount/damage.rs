//! Filesystems with errors: how they show, and what people can do about them.

#![forbid(unsafe_code)]

use std::error::Error as StdError;
use std::io;

use nix::errno::Errno;

use crate::disk::Content;
use crate::error::{Error, ErrorKind};

/// What to do about a filesystem of this kind that has errors.
pub fn advice(content: Content) -> String {
    let by_hand = match content {
        Content::Ext2 | Content::Ext3 | Content::Ext4 => "e2fsck -f",
        Content::Xfs => "xfs_repair",
        Content::Btrfs => {
            return "look at it with btrfs check, on a copy; guestseal does not repair btrfs, because btrfs check \
                --repair may make it worse"
                .into();
        }
        _ => return "repair it first, on a copy".into(),
    };
    format!(
        "repair it first with {by_hand}, on a copy; or seal with --repair, which does that on the overlay"
    )
}

/// Why the kernel did not mount a filesystem.
pub fn mount_error(content: Content, error: io::Error) -> Error {
    let what = format!("cannot mount the guest's {content} filesystem");
    let of = |kind| Error::new(kind, what);
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENODEV) => {
            of(ErrorKind::HostLacks).caused_by(error).hint(format!("this host's kernel has no {content}"))
        }
        Some(Errno::ENOENT) => of(ErrorKind::Unsupported)
            .caused_by(error)
            .hint("the subvolume that the guest's fstab names is not there"),
        Some(errno) if is_damage(errno) || errno == Errno::EIO => {
            of(ErrorKind::Unsupported).caused_by(error).hint(advice(content))
        }
        // The options are ours and good: it is the filesystem that the kernel cannot make sense of.
        Some(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EROFS) => of(ErrorKind::Unsupported).caused_by(error).hint(format!(
            "it has features that this host's kernel does not know, or errors: the kernel's log says which (dmesg). \
             If it has errors: {}",
            advice(content)
        )),
        _ => of(ErrorKind::Failed).caused_by(error),
    }
}

/// The same failure, as one of the guest's when a filesystem of it turned out to be damaged while it was read or
/// changed.
pub fn explain(error: Error) -> Error {
    if error.kind() != ErrorKind::Failed || !shows_damage(&error) {
        return error;
    }
    let hint = "check the guest's filesystems, on a copy (ext4: e2fsck -f, xfs: xfs_repair, btrfs: btrfs check); or \
        seal with --repair, which does that on the overlay, but for btrfs";
    Error::unsupported("a filesystem of the guest has errors").caused_by(error).hint(hint)
}

fn shows_damage(error: &Error) -> bool {
    let mut next: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(cause) = next {
        let errno = cause.downcast_ref::<Errno>().copied();
        let io = || cause.downcast_ref::<io::Error>()?.raw_os_error().map(Errno::from_raw);
        if errno.or_else(io).is_some_and(is_damage) {
            return true;
        }
        next = cause.source();
    }
    false
}

/// What ext4, xfs and btrfs answer when their metadata contradict themselves (EFSCORRUPTED) or a checksum is wrong
/// (EFSBADCRC).
fn is_damage(errno: Errno) -> bool {
    matches!(errno, Errno::EUCLEAN | Errno::EBADMSG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Context;

    #[test]
    fn damage_is_seen_through_all_that_was_said_about_it() {
        let cannot_read = |errno: Errno| {
            let read: Result<(), _> = Err(io::Error::from(errno)).context(|| "cannot read /etc/passwd");
            explain(read.unwrap_err().within("the operation x failed"))
        };
        for errno in [Errno::EUCLEAN, Errno::EBADMSG] {
            let error = cannot_read(errno);
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(
                error.chain().contains("/etc/passwd") && error.what_to_do().unwrap().contains("e2fsck -f")
            );
        }
        assert_eq!(cannot_read(Errno::EACCES).kind(), ErrorKind::Failed);
    }

    #[test]
    fn the_kernels_refusals_say_what_to_do() {
        let refused = |content, errno| mount_error(content, io::Error::from(errno));
        for (content, tool) in
            [(Content::Ext3, "e2fsck -f"), (Content::Xfs, "xfs_repair"), (Content::Btrfs, "btrfs check")]
        {
            for errno in [Errno::EUCLEAN, Errno::EBADMSG, Errno::EIO, Errno::EINVAL] {
                let error = refused(content, errno);
                assert_eq!(error.kind(), ErrorKind::Unsupported);
                assert!(error.what_to_do().unwrap().contains(tool), "{error:?}");
            }
            assert_eq!(refused(content, Errno::ENODEV).kind(), ErrorKind::HostLacks);
            assert_eq!(refused(content, Errno::ENOMEM).kind(), ErrorKind::Failed);
        }
    }
}
