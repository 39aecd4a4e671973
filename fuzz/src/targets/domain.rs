//! What virsh prints: a domain's XML, its state, the URI of a connection.

use guestseal::domain::definition::{self, Definition};
use guestseal::domain::disks::{Place, choose};
use guestseal::domain::{connection, state};

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(found) = definition::parse(text) {
        judge(text, &found);
    }
    if let Ok(state) = state::parse(text) {
        assert!(!state.word.is_empty() && text.contains(&state.word));
        assert_eq!(state.is_off(), state.word == "shut off" && !state.saved);
        assert_eq!(state.must_be_off("web").is_ok(), state.is_off());
    }
    // Whatever names a host is not this one.
    if connection::check(text).is_ok() && text.contains("://") {
        let rest = text.split_once("://").map_or("", |(_, rest)| rest);
        assert!(rest.is_empty() || rest.starts_with(['/', '?', '#']));
    }
}

fn judge(text: &str, found: &Definition) {
    assert_eq!(found.uuid.len(), 36);
    assert!(found.uuid.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()));
    assert!(!found.name.trim().is_empty());
    assert!(found.disks.len() <= text.matches("<disk").count());
    let Ok((chosen, notes)) = choose(found) else { return };
    assert_eq!(chosen.len() + notes.len(), found.disks.len());
    for disk in &chosen {
        match &disk.place {
            Place::Path(path) => assert!(path.is_absolute()),
            Place::Volume { pool, volume } => assert!(!pool.is_empty() && !volume.is_empty()),
        }
    }
}
