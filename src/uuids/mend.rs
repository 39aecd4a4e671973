//! Putting new UUIDs in place of old ones in text. Pure. Each way of writing a UUID is as long as before, so that files of
//! fixed size (GRUB's environment block) keep it, and only whole UUIDs count.

#![forbid(unsafe_code)]

use regex::bytes::{Regex, RegexBuilder};

use super::{Form, NewUuid};
use crate::error::{Context, Result};

/// How far back on its line a serial number may stand from the word that says what it is.
const WORD_DISTANCE: usize = 512;

/// Replaces UUIDs in text.
#[derive(Debug)]
pub struct Mender {
    /// None when there is nothing to replace.
    any: Option<Regex>,
    spellings: Vec<Spelling>,
}

/// One way to write one UUID.
#[derive(Debug)]
struct Spelling {
    old: Vec<u8>,
    new: Vec<u8>,
    /// Whether small and capital letters are the same.
    any_case: bool,
    /// Whether letters and digits may follow: another UUID does.
    open_end: bool,
    /// Whether the line must speak of UUIDs: eight digits alone may be anything.
    needs_word: bool,
}

impl Mender {
    /// For these.
    ///
    /// # Errors
    /// When they are too many for one search.
    pub fn new(uuids: &[NewUuid]) -> Result<Self> {
        let mut spellings: Vec<Spelling> = uuids.iter().flat_map(spellings).collect();
        // Of two that begin alike the longer is tried first.
        spellings.sort_by_key(|spelling| std::cmp::Reverse(spelling.old.len()));
        let all: Vec<String> =
            spellings.iter().map(|spelling| regex::escape(&String::from_utf8_lossy(&spelling.old))).collect();
        let any = RegexBuilder::new(&all.join("|"))
            .case_insensitive(true)
            .unicode(false)
            .size_limit(64 << 20)
            .build()
            .context(|| "there are too many UUIDs to look for")?;
        Ok(Self { any: (!spellings.is_empty()).then_some(any), spellings })
    }

    /// The text with new UUIDs; none when it has no old one.
    pub fn mend(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut new: Option<Vec<u8>> = None;
        self.each(text, |at, length, with| {
            new.get_or_insert_with(|| text.to_vec())[at..at + length].copy_from_slice(with);
        });
        new
    }

    /// Whether an old UUID is in these bytes.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        let mut found = false;
        self.each(bytes, |_, _, _| found = true);
        found
    }

    fn each(&self, text: &[u8], mut found: impl FnMut(usize, usize, &[u8])) {
        let Some(any) = &self.any else { return };
        let mut at = 0;
        while let Some(place) = any.find_at(text, at) {
            let matching = |spelling: &&Spelling| spelling.is_at(text, place.start());
            if let Some(spelling) = self.spellings.iter().find(matching) {
                let old = &text[place.start()..place.start() + spelling.old.len()];
                found(place.start(), old.len(), &spelling.new_like(old));
                at = place.start() + old.len();
            } else {
                at = place.start() + 1;
            }
        }
    }
}

impl Spelling {
    fn new(old: impl Into<Vec<u8>>, new: impl Into<Vec<u8>>) -> Self {
        Self { old: old.into(), new: new.into(), any_case: true, open_end: false, needs_word: false }
    }

    fn is_at(&self, text: &[u8], start: usize) -> bool {
        let Some(there) = text.get(start..start + self.old.len()) else { return false };
        let same =
            if self.any_case { there.eq_ignore_ascii_case(&self.old) } else { there == self.old.as_slice() };
        let before = start.checked_sub(1).map(|at| text[at]);
        let after = text.get(start + self.old.len()).copied();
        let ends = |byte: Option<u8>| {
            !byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || (self.needs_word && byte == b'-'))
        };
        // The escape of a hyphen by systemd ends in a letter or digit.
        let escaped = text[..start].ends_with(b"\\x2d");
        same && (escaped || ends(before))
            && (self.open_end || ends(after))
            && (!self.needs_word || speaks_of_uuids(text, start))
    }

    /// Capital where the old one was.
    fn new_like(&self, old: &[u8]) -> Vec<u8> {
        let (small, capital) =
            (old.iter().any(u8::is_ascii_lowercase), old.iter().any(u8::is_ascii_uppercase));
        match (small, capital) {
            _ if !self.any_case || old == self.old => self.new.clone(),
            (true, false) => self.new.to_ascii_lowercase(),
            (false, true) => self.new.to_ascii_uppercase(),
            _ => self.new.clone(),
        }
    }
}

/// Whether the line says `uuid` before this place: `UUID=`, `by-uuid/`, `--fs-uuid`, `search.fs_uuid`.
fn speaks_of_uuids(text: &[u8], start: usize) -> bool {
    let from = start.saturating_sub(WORD_DISTANCE);
    let line = text[from..start].rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    line.windows(4).any(|word| word.eq_ignore_ascii_case(b"uuid"))
}

fn spellings(uuid: &NewUuid) -> Vec<Spelling> {
    let plain = Spelling::new(uuid.old.as_str(), uuid.new.as_str());
    let bare = |text: &str| text.replace('-', "");
    // systemd.unit(5): a hyphen in the name of a unit.
    let escaped = |text: &str| text.replace('-', "\\x2d");
    let escaped = Spelling::new(escaped(&uuid.old), escaped(&uuid.new));
    let without = Spelling::new(bare(&uuid.old), bare(&uuid.new));
    // mdadm.conf(5), rd.md.uuid= of dracut.cmdline(7).
    let numbers = |text: &str| {
        let digits = bare(text);
        [0, 8, 16, 24].map(|at| digits.get(at..at + 8).unwrap_or_default().to_owned()).join(":")
    };
    match uuid.form {
        Form::Plain => vec![plain, escaped],
        Form::Serial => {
            vec![Spelling { needs_word: true, ..plain }, Spelling { needs_word: true, ..escaped }]
        }
        Form::Luks => vec![plain, escaped, without],
        Form::Array => vec![plain, escaped, without, Spelling::new(numbers(&uuid.old), numbers(&uuid.new))],
        Form::PhysicalVolume => {
            let exact = |spelling| Spelling { any_case: false, ..spelling };
            vec![exact(plain), exact(without)]
        }
        Form::VolumeGroup => {
            // /dev/disk/by-id/dm-uuid-LVM-…: the group's, and that of the logical volume right behind it.
            let mapper = |text: &str| format!("LVM-{}", bare(text));
            let open = Spelling::new(mapper(&uuid.old), mapper(&uuid.new));
            let exact = |spelling| Spelling { any_case: false, ..spelling };
            vec![exact(plain), exact(without), Spelling { any_case: false, open_end: true, ..open }]
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uuid(form: Form, old: &str, new: &str) -> NewUuid {
        NewUuid { what: "it".into(), form, old: old.into(), new: new.into() }
    }

    const OLD: &str = "37f19dd4-2351-448f-af69-86ffe014ad28";
    const NEW: &str = "0a1b2c3d-0000-4111-8222-333344445555";
    const VG: (&str, &str) =
        ("AbCdEf-1234-5678-90ab-cdef-GhIj-KlMnOp", "Zzzzzz-1111-2222-3333-4444-5555-YyYyYy");

    fn all() -> Mender {
        Mender::new(&[
            uuid(Form::Plain, OLD, NEW),
            uuid(Form::Serial, "12AB-34CD", "99FE-00DC"),
            uuid(Form::Array, "00112233-4455-6677-8899-aabbccddeeff", "ffeeddcc-bbaa-4988-8766-554433221100"),
            uuid(Form::VolumeGroup, VG.0, VG.1),
        ])
        .unwrap()
    }

    #[track_caller]
    fn becomes(old: &str, new: &str) {
        let mended = all().mend(old.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(mended.as_deref().unwrap_or(old), new);
        assert_eq!(all().is_in(old.as_bytes()), old != new);
    }

    #[test]
    fn every_way_to_write_one_is_mended() {
        for text in [
            "UUID=@ / ext4",
            "UUID=\"@\"",
            "/dev/disk/by-uuid/@\t/",
            "search --no-floppy --fs-uuid --set=root @",
            "root=UUID=@ resume=UUID=@ ro",
            "luks-@",
            "@",
        ] {
            becomes(&text.replace('@', OLD), &text.replace('@', NEW));
            let capital = |uuid: &str| text.replace('@', &uuid.to_uppercase());
            becomes(&capital(OLD), &capital(NEW));
        }
        let escaped = |uuid: &str| format!("dev-disk-by\\x2duuid-{}.swap", uuid.replace('-', "\\x2d"));
        becomes(&escaped(OLD), &escaped(NEW));
        becomes("UUID=12AB-34CD by-uuid/12ab-34cd", "UUID=99FE-00DC by-uuid/99fe-00dc");
        becomes(
            "ARRAY /dev/md0 UUID=00112233:44556677:8899aabb:ccddeeff (mduuid/00112233445566778899aabbccddeeff)",
            "ARRAY /dev/md0 UUID=ffeeddcc:bbaa4988:87665544:33221100 (mduuid/ffeeddccbbaa49888766554433221100)",
        );
        let (old, new) = (VG.0.replace('-', ""), VG.1.replace('-', ""));
        becomes(
            &format!("lvmid/{}/x dm-uuid-LVM-{old}{old}", VG.0),
            &format!("lvmid/{}/x dm-uuid-LVM-{new}{old}", VG.1),
        );
    }

    #[test]
    fn what_only_looks_like_one_stays() {
        for text in [
            format!("a{OLD}"),
            format!("{OLD}0"),
            OLD[1..].to_owned(),
            "call 12AB-34CD".to_owned(),
            "UUID=12AB-34CD-5678".to_owned(),
            "uuid\n12AB-34CD".to_owned(),
            VG.0.to_lowercase(),
        ] {
            becomes(&text, &text);
        }
        assert!(Mender::new(&[]).unwrap().mend(OLD.as_bytes()).is_none());
    }

    proptest! {
        #[test]
        fn any_text_keeps_its_length_and_is_mended_once(
            parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..20), 0..3_usize), 0..20)
        ) {
            let mut text = Vec::new();
            for (bytes, which) in parts {
                text.extend(bytes);
                text.extend([OLD.as_bytes(), b" UUID=12AB-34CD\n", b""][which]);
            }
            let mended = all().mend(&text).unwrap_or_else(|| text.clone());
            prop_assert_eq!(mended.len(), text.len());
            prop_assert!(all().mend(&mended).is_none());
        }
    }
}
