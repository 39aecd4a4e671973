//! Where the bytes of a device that device-mapper made lie on the devices below it: the tables that `dmsetup table`
//! prints. Only targets that keep bytes as they are, one by one, or encrypt them sector by sector in place.

use crate::disk::Segment;

const SECTOR: u64 = 512;

/// What one line of a table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// First byte of the device.
    start: u64,
    /// Length in bytes.
    length: u64,
    /// The devices below by `MAJOR:MINOR`, with the first byte there; none when bytes do not lie in one place each.
    below: Option<(String, u64)>,
    /// Whether what lies below is encrypted.
    encrypted: bool,
}

/// Understands a table; none when a line is not one.
pub(super) fn parse(text: &str) -> Option<Vec<Line>> {
    text.lines().filter(|line| !line.trim().is_empty()).map(line).collect()
}

fn line(text: &str) -> Option<Line> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let bytes = |word: &str| word.parse::<u64>().ok()?.checked_mul(SECTOR);
    let (start, length) = (bytes(words.first()?)?, bytes(words.get(1)?)?);
    let place = |device: usize, offset: usize| {
        let device = words.get(device).filter(|word| word.contains(':'))?;
        Some(((*device).to_owned(), bytes(words.get(offset)?)?))
    };
    let (below, encrypted) = match *words.get(2)? {
        "linear" => (Some(place(3, 4)?), false),
        // Cipher, key and first number of the initial vectors stand before.
        "crypt" if !text.contains("integrity:") => (Some(place(6, 7)?), true),
        "crypt" => (None, true),
        _ => (None, false),
    };
    start.checked_add(length)?;
    Some(Line { start, length, below, encrypted })
}

/// A device's lines as segments of disks, once for each copy of its bytes; `resolve` gives those of a stretch of a device
/// below. Empty when a part lies in no one place.
pub(super) fn copies(
    lines: &[Line],
    resolve: impl Fn(&str, u64, u64) -> Option<Vec<Vec<Segment>>>,
) -> Vec<Vec<Segment>> {
    let mut all: Option<Vec<Vec<Segment>>> = None;
    for line in lines {
        let below = line.below.as_ref().and_then(|(device, offset)| resolve(device, *offset, line.length));
        let Some(mut parts) = below else { return Vec::new() };
        for part in parts.iter_mut().flatten() {
            part.start = part.start.saturating_add(line.start);
            part.encrypted |= line.encrypted;
        }
        match &mut all {
            None => all = Some(parts),
            Some(all) if all.len() == parts.len() => {
                all.iter_mut().zip(parts).for_each(|(all, part)| all.extend(part));
            }
            Some(_) => return Vec::new(),
        }
    }
    all.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tables_of_lvm_and_cryptsetup() {
        let text = "0 2048 linear 254:2 4096\n2048 1024 linear 254:3 2048\n";
        let lines = parse(text).unwrap();
        assert_eq!(lines[1].below, Some(("254:3".into(), 2048 * 512)));
        let found = copies(&lines, |device, start, length| {
            let disk = usize::from(device == "254:3");
            Some(vec![vec![Segment { start: 0, length, disk, offset: start + 7, encrypted: false }]])
        });
        let wanted = [(0, 2048 * 512, 0, 4096 * 512 + 7), (2048 * 512, 1024 * 512, 1, 2048 * 512 + 7)];
        let found: Vec<_> = found[0].iter().map(|s| (s.start, s.length, s.disk, s.offset)).collect();
        assert_eq!(found, wanted);
        let crypt =
            parse("0 100 crypt aes-xts-plain64 :64:logon:cryptsetup:x 0 254:2 32768 1 allow_discards")
                .unwrap();
        assert_eq!((crypt[0].below.clone(), crypt[0].encrypted), (Some(("254:2".into(), 32768 * 512)), true));
        let striped = parse("0 100 striped 2 128 254:2 2048 254:3 2048").unwrap();
        assert_eq!(striped[0].below, None);
        assert_eq!(copies(&striped, |_, _, _| None), Vec::<Vec<Segment>>::new());
        let odd =
            parse("0 100 crypt capi:authenc(hmac(sha256),xts(aes))-random : 0 254:2 0 1 integrity:28:aead");
        assert_eq!(odd.unwrap()[0].below, None);
    }

    proptest! {
        #[test]
        fn any_text_is_understood_or_not(text in "([0-9]{1,20} ){0,3}(linear|crypt|x)?( [0-9:a-z]{1,21}){0,7}") {
            for line in parse(&text).unwrap_or_default() {
                prop_assert!(line.start.checked_add(line.length).is_some());
            }
        }
    }
}
