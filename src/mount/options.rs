//! Which filesystems are mounted and how: an allow-list with the type forced, never probed by the kernel.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use sys_mount::MountFlags;

use super::place::Place;
use super::wanted;
use crate::disk::Content;

/// Whether a filesystem is only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read-only, without replaying a journal: not a byte of the disk changes.
    Look,
    /// Writable.
    Change,
}

/// How to mount one kind of filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// The kernel's name of the type.
    pub fs_type: &'static str,
    /// Flags of mount(2).
    pub flags: MountFlags,
    /// Options of the filesystem.
    pub data: String,
}

/// The options for a kind of filesystem; None when guestseal does not mount it.
pub fn options(content: Content, access: Access, place: Option<&Place>) -> Option<MountOptions> {
    let look = access == Access::Look;
    let (fs_type, mut data) = match content {
        // ext4's driver mounts all three and is the one that every kernel has.
        Content::Ext2 | Content::Ext3 | Content::Ext4 => {
            ("ext4", vec![if look { "noload" } else { "errors=remount-ro" }])
        }
        // nouuid: the host may itself run on a clone of this guest.
        Content::Xfs => ("xfs", if look { vec!["nouuid", "norecovery"] } else { vec!["nouuid"] }),
        Content::Btrfs => ("btrfs", if look { vec!["rescue=nologreplay"] } else { vec![] }),
        Content::Vfat => ("vfat", vec!["umask=0077"]),
        _ => return None,
    };
    let subvolume = place.filter(|_| content == Content::Btrfs).and_then(Place::subvolume_option);
    data.extend(subvolume.as_deref());
    let mut data: Vec<String> = data.into_iter().map(str::to_owned).collect();
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    if let Some(place) = place {
        wanted::apply(&place.options, &mut flags, &mut data);
    }
    if look {
        flags |= MountFlags::RDONLY;
    }
    Some(MountOptions { fs_type, flags, data: data.join(",") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_never_replays_and_never_writes() {
        for (content, option) in
            [(Content::Ext4, "noload"), (Content::Xfs, "norecovery"), (Content::Btrfs, "nologreplay")]
        {
            let look = options(content, Access::Look, None).unwrap();
            assert!(look.flags.contains(MountFlags::RDONLY) && look.data.contains(option), "{look:?}");
            assert!(!options(content, Access::Change, None).unwrap().data.contains(option));
        }
    }

    #[test]
    fn every_mount_is_harmless_to_the_host_and_unknown_types_are_refused() {
        let all = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        assert!(options(Content::Xfs, Access::Change, None).unwrap().flags.contains(all));
        assert_eq!(options(Content::Ntfs, Access::Look, None), None);
    }
}
