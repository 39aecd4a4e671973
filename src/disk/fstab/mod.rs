//! The guest's /etc/fstab as fstab(5) and libmount read it: pure, from bytes. Nothing in it is trusted: mount points
//! are text for whoever resolves them inside the guest, and lines that make no sense are counted, not guessed at.

mod device;
mod source;

use serde::Serialize;

pub use source::Source;

/// A larger file is no fstab; its rest is ignored and reported.
const MAX_BYTES: usize = 1 << 20;
/// Bounds on one line and on all of them.
const MAX_LINE: usize = 16 << 10;
const MAX_ENTRIES: usize = 4096;

/// Filesystems that are in no image: see /proc/filesystems, "nodev".
const MEMORY: [&str; 21] = [
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nfsd",
    "proc",
    "pstore",
    "ramfs",
    "rpc_pipefs",
    "securityfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

/// A whole fstab.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Fstab {
    /// Its entries in the order of the file.
    pub entries: Vec<FstabEntry>,
    /// The numbers, from 1, of lines that hold no entry: too few fields, not UTF-8, or beyond the bounds.
    pub ignored_lines: Vec<usize>,
    /// Whether a line, or all of them, went beyond the bounds: then it is not known what the guest mounts.
    pub beyond_bounds: bool,
}

/// One line of fstab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FstabEntry {
    /// What to mount.
    pub source: Source,
    /// Where: a path in the guest, or `none` or `swap` for what is not mounted.
    pub mount_point: String,
    /// The type of filesystem, `swap`, `auto` or `none`.
    pub fs_type: String,
    /// The mount options in order, with their values.
    pub options: Vec<(String, Option<String>)>,
    /// Whether dump(8) should dump it; 0 when not given.
    pub dump: u32,
    /// In which pass fsck(8) checks it; 0, which is never, when not given.
    pub pass: u32,
    /// The number of its line, from 1.
    pub line: usize,
}

impl FstabEntry {
    /// The value of an option; the last one counts, as in the kernel. The inner none is an option without a value.
    pub fn option(&self, name: &str) -> Option<Option<&str>> {
        self.options.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_deref())
    }

    /// Whether an option is given, with a value or without.
    pub fn has_option(&self, name: &str) -> bool {
        self.option(name).is_some()
    }

    /// The btrfs subvolume by path (`subvol=`), as written.
    pub fn subvolume(&self) -> Option<&str> {
        self.option("subvol").flatten()
    }

    /// The btrfs subvolume by number (`subvolid=`), which may be written in decimal, octal (`0…`) or hexadecimal.
    pub fn subvolume_id(&self) -> Option<u64> {
        let text = self.option("subvolid").flatten()?;
        match (text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")), text.strip_prefix('0')) {
            (Some(hex), _) => u64::from_str_radix(hex, 16).ok(),
            (None, Some(octal)) if !octal.is_empty() => u64::from_str_radix(octal, 8).ok(),
            _ => text.parse().ok(),
        }
    }

    /// Whether it is left alone at boot (`noauto`), and not mounted on access either.
    pub fn is_noauto(&self) -> bool {
        let auto = self.options.iter().rev().find(|(key, _)| key == "auto" || key == "noauto");
        auto.is_some_and(|(key, _)| key == "noauto") && !self.has_option("x-systemd.automount")
    }

    /// Whether the system boots without it (`nofail`).
    pub fn is_nofail(&self) -> bool {
        self.has_option("nofail")
    }

    /// Whether its filesystem is made by the kernel or lives in memory: nothing of it is in an image.
    pub fn is_memory(&self) -> bool {
        MEMORY.contains(&self.fs_type.as_str())
    }

    /// Whether it is swap space.
    pub fn is_swap(&self) -> bool {
        self.fs_type == "swap"
    }

    /// Whether it is another name for a folder (`bind`, `rbind`).
    pub fn is_bind(&self) -> bool {
        self.has_option("bind") || self.has_option("rbind")
    }
}

/// Parses an fstab. Never fails: what cannot be read is in [`Fstab::ignored_lines`].
pub fn parse(text: &[u8]) -> Fstab {
    let mut fstab = Fstab::default();
    let bounded = &text[..text.len().min(MAX_BYTES)];
    for (number, line) in (1..).zip(bounded.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let room = fstab.entries.len() < MAX_ENTRIES && line.len() <= MAX_LINE;
        fstab.beyond_bounds |= !room;
        match parse_line(line, number).filter(|_| room) {
            Some(entry) => fstab.entries.push(entry),
            None => fstab.ignored_lines.push(number),
        }
    }
    if text.len() > MAX_BYTES {
        fstab.beyond_bounds = true;
        fstab.ignored_lines.push(bounded.split(|byte| *byte == b'\n').count());
    }
    fstab
}

fn parse_line(line: &[u8], number: usize) -> Option<FstabEntry> {
    let mut fields = std::str::from_utf8(line).ok()?.split([' ', '\t']).filter(|field| !field.is_empty());
    let source = unescape(fields.next()?)?;
    let mount_point = unescape(fields.next()?)?;
    let fs_type = unescape(fields.next()?)?;
    let options = unescape(fields.next().unwrap_or_default())?;
    let mut numeric = || fields.next().and_then(|field| field.parse().ok()).unwrap_or(0);
    Some(FstabEntry {
        source: Source::parse(&source, &fs_type),
        mount_point,
        fs_type,
        options: parse_options(&options),
        dump: numeric(),
        pass: numeric(),
        line: number,
    })
}

/// Undoes the escapes of getmntent(3): a backslash and three octal digits. None when the result is no text.
fn unescape(field: &str) -> Option<String> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
                Some((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'))
            }
            _ => None,
        };
        match code {
            Some(byte) => {
                out.push(byte);
                rest = &rest[4..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(out).ok().filter(|text| !text.contains('\0'))
}

/// Splits at commas outside double quotes; a value loses the quotes around it.
fn parse_options(text: &str) -> Vec<(String, Option<String>)> {
    let mut quoted = false;
    let parts = text.split(|c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    let pairs = parts.filter(|part| !part.is_empty()).map(|part| match part.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(unquote(value).to_owned())),
        None => (part.to_owned(), None),
    });
    pairs.collect()
}

/// The text between quotes of either kind, or the text itself.
fn unquote(text: &str) -> &str {
    let between = |quote| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    between('"').or_else(|| between('\'')).unwrap_or(text)
}

#[cfg(test)]
mod tests;
