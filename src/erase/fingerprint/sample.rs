//! Taking windows of a file just before its content goes. This runs in the worker, on files that a hostile guest made:
//! only regular files are opened, only a few places of each are read, and there is an end to how many.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use zeroize::{Zeroize, Zeroizing};

use super::finder::Finder;
use super::{Coverage, LIMIT, WINDOW, Window, distinct, is_distinctive};
use crate::guest::GuestRoot;
use crate::guest::change::{Change, Content};
use crate::sys::holes::first_data;

/// The most windows of one file.
const PER_FILE: usize = 4;
/// The most files of one folder that goes; they are taken evenly from all below it.
const PER_TREE: u64 = 512;
/// So many files are all looked at; of the next twice as many every other one, and so on. Of a million it is three thousand.
const ALL: u64 = 256;
/// The most windows that are held before they are given away.
pub const BATCH: usize = 1024;
/// The smallest block of a filesystem, in bytes: what lies across two may lie apart on the disk.
const BLOCK: u64 = BLOCK_BYTES as u64;
const BLOCK_BYTES: usize = 512;
/// What is read at once, in bytes. Each one that is read costs more than all else that is done here.
const PAGE: u64 = 4096;
/// A file that is longer is looked at in three pages, others in one.
const BIG: u64 = 4 << 20;
/// How many windows of a block there are of which the best is taken.
const CHOICE: usize = 32;
/// A file that is written anew is compared with its old content up to this length in bytes.
const COMPARED: u64 = 1 << 20;
/// The most windows of an old content that are looked for in the new one.
const CANDIDATES: usize = 512;

/// Where windows go: a batch of them, and what they stand for.
pub type Sink<'a> = &'a mut dyn FnMut(&[Window], Coverage);

/// Takes windows and gives them away in batches.
#[derive(Debug, Default)]
pub struct Sampler {
    /// Windows not given away yet.
    batch: Batch,
    coverage: Coverage,
    /// How many windows were taken in all.
    taken: usize,
    /// How many files there were in all.
    files: u64,
}

/// Windows in a place that is wiped.
#[derive(Default)]
struct Batch(Zeroizing<Vec<Window>>);

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} windows", self.0.len())
    }
}

/// What came of one file.
#[derive(Clone, Copy)]
enum Taken {
    /// So many windows.
    Windows(usize),
    /// It has another name, under which it stays.
    Linked,
    /// It has no content, or is no file.
    Empty,
    /// It cannot be read.
    Unread,
}

impl Sampler {
    /// Takes windows of what the change will destroy. A file that cannot be read is only counted: whether it can go is
    /// for the change to find out.
    pub fn before(&mut self, root: &GuestRoot, change: &Change, sink: Sink<'_>) {
        match change {
            Change::Remove { path, .. } | Change::Link { path, .. } => self.file(root, path, false, sink),
            Change::Truncate { path, .. } => self.file(root, path, true, sink),
            Change::RemoveTree { path, entries, .. } => self.tree(root, path, *entries, sink),
            Change::Replace { path, content, .. } => {
                let taken = self.look(root, path, |sampler, file| sampler.changed(file, content));
                self.count(taken, sink);
            }
            Change::Bring { path, .. } | Change::Copy { path, .. } | Change::Move { path, .. } => {
                self.file(root, path, false, sink);
            }
            // What these leave is all there was.
            Change::Append { .. }
            | Change::Folder { .. }
            | Change::Mode { .. }
            | Change::Owner { .. }
            | Change::Touch { .. } => {}
        }
    }

    /// Gives away what is held.
    pub fn flush(&mut self, sink: Sink<'_>) {
        if !self.batch.0.is_empty() || self.coverage != Coverage::default() {
            sink(&self.batch.0, std::mem::take(&mut self.coverage));
            self.batch.0.iter_mut().zeroize();
            self.batch.0.clear();
        }
    }

    /// One of every so many files below the folder, which has `entries` files and folders.
    fn tree(&mut self, root: &GuestRoot, folder: &Path, entries: u64, sink: Sink<'_>) {
        let (every, mut number) = (entries / PER_TREE + 1, 0u64);
        let walked = root.walk(folder, |item| {
            if item.kind.is_file() {
                number += 1;
                if number % every == 0 {
                    self.file(root, &folder.join(item.below), false, sink);
                } else {
                    self.coverage.skipped = self.coverage.skipped.saturating_add(1);
                }
            }
            Ok(())
        });
        if walked.is_err() {
            self.coverage.unread = self.coverage.unread.saturating_add(1);
        }
    }

    fn file(&mut self, root: &GuestRoot, path: &Path, with_all_names: bool, sink: Sink<'_>) {
        if !self.admits() {
            self.coverage.skipped = self.coverage.skipped.saturating_add(1);
            return;
        }
        let taken = self.look(root, path, |sampler, file| sampler.removed(file, with_all_names));
        self.count(taken, sink);
    }

    /// Whether another file is looked at.
    fn admits(&mut self) -> bool {
        let rarity = (self.files / ALL + 1).ilog2();
        self.files = self.files.saturating_add(1);
        self.taken + PER_FILE <= LIMIT && self.files.is_multiple_of(1 << rarity)
    }

    /// Looks into a regular file, and at nothing else.
    fn look(
        &mut self,
        root: &GuestRoot,
        path: &Path,
        into: impl FnOnce(&mut Self, &File) -> io::Result<Taken>,
    ) -> Taken {
        match root.open_file(path) {
            Ok(Some(file)) => into(self, &File::from(file)).unwrap_or(Taken::Unread),
            Ok(None) => Taken::Empty,
            Err(_) => Taken::Unread,
        }
    }

    fn count(&mut self, taken: Taken, sink: Sink<'_>) {
        let count = match taken {
            Taken::Windows(0) => &mut self.coverage.plain,
            Taken::Windows(_) => &mut self.coverage.sampled,
            Taken::Linked => &mut self.coverage.linked,
            Taken::Unread => &mut self.coverage.unread,
            Taken::Empty => return,
        };
        *count = count.saturating_add(1);
        if self.batch.0.len() + PER_FILE > BATCH {
            self.flush(sink);
        }
    }

    /// A file whose whole content goes.
    fn removed(&mut self, file: &File, with_all_names: bool) -> io::Result<Taken> {
        let stat = file.metadata()?;
        if stat.len() == 0 {
            return Ok(Taken::Empty);
        }
        if stat.nlink() > 1 && !with_all_names {
            return Ok(Taken::Linked);
        }
        let sparse = stat.blocks().saturating_mul(512) < stat.len();
        let (mut windows, mut behind) = (0, 0);
        let mut bytes = Zeroizing::new([0; BLOCK_BYTES]);
        let mut spots = spots(stat.len(), self.files).into_iter().peekable();
        while let Some(spot) = spots.next() {
            let Some(spot) = content_at(file, spot, sparse)?.filter(|spot| *spot >= behind) else { continue };
            let end = spots.peek().copied().filter(|next| *next > spot).unwrap_or(stat.len());
            let length = end.saturating_sub(spot).min(BLOCK - spot % BLOCK);
            let length = usize::try_from(length).unwrap_or(0).min(BLOCK_BYTES);
            let length = file.read_at(&mut bytes[..length], spot)?;
            behind = spot.saturating_add(length as u64);
            windows += usize::from(self.take(best(candidates(&bytes[..length]))));
        }
        Ok(Taken::Windows(windows))
    }

    /// A file that gets a new content: windows of the old one that are not in the new.
    fn changed(&mut self, file: &File, new: &Content) -> io::Result<Taken> {
        let stat = file.metadata()?;
        if stat.len() == 0 {
            return Ok(Taken::Empty);
        }
        if stat.nlink() > 1 {
            return Ok(Taken::Linked);
        }
        let length = usize::try_from(stat.len().min(COMPARED)).unwrap_or(0);
        let mut old = Zeroizing::new(vec![0; length]);
        let length = file.read_at(&mut old, 0)?;
        let windows = Zeroizing::new(gone(&old[..length], &new.0));
        let part = windows.len().div_ceil(PER_FILE).max(1);
        let taken = windows.chunks(part).filter(|part| self.take(best(part.iter().copied()))).count();
        Ok(Taken::Windows(taken))
    }

    fn take(&mut self, window: Option<Zeroizing<Window>>) -> bool {
        let Some(window) = window.filter(|_| self.taken < LIMIT) else { return false };
        if self.batch.0.capacity() == 0 {
            self.batch.0.reserve_exact(BATCH);
        }
        self.batch.0.push(*window);
        self.taken += 1;
        true
    }
}

/// Where to look into a file of this length, in order. Of a file in several pages it is the first, the middle or the last
/// one in `turn`; of a big one all three.
fn spots(length: u64, turn: u64) -> Vec<u64> {
    const SHORT: u64 = 128;
    let page = |place: u64| place / PAGE * PAGE;
    let (middle, end) = (page(length / 2), length.saturating_sub(SHORT));
    let mut spots = if length > BIG {
        vec![0, PAGE / 2, middle, end / SHORT * SHORT]
    } else if length > PAGE {
        let start = match turn % 3 {
            0 => 0,
            1 => middle,
            _ => page(end),
        };
        let quarters = (0..4).map(|quarter| start + quarter * PAGE / 4);
        quarters.filter(|spot| *spot < length).collect()
    } else {
        [0, end / 3, end / 3 * 2, end].map(|spot| spot / SHORT * SHORT).to_vec()
    };
    spots.dedup();
    spots
}

/// Where the first content at or after `spot` is; a file without holes is not asked.
fn content_at(file: &File, spot: u64, sparse: bool) -> io::Result<Option<u64>> {
    if sparse { Ok(first_data(file, spot)?) } else { Ok(Some(spot)) }
}

/// The windows of a block.
fn candidates(bytes: &[u8]) -> impl Iterator<Item = Window> {
    bytes.windows(WINDOW).step_by((bytes.len() / CHOICE).max(1)).filter_map(|window| window.try_into().ok())
}

/// The first of those with the most different bytes; None when all are too plain.
fn best(windows: impl Iterator<Item = Window>) -> Option<Zeroizing<Window>> {
    let mut best: Option<(u32, Zeroizing<Window>)> = None;
    for window in windows {
        let different = distinct(&window);
        if best.as_ref().is_none_or(|(most, _)| different > *most) && is_distinctive(&window) {
            best = Some((different, Zeroizing::new(window)));
        }
    }
    best.map(|(_, window)| window)
}

/// Windows of the old content, from where the two begin to differ to where they end to, that are nowhere in the new one.
fn gone(old: &[u8], new: &[u8]) -> Vec<Window> {
    let same = |pair: &(&u8, &u8)| pair.0 == pair.1;
    let head = old.iter().zip(new).take_while(same).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(same).count();
    // A window that is changed at one end only is changed.
    let start = head.saturating_sub(WINDOW / 2);
    let end = (old.len() - tail).saturating_add(WINDOW / 2).min(old.len());
    let region = &old[start..end];
    let step = (region.len() / CANDIDATES).max(8);
    let in_one_block = |place: &usize| (start + place) % BLOCK_BYTES + WINDOW <= BLOCK_BYTES;
    let places = (0..region.len().saturating_sub(WINDOW - 1)).step_by(step).filter(in_one_block);
    let windows = places.filter_map(|place| region.get(place..)?.first_chunk::<WINDOW>().copied());
    let mut windows: Vec<Window> = windows.filter(is_distinctive).collect();
    let mut stays = vec![false; windows.len()];
    Finder::of(&windows).scan(0, new, &mut |_, which| {
        if let Some(stays) = stays.get_mut(which) {
            *stays = true;
        }
    });
    let mut stays = stays.into_iter();
    windows.retain(|_| !stays.next().unwrap_or(true));
    windows
}

#[cfg(test)]
#[path = "sample_tests.rs"]
mod tests;
