//! The seed that a guest starts its random numbers from: systemd-random-seed(8). One of its own for each clone, or a place
//! in a template where each clone gets one.

#![forbid(unsafe_code)]

use std::path::Path;

use super::{Findings, View, meets, put};
use crate::error::Result;
use crate::guest::change::{Change, Content, NewFile};
use crate::operation::seed::{RandomSeed, SeedContent};
use crate::uuids::random_bytes;

/// Bytes of a seed: what systemd and the init scripts of Debian save.
pub const SEED_BYTES: usize = 512;

/// What a template has where its clones get their seeds; public, so that nobody counts it as entropy. Its first line says so.
const PLACE: &str = "guestseal: each clone gets its own random seed here\n";

/// The whole content of such a place.
pub fn place() -> [u8; SEED_BYTES] {
    let mut place = [b'.'; SEED_BYTES];
    place[..PLACE.len()].copy_from_slice(PLACE.as_bytes());
    place[SEED_BYTES - 1] = b'\n';
    place
}

/// A new seed.
///
/// # Errors
/// When the system gives no entropy.
pub fn seed() -> Result<[u8; SEED_BYTES]> {
    random_bytes()
}

pub(super) fn give(verb: &RandomSeed, view: View<'_>) -> Result<Findings> {
    if !meets(&verb.when, view)? {
        return Ok(Findings::default());
    }
    let (path, new) = (Path::new(&verb.path), NewFile::root(0o600));
    let change = match verb.content {
        SeedContent::Place => put(path, place().to_vec(), new, view)?,
        // That of a clone is its own from then on, and changes whenever it runs.
        SeedContent::New if view.settings.recorded => {
            return Ok(Findings { unsure: true, ..Findings::default() });
        }
        SeedContent::New => {
            let path = view.root.resolve(path)?.map_or_else(|| path.to_path_buf(), |entry| entry.path);
            Some(Change::Replace { path, content: Content(seed()?.to_vec()), new })
        }
    };
    Ok(change.into_iter().collect::<Vec<_>>().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_the_line_by_which_operations_know_it() {
        let text = include_str!("../../operations/random-seed.toml");
        let line = PLACE.trim_end();
        assert!(place().starts_with(PLACE.as_bytes()) && text.contains(&format!("^{line}$")));
    }

    #[test]
    fn seeds_differ() {
        assert_ne!(seed().unwrap(), seed().unwrap());
    }
}
