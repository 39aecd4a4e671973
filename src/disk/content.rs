//! What a volume can hold, and what its superblock says.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a superblock says a volume holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it")]
pub enum Content {
    Ext2,
    Ext3,
    Ext4,
    /// A journal that an ext filesystem keeps on a device of its own.
    ExtJournal,
    Xfs,
    Btrfs,
    F2fs,
    Bcachefs,
    Reiserfs,
    Jfs,
    Nilfs2,
    Vfat,
    Exfat,
    Ntfs,
    Iso9660,
    Udf,
    Squashfs,
    Erofs,
    /// Swap space; [`Superblock::hibernated`] tells whether it holds a suspended system.
    Swap,
    /// A physical volume of LVM2.
    LvmPv,
    Luks1,
    Luks2,
    /// A member of a Linux software RAID (md).
    MdMember,
    ZfsMember,
    StratisMember,
    /// A cache or backing device of bcache.
    Bcache,
    Bitlocker,
    /// The hash tree of dm-verity.
    VerityHash,
    /// A device of dm-integrity.
    Integrity,
}

/// What can be done with a [`Content`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContentClass {
    /// Can be mounted.
    Filesystem,
    /// Swap space: nothing in it is meant to last.
    Swap,
    /// Encrypted: nothing can be seen without a key.
    Encrypted,
    /// A part of something larger (volume group, array, pool, cache), or a layer below a filesystem.
    Member,
}

impl Content {
    /// Whether guestseal makes devices of it, in a machine.
    pub fn is_layered(self) -> bool {
        matches!(self, Self::LvmPv | Self::Luks1 | Self::Luks2 | Self::MdMember)
    }

    /// The name that the kernel and `blkid` (as TYPE) have for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::ExtJournal => "jbd",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::F2fs => "f2fs",
            Self::Bcachefs => "bcachefs",
            Self::Reiserfs => "reiserfs",
            Self::Jfs => "jfs",
            Self::Nilfs2 => "nilfs2",
            Self::Vfat => "vfat",
            Self::Exfat => "exfat",
            Self::Ntfs => "ntfs",
            Self::Iso9660 => "iso9660",
            Self::Udf => "udf",
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
            Self::Swap => "swap",
            Self::LvmPv => "LVM2_member",
            Self::Luks1 | Self::Luks2 => "crypto_LUKS",
            Self::MdMember => "linux_raid_member",
            Self::ZfsMember => "zfs_member",
            Self::StratisMember => "stratis",
            Self::Bcache => "bcache",
            Self::Bitlocker => "BitLocker",
            Self::VerityHash => "DM_verity_hash",
            Self::Integrity => "DM_integrity",
        }
    }

    /// What can be done with it.
    pub fn class(self) -> ContentClass {
        match self {
            Self::Swap => ContentClass::Swap,
            Self::Luks1 | Self::Luks2 | Self::Bitlocker => ContentClass::Encrypted,
            Self::LvmPv
            | Self::MdMember
            | Self::ZfsMember
            | Self::StratisMember
            | Self::Bcache
            | Self::VerityHash
            | Self::Integrity
            | Self::ExtJournal => ContentClass::Member,
            _ => ContentClass::Filesystem,
        }
    }

    /// Whether a Linux system can live in it: it keeps owners, modes and links.
    pub fn is_linux_filesystem(self) -> bool {
        self.class() == ContentClass::Filesystem
            && !matches!(self, Self::Vfat | Self::Exfat | Self::Ntfs | Self::Iso9660 | Self::Udf)
    }

    /// Whether the format cannot be written to once it is made.
    pub fn is_read_only(self) -> bool {
        matches!(self, Self::Iso9660 | Self::Squashfs | Self::Erofs)
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// In what state a filesystem was left, as far as its superblock (and the log of XFS) tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FsState {
    /// Unmounted in order.
    Clean,
    /// Its journal or log must be replayed, which the kernel does when it is mounted for writing.
    NeedsRecovery,
    /// It says that it is damaged or was not unmounted and has no journal: it needs fsck.
    Errors,
    /// The format does not say, or this program does not read it.
    #[default]
    Unknown,
}

/// When a filesystem was last mounted for writing, as `struct ext4_super_block` of the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LastMount {
    /// By the clock of whoever mounted it: seconds since 1970 (`s_mtime`).
    pub seconds: i64,
    /// How often it was, since it was checked last (`s_mnt_count`).
    pub count: u16,
}

/// What the superblock of a volume says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Superblock {
    /// What the volume holds.
    pub content: Content,
    /// The identity that `UUID=` in fstab means, in the form and case that `blkid` prints it.
    pub uuid: Option<String>,
    /// The name that `LABEL=` in fstab means. Not read from NTFS, UDF and BitLocker.
    pub label: Option<String>,
    /// Bytes a block, where the superblock says so; bytes a page for swap.
    pub block_size: Option<u32>,
    /// Bytes that the filesystem takes (all its devices together), where the superblock says so.
    pub total_bytes: Option<u64>,
    /// In what state it was left.
    pub state: FsState,
    /// When it was last mounted for writing; only ext says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mounted: Option<LastMount>,
    /// Whether the superblock's own checksum is wrong: the kernel will refuse it.
    pub damaged: bool,
    /// Whether this swap space holds a suspended system (`S1SUSPEND` and its kin).
    pub hibernated: bool,
    /// Whether it cannot be mounted from this volume alone: more btrfs or bcachefs devices, an external journal or
    /// log, a realtime device.
    pub needs_other_device: bool,
    /// What only btrfs has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub btrfs: Option<BtrfsDevice>,
    /// What only ext2, ext3 and ext4 have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ext: Option<ExtFeatures>,
    /// Other superblocks found on the same volume, most often left from earlier use: `blkid` calls this ambivalent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Content>,
    /// Whether one of those others is sound: then it cannot be told which one counts.
    pub ambivalent: bool,
}

impl Superblock {
    /// A superblock about which nothing but its kind is known.
    pub(super) fn new(content: Content) -> Self {
        Self {
            content,
            uuid: None,
            label: None,
            block_size: None,
            total_bytes: None,
            state: FsState::Unknown,
            mounted: None,
            damaged: false,
            hibernated: false,
            needs_other_device: false,
            btrfs: None,
            ext: None,
            also: Vec::new(),
            ambivalent: false,
        }
    }

    /// Marks it as damaged when its checksum is not what it should be.
    pub(super) fn checked(mut self, sound: bool) -> Self {
        if !sound {
            self.damaged = true;
            self.state = FsState::Errors;
        }
        self
    }
}

/// The device of a btrfs filesystem that this volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct BtrfsDevice {
    /// How many devices the filesystem has.
    pub devices: u64,
    /// The number of this one.
    pub device_id: u64,
    /// The identity of this one (`UUID_SUB` of `blkid`).
    pub device_uuid: Option<String>,
}

/// The feature words of an ext filesystem, as in `struct ext4_super_block` of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ExtFeatures {
    /// `s_feature_compat`.
    pub compat: u32,
    /// `s_feature_incompat`.
    pub incompat: u32,
    /// `s_feature_ro_compat`.
    pub ro_compat: u32,
    /// `s_inode_size`, in bytes.
    pub inode_size: u16,
}

impl ExtFeatures {
    /// Whether there is a journal (`has_journal`).
    pub fn has_journal(self) -> bool {
        self.compat & 0x4 != 0
    }

    /// Whether small files live in their inodes (`inline_data`).
    pub fn has_inline_data(self) -> bool {
        self.incompat & 0x8000 != 0
    }

    /// Whether metadata carries checksums (`metadata_csum`).
    pub fn has_metadata_csum(self) -> bool {
        self.ro_compat & 0x400 != 0
    }

    /// Whether folders may hold encrypted files (`encrypt`).
    pub fn has_encrypt(self) -> bool {
        self.incompat & 0x1_0000 != 0
    }
}
