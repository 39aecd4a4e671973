//! Names of block devices below /dev: which disk and partition they mean. Kernel names count disks in the order in
//! which they are found, which in a guest is the order in which they are given.

/// What a path below /dev names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Device {
    /// `/dev/disk/by-uuid/…`
    ByUuid(String),
    /// `/dev/disk/by-label/…`
    ByLabel(String),
    /// `/dev/disk/by-partuuid/…`
    ByPartUuid(String),
    /// `/dev/disk/by-partlabel/…`
    ByPartLabel(String),
    /// A kernel name; `disk` counts from 0.
    Node { disk: usize, partition: Option<u32> },
    /// A name that tells the partition, and the disk only by its serial number or its place in the machine.
    SomeDisk { partition: Option<u32> },
}

/// Links of `/dev/disk/by-id` that name disks; the others (`dm-…`, `md-…`, `lvm-…`) name layers above them.
const DISK_IDS: [&str; 8] = ["ata-", "google-", "mmc-", "nvme-", "scsi-", "usb-", "virtio-", "wwn-"];

/// Disks whose letters count: `/dev/sda`, and `/dev/sda1` for a partition.
const LETTERED: [&str; 4] = ["xvd", "sd", "vd", "hd"];

impl Device {
    /// None for names that this program cannot tell the disk of, such as `/dev/mapper/…` and `/dev/md0`.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let name = path.strip_prefix("/dev/")?;
        match name.strip_prefix("disk/by-").and_then(|rest| rest.split_once('/')) {
            Some(("uuid", value)) => unescape(value).map(Self::ByUuid),
            Some(("label", value)) => unescape(value).map(Self::ByLabel),
            Some(("partuuid", value)) => unescape(value).map(Self::ByPartUuid),
            Some(("partlabel", value)) => unescape(value).map(Self::ByPartLabel),
            Some(("path", value)) => some_disk(value),
            Some(("id", value)) if DISK_IDS.iter().any(|prefix| value.starts_with(prefix)) => {
                some_disk(value)
            }
            Some(_) => None,
            None => lettered(name).or_else(|| numbered(name)),
        }
    }
}

fn some_disk(value: &str) -> Option<Device> {
    let partition = match value.rsplit_once("-part") {
        Some((_, number)) => Some(count(number).filter(|number| *number > 0)?),
        None => None,
    };
    Some(Device::SomeDisk { partition })
}

/// `sda`, `vdb1`, `sdaa3`: letters count like the columns of a spreadsheet.
fn lettered(name: &str) -> Option<Device> {
    let rest = LETTERED.iter().find_map(|prefix| name.strip_prefix(prefix))?;
    let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (letters, number) = rest.split_at(digits);
    if !(1..=3).contains(&letters.len()) || !letters.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return None;
    }
    let disk = letters.bytes().fold(0, |sum, byte| sum * 26 + usize::from(byte - b'a') + 1) - 1;
    Some(Device::Node { disk, partition: partition(number)? })
}

/// `nvme0n1p2`, `mmcblk0p1`: disks are numbered from 0, and a `p` stands before the partition. Of the namespaces of
/// an NVMe controller only the first is taken for a disk.
fn numbered(name: &str) -> Option<Device> {
    let rest = match name.strip_prefix("nvme") {
        Some(rest) => {
            rest.split_once("n1").map(|(controller, rest)| (controller, rest.strip_prefix('p'), rest))
        }
        None => {
            let rest = name.strip_prefix("mmcblk")?;
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (card, rest) = rest.split_at(digits);
            Some((card, rest.strip_prefix('p'), rest))
        }
    };
    let (disk, number, tail) = rest?;
    let disk = usize::try_from(count(disk)?).ok()?;
    match number {
        Some(number) => Some(Device::Node { disk, partition: Some(count(number).filter(|n| *n > 0)?) }),
        None if tail.is_empty() => Some(Device::Node { disk, partition: None }),
        None => None,
    }
}

/// The outer none is a name that makes no sense, the inner one a whole disk.
fn partition(number: &str) -> Option<Option<u32>> {
    match number {
        "" => Some(None),
        _ => count(number).filter(|number| *number > 0).map(Some),
    }
}

/// A decimal number as the kernel writes it: digits only, no zeros in front.
fn count(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Undoes the escapes of udev in the names of links: `\x20` for a byte. None when the result is no text.
fn unescape(name: &str) -> Option<String> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = match rest {
            [b'\\', b'x', high, low, ..] => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match code {
            Some((high, low)) => {
                out.push(high * 16 + low);
                rest = &rest[4..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(out).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(disk: usize, partition: u32) -> Option<Device> {
        Some(Device::Node { disk, partition: Some(partition) })
    }

    #[test]
    fn kernel_names() {
        for (path, expected) in [
            ("/dev/sda1", node(0, 1)),
            ("/dev/vdb12", node(1, 12)),
            ("/dev/xvda2", node(0, 2)),
            ("/dev/hdz5", node(25, 5)),
            ("/dev/sdaa3", node(26, 3)),
            ("/dev/sdab3", node(27, 3)),
            ("/dev/nvme0n1p2", node(0, 2)),
            ("/dev/nvme11n1p2", node(11, 2)),
            ("/dev/mmcblk1p7", node(1, 7)),
            ("/dev/vda", Some(Device::Node { disk: 0, partition: None })),
            ("/dev/nvme3n1", Some(Device::Node { disk: 3, partition: None })),
            ("/dev/mmcblk0", Some(Device::Node { disk: 0, partition: None })),
        ] {
            assert_eq!(Device::parse(path), expected, "{path}");
        }
        for path in [
            "/dev/sd1",
            "/dev/sda0",
            "/dev/sda01",
            "/dev/sdA1",
            "/dev/sda1p1",
            "/dev/nvme0n2p1",
            "/dev/nvme0n1q1",
            "/dev/mmcblk0boot0",
            "/dev/nvme0",
            "/dev/sdaaaa1",
            "/dev/sda99999999999",
            "/dev/mapper/vg-root",
            "/dev/md0",
            "/dev/root",
            "/dev/vg/sda1",
            "/dev/sda+1",
            "/dev/nvme0n12",
        ] {
            assert_eq!(Device::parse(path), None, "{path}");
        }
    }

    #[test]
    fn links_of_udev() {
        let by = |path| Device::parse(path);
        assert_eq!(by("/dev/disk/by-label/my\\x20root"), Some(Device::ByLabel("my root".into())));
        assert_eq!(by("/dev/disk/by-label/\\xc3\\xa4\\x2fb"), Some(Device::ByLabel("ä/b".into())));
        assert_eq!(by("/dev/disk/by-label/a\\xzz\\x2"), Some(Device::ByLabel("a\\xzz\\x2".into())));
        assert_eq!(by("/dev/disk/by-label/\\xff"), None);
        assert_eq!(by("/dev/disk/by-uuid/12AB-34CD"), Some(Device::ByUuid("12AB-34CD".into())));
        assert_eq!(by("/dev/disk/by-partuuid/0a-02"), Some(Device::ByPartUuid("0a-02".into())));
        assert_eq!(
            by("/dev/disk/by-partlabel/EFI\\x20System"),
            Some(Device::ByPartLabel("EFI System".into()))
        );
        let third = Some(Device::SomeDisk { partition: Some(3) });
        assert_eq!(by("/dev/disk/by-id/virtio-root-part-part3"), third);
        assert_eq!(by("/dev/disk/by-path/pci-0000:00:04.0-part3"), third);
        assert_eq!(by("/dev/disk/by-id/ata-X"), Some(Device::SomeDisk { partition: None }));
        for path in
            ["/dev/disk/by-id/dm-name-x", "/dev/disk/by-id/ata-x-party", "/dev/disk/by-foo/x", "/dev/disk/x"]
        {
            assert_eq!(by(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_read_without_panic(name in "\\PC{0,40}") {
            let _ = Device::parse(&format!("/dev/{name}"));
            let _ = Device::parse(&format!("/dev/disk/by-label/{name}"));
        }

        #[test]
        fn letters_count_disks(disk in 0_usize..18_000, number in 1_u32..1000) {
            let mut letters = String::new();
            let mut rest = disk + 1;
            while rest > 0 {
                letters.insert(0, char::from(b'a' + u8::try_from((rest - 1) % 26).unwrap()));
                rest = (rest - 1) / 26;
            }
            prop_assert_eq!(Device::parse(&format!("/dev/sd{letters}{number}")), node(disk, number));
        }
    }
}
