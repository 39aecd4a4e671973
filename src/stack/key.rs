//! Keys for encrypted volumes, in virt-sysprep's form: `ID:key:TEXT`, `ID:file:PATH`, `all:…`.

use std::fmt;

use zeroize::Zeroizing;

use crate::disk::fstab::Source;
use crate::disk::{Storage, Volume};
use crate::error::{Error, Result};
use crate::inspect::layout::volume_name;

/// The longest key in bytes; cryptsetup takes keyfiles of up to 8 MiB, and passphrases of 512 bytes.
pub const LONGEST: usize = 8 << 20;
/// What stands for the volume when a key is for all.
const ALL: &str = "all";

/// A passphrase or the content of a key file. It shows itself by its length only, and its memory is wiped.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyBytes(Zeroizing<Vec<u8>>);

impl KeyBytes {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes: for the one who opens the volume, and the one pipe that leads there.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The same as it may be meant, as a file with one line holds a passphrase without the line's end.
    pub fn readings(&self) -> impl Iterator<Item = &[u8]> {
        let line = self.0.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        std::iter::once(self.expose()).chain(line)
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Where a key's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In the selector itself.
    Text(KeyBytes),
    /// In this file of the host.
    File(String),
}

/// What the user gave for one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySelector {
    /// The volume: a UUID, a name below /dev, or `all`.
    pub volume: String,
    /// Its key.
    pub source: KeySource,
}

/// Understands a selector. No error quotes a key.
///
/// # Errors
/// A usage error when it is none.
pub fn parse(selector: &str) -> Result<KeySelector> {
    let form = || {
        Error::usage("--key takes ID:key:PASSPHRASE or ID:file:FILE")
            .hint("ID is the volume's LUKS UUID, its name such as /dev/sda2 or /dev/vg/lv, or `all`")
    };
    let (volume, kind, rest) = ["key", "file", "clevis"]
        .iter()
        .filter_map(|kind| {
            let mark = format!(":{kind}");
            let (volume, rest) = selector.split_once(mark.as_str())?;
            (rest.is_empty() || rest.starts_with(':')).then(|| (volume, *kind, rest.strip_prefix(':')))
        })
        .min_by_key(|(volume, _, _)| volume.len())
        .ok_or_else(form)?;
    if volume.is_empty() {
        return Err(form());
    }
    let source = match (kind, rest) {
        ("key", Some(text)) => KeySource::Text(KeyBytes::new(text.as_bytes().to_vec())),
        ("file", Some(path)) if !path.is_empty() => KeySource::File(path.to_owned()),
        ("clevis", _) => {
            return Err(Error::unsupported("guestseal does not get keys from a Tang server (clevis)")
                .hint("give the volume's passphrase: ID:key:PASSPHRASE or ID:file:FILE"));
        }
        _ => return Err(form()),
    };
    Ok(KeySelector { volume: volume.to_owned(), source })
}

/// A key with the volume that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// As in [`KeySelector::volume`].
    pub volume: String,
    /// The key.
    pub bytes: KeyBytes,
}

impl Key {
    /// One that is tried on every volume.
    pub fn for_all(bytes: KeyBytes) -> Self {
        Self { volume: ALL.to_owned(), bytes }
    }

    /// Whether it is for this volume.
    pub fn fits(&self, storage: &Storage, volume: &Volume) -> bool {
        let uuid = volume.superblock.as_ref().and_then(|superblock| superblock.uuid.as_deref());
        if self.volume == ALL || uuid.is_some_and(|uuid| uuid.eq_ignore_ascii_case(&self.volume)) {
            return true;
        }
        let named =
            storage.find(&Source::parse(&self.volume, "")).and_then(|index| storage.volumes.get(index));
        named.is_some_and(|named| volume_name(named) == volume_name(volume))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn selectors_of_each_form() {
        let text = |volume: &str, key: &str| KeySelector {
            volume: volume.into(),
            source: KeySource::Text(KeyBytes::new(key.as_bytes().to_vec())),
        };
        assert_eq!(parse("all:key:a:b").unwrap(), text("all", "a:b"));
        assert_eq!(parse("/dev/sda2:key:").unwrap(), text("/dev/sda2", ""));
        assert_eq!(parse("x:key::file:y").unwrap(), text("x", ":file:y"));
        let file = parse("1-2:file:/k:key:z").unwrap();
        assert_eq!((file.volume.as_str(), file.source), ("1-2", KeySource::File("/k:key:z".into())));
        for wrong in ["", "all", ":key:x", "all:word:x", "all:file:", "all:key", "all:keyx:y"] {
            assert_eq!(parse(wrong).unwrap_err().kind(), crate::ErrorKind::Usage, "{wrong}");
        }
        assert_eq!(parse("all:clevis").unwrap_err().kind(), crate::ErrorKind::Unsupported);
    }

    #[test]
    fn a_line_is_read_with_and_without_its_end() {
        let readings = |bytes: &[u8]| -> Vec<Vec<u8>> {
            KeyBytes::new(bytes.to_vec()).readings().map(<[u8]>::to_vec).collect()
        };
        assert_eq!(readings(b"a\r\n"), [b"a\r\n".to_vec(), b"a".to_vec()]);
        assert_eq!(readings(b"a\0"), [b"a\0".to_vec()]);
        assert_eq!(format!("{:?}", KeyBytes::new(b"secret".to_vec())), "6 bytes");
    }

    proptest! {
        #[test]
        fn no_error_quotes_a_key(text in "[a-z:/]{0,20}SECRETWORD[a-z:]{0,5}") {
            if let Err(error) = parse(&text) {
                let said = format!("{error:?} {}", error.chain());
                prop_assert!(!said.contains("SECRETWORD"));
            }
        }
    }
}
