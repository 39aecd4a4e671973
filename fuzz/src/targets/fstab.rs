//! fstab(5), and which volume each entry means.

use guestseal::disk::fstab::{self, FstabEntry, Source};
use guestseal::disk::{Partition, Volume};

pub(crate) fn run(data: &[u8]) {
    let fstab = fstab::parse(data);
    let lines = data.split(|byte| *byte == b'\n').count();
    assert!(fstab.entries.len() + fstab.ignored_lines.len() <= lines + 1);
    assert!(fstab.entries.windows(2).all(|pair| pair[0].line < pair[1].line));
    let (partition, whole) = (volume(Some(1)), volume(None));
    for entry in &fstab.entries {
        assert!((1..=lines).contains(&entry.line));
        for text in [&entry.mount_point, &entry.fs_type] {
            assert!(!text.contains('\0') && !text.is_empty());
        }
        let _ =
            (entry.subvolume(), entry.subvolume_id(), entry.is_noauto(), entry.is_nofail(), entry.is_bind());
        for volume in [&partition, &whole] {
            let one = entry.source.matches(volume, 0, 1);
            // Of more disks a name may mean another one, but never this one instead of another.
            assert!(one || !entry.source.matches(volume, 0, 2), "{entry:?}");
        }
        printed(entry);
    }
}

fn volume(number: Option<u32>) -> Volume {
    let partition = number.map(|number| Partition {
        number,
        start: 1 << 20,
        length: 1 << 30,
        type_id: "0x83".into(),
        part_uuid: Some("0a-01".into()),
        part_label: Some("root".into()),
        bootable: false,
    });
    Volume { disk: 0, on: None, partition, offset: 1 << 20, length: 1 << 30, superblock: None }
}

/// An entry that is written out again reads as itself.
fn printed(entry: &FstabEntry) {
    let quoted = |text: &str| text.contains(['"', '\'']);
    let options: Vec<String> = entry
        .options
        .iter()
        .map(|(name, value)| match value {
            Some(value) => format!("{name}=\"{value}\""),
            None => name.clone(),
        })
        .collect();
    let odd = entry.options.iter().any(|(name, value)| quoted(name) || value.as_deref().is_some_and(quoted));
    if odd || quoted(&entry.source.to_string()) {
        return;
    }
    let fields = [&entry.source.to_string(), &entry.mount_point, &entry.fs_type, &options.join(",")];
    let mut line = fields.map(|field| escaped(field)).join("\t");
    // An empty field cannot be written.
    if options.is_empty() {
        line.push(',');
    }
    line.push_str(&format!(" {} {}", entry.dump, entry.pass));
    if matches!(entry.source, Source::Other(ref name) if name.is_empty()) {
        return;
    }
    let mut again = fstab::parse(line.as_bytes());
    let mut again = again.entries.pop().unwrap_or_else(|| panic!("{line:?} is not read again"));
    again.line = entry.line;
    assert_eq!(again, *entry, "{line:?}");
}

fn escaped(text: &str) -> String {
    let odd = |byte: u8| byte <= b' ' || byte == b'\\' || byte == b'#' || byte >= 0x7f;
    text.bytes()
        .map(|byte| if odd(byte) { format!("\\{byte:03o}") } else { char::from(byte).into() })
        .collect()
}
