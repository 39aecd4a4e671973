//! Searching a whole disk or file for windows: only where it has data, in big pieces, on several processors.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::WINDOW;
use super::finder::Finder;
use crate::erase::extent::{Extent, Extents};
use crate::error::{Context, Result};
use crate::report::{Event, Observer, Silent};
use crate::sys::holes::next_data;
use crate::sys::interrupt;

/// What is read at a time, in bytes.
const PIECE: usize = 1 << 20;
/// What of a window can lie before or behind a piece, in bytes.
const EDGE: usize = WINDOW - 1;
/// The most places of one kind that are named; all are counted.
const NAMED: usize = 1000;
/// The most processors that are used.
const THREADS: usize = 16;
/// The most kinds of places that are told apart.
const KINDS: usize = 16;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// How many different windows were searched for.
    pub windows: u64,
    /// How many bytes were read and searched; holes are not.
    pub bytes: u64,
    /// What was found, by the kind of its place.
    kinds: [Hits; KINDS],
}

impl Found {
    /// What was found in places of this kind.
    pub fn of(&self, kind: usize) -> &Hits {
        &self.kinds[kind.min(KINDS - 1)]
    }

    /// How many windows were found, wherever they were.
    pub fn count(&self) -> u64 {
        self.kinds.iter().map(|hits| hits.count).fold(0, u64::saturating_add)
    }
}

/// What was found in places of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hits {
    /// How many windows.
    pub count: u64,
    /// Where in the file some of them begin, in order: a thousand at most.
    pub places: Vec<u64>,
}

impl Hits {
    fn add(&mut self, place: u64) {
        self.count = self.count.saturating_add(1);
        if self.places.len() < NAMED {
            self.places.push(place);
        }
    }

    fn merge(&mut self, other: Self) {
        self.count = self.count.saturating_add(other.count);
        self.places.extend(other.places);
    }
}

/// The whole of a file or device as a range to be searched.
///
/// # Errors
/// When it cannot be measured.
pub fn whole(mut file: &File) -> Result<Extents> {
    // Not from its metadata: those of a block device say nothing of its length.
    let length = std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0));
    Extents::new([Extent { start: 0, length: length.context(|| "cannot measure what is searched")? }])
}

/// Searches the data of `file` in these ranges, on up to `threads` processors. A window counts when it is whole in one
/// range. `kind` says of which kind a place is, as a number below 16: free space, journal, a living file. It moves the
/// file's own position.
///
/// # Errors
/// When the file cannot be read, or a signal came.
pub fn search_file(
    file: &File,
    ranges: &Extents,
    finder: &Finder<'_>,
    kind: &(dyn Fn(u64) -> usize + Sync),
    threads: usize,
    observer: &mut dyn Observer,
) -> Result<Found> {
    let pieces = Mutex::new(Pieces::new(file, ranges));
    let search = Search { file, pieces, total: ranges.bytes(), finder, kind };
    let parts = thread::scope(|scope| {
        let others: Vec<_> =
            (1..threads.clamp(1, THREADS)).map(|_| scope.spawn(|| search.run(&mut Silent))).collect();
        let own = search.run(observer);
        let others =
            others.into_iter().map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        std::iter::once(own).chain(others).collect::<Vec<_>>()
    });
    let mut all = Found { windows: finder.windows() as u64, bytes: 0, kinds: Default::default() };
    for part in parts {
        let (bytes, kinds) = part?;
        all.bytes = all.bytes.saturating_add(bytes);
        all.kinds.iter_mut().zip(kinds).for_each(|(all, hits)| all.merge(hits));
    }
    for hits in &mut all.kinds {
        hits.places.sort_unstable();
        hits.places.truncate(NAMED);
    }
    Ok(all)
}

struct Search<'a> {
    file: &'a File,
    pieces: Mutex<Pieces<'a>>,
    total: u64,
    finder: &'a Finder<'a>,
    kind: &'a (dyn Fn(u64) -> usize + Sync),
}

impl Search<'_> {
    /// Searches piece after piece until there is none, or another thread met an error.
    fn run(&self, observer: &mut dyn Observer) -> Result<(u64, [Hits; KINDS])> {
        let mut buffer = vec![0; PIECE + 2 * EDGE];
        let (mut bytes, mut kinds) = (0u64, <[Hits; KINDS]>::default());
        while let Some((piece, done)) = self.next()? {
            let length = piece.read(self.file, &mut buffer).inspect_err(|_| self.stop())?;
            self.finder.scan(piece.from, &buffer[..length], &mut |place, _| {
                // What begins in the next piece is found there.
                if place < piece.data.end
                    && let Some(hits) = kinds.get_mut((self.kind)(place).min(KINDS - 1))
                {
                    hits.add(place);
                }
            });
            bytes = bytes.saturating_add(piece.data.end - piece.data.start);
            observer.event(Event::Progress { what: "searching", done, total: self.total });
        }
        Ok((bytes, kinds))
    }

    /// The next piece, and how many bytes of the ranges are behind us when it is done.
    fn next(&self) -> Result<Option<(Piece, u64)>> {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let next = interrupt::check().and_then(|()| pieces.next());
        pieces.stopped |= next.is_err();
        Ok(next?.map(|piece| (piece, pieces.done)))
    }

    /// Nobody begins another piece.
    fn stop(&self) {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
    }
}

/// A piece of data, and how far around it is read: a window may begin in the hole before it, and end behind it.
struct Piece {
    data: Range<u64>,
    from: u64,
    to: u64,
}

impl Piece {
    /// Fills the buffer; less when the file ends.
    fn read(&self, file: &File, buffer: &mut [u8]) -> Result<usize> {
        let wanted = usize::try_from(self.to - self.from).unwrap_or(usize::MAX).min(buffer.len());
        let mut filled = 0;
        while filled < wanted {
            let at = self.from + filled as u64;
            match file.read_at(&mut buffer[filled..wanted], at) {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context(|| format!("cannot read at byte {at}")),
            }
        }
        Ok(filled)
    }
}

/// The pieces of data of a file in some ranges, one after the other.
struct Pieces<'a> {
    file: &'a File,
    ranges: Box<dyn Iterator<Item = Extent> + Send + 'a>,
    /// The range that is being searched.
    range: Extent,
    /// Where the last piece ended, or its range began.
    at: u64,
    /// What is left of the data in which the last piece was.
    data: Range<u64>,
    /// How many bytes of the ranges are behind us, holes included.
    done: u64,
    stopped: bool,
}

impl<'a> Pieces<'a> {
    fn new(file: &'a File, ranges: &'a Extents) -> Self {
        let range = Extent { start: 0, length: 0 };
        Self { file, ranges: Box::new(ranges.iter()), range, at: 0, data: 0..0, done: 0, stopped: false }
    }

    fn next(&mut self) -> Result<Option<Piece>> {
        let mut from = self.data.start;
        while self.data.is_empty() && !self.stopped {
            match next_data(self.file, self.at, self.range.end()).context(|| "cannot tell holes from data")? {
                Some(data) => {
                    from = data.start.saturating_sub(EDGE as u64).max(self.at);
                    self.data = data;
                }
                None => match self.ranges.next() {
                    Some(range) => (self.range, self.at) = (range, range.start),
                    None => return Ok(None),
                },
            }
        }
        if self.stopped {
            return Ok(None);
        }
        let start = self.data.start;
        let end = self.data.end.min(start.saturating_add(PIECE as u64));
        let to = end.saturating_add(EDGE as u64).min(self.range.end());
        self.done = self.done.saturating_add(end - self.at);
        (self.at, self.data.start) = (end, end);
        Ok(Some(Piece { data: start..end, from, to }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::erase::fingerprint::{Fingerprints, Window};
    use proptest::prelude::*;

    const A: Window = *b"the first window, which is found";
    const B: Window = *b"another one that lies elsewhere!";

    fn prints() -> Fingerprints {
        let mut prints = Fingerprints::new();
        assert!(prints.add(&A) && prints.add(&B) && prints.add(&A));
        prints
    }

    fn sparse(length: u64, windows: &[(u64, Window)]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        windows.iter().for_each(|(place, window)| file.write_all_at(window, *place).unwrap());
        file
    }

    fn search(file: &File, ranges: &Extents, kind: &(dyn Fn(u64) -> usize + Sync)) -> Found {
        let prints = prints();
        search_file(file, ranges, &Finder::new(&prints), kind, 2, &mut Silent).unwrap()
    }

    #[test]
    fn a_big_sparse_file_is_searched_where_it_has_data() {
        let piece = PIECE as u64;
        // At the start, over the edges of pieces, at the edges of a hole, and at the very end.
        let places = [0, piece - 1, 3 * piece - 31, 1 << 39, (1 << 40) - 32].map(|place| (place, A));
        let file = sparse(1 << 40, &places);
        file.write_all_at(&vec![b'x'; 4 * PIECE], piece + 31).unwrap();
        file.write_all_at(&A, 3 * piece - 31).unwrap();
        let found = search(&file, &whole(&file).unwrap(), &|_| 3);
        assert_eq!((found.windows, found.count(), found.of(3).count), (2, 5, 5));
        assert_eq!(found.of(3).places, places.map(|(place, _)| place));
        assert!(found.bytes >= 4 * piece && found.bytes < 8 * piece, "{}", found.bytes);
    }

    #[test]
    fn only_what_is_whole_in_a_range_counts_and_each_by_its_kind() {
        let file = sparse(1 << 20, &[(1000, A), (5000, B), (9000, A), (20_000, B)]);
        let ranges = [(1000, 32), (5001, 100), (8000, 1031), (15_000, 10_000)];
        let ranges = Extents::new(ranges.map(|(start, length)| Extent { start, length })).unwrap();
        let found = search(&file, &ranges, &|place| usize::from(place > 10_000) * 99);
        assert_eq!((found.of(0).places.clone(), found.of(99).places.clone()), (vec![1000], vec![20_000]));
    }

    #[test]
    fn places_are_bounded_and_all_are_counted() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&A.repeat(50_000), 0).unwrap();
        let found = search(&file, &whole(&file).unwrap(), &|_| 0);
        assert_eq!((found.of(0).count, found.of(0).places.len()), (50_000, NAMED));
        assert_eq!(found.bytes, 50_000 * 32);
    }

    #[test]
    fn an_error_of_one_thread_is_the_answer() {
        let folder = File::open("/").unwrap();
        let ranges = Extents::new([Extent { start: 0, length: 1 << 30 }]).unwrap();
        let prints = prints();
        let error = search_file(&folder, &ranges, &Finder::new(&prints), &|_| 0, 2, &mut Silent).unwrap_err();
        assert!(error.to_string().starts_with("cannot "), "{error}");
    }

    #[test]
    fn progress_ends_at_the_end() {
        struct Last(Vec<(u64, u64)>);
        impl Observer for Last {
            fn event(&mut self, event: Event<'_>) {
                if let Event::Progress { done, total, .. } = event {
                    self.0.push((done, total));
                }
            }
        }
        let file = sparse(9 << 20, &[(0, A), ((9 << 20) - 32, B)]);
        let (prints, mut last) = (prints(), Last(Vec::new()));
        let whole = whole(&file).unwrap();
        search_file(&file, &whole, &Finder::new(&prints), &|_| 0, 1, &mut last).unwrap();
        assert_eq!(last.0.last(), Some(&(9 << 20, 9 << 20)));
    }

    proptest! {
            #[test]
            fn each_window_is_found_once_wherever_data_begins_and_ends(
                places in proptest::collection::btree_set(0u64..1 << 16, 0..40),
                cuts in proptest::collection::btree_set(0u64..1 << 16, 0..20),
            ) {
                let mut windows: Vec<(u64, Window)> = Vec::new();
                for place in places {
                    if windows.last().is_none_or(|(last, _)| last + 32 <= place) {
                        windows.push((place, if place % 2 == 0 { A } else { B }));
                    }
                }
                let file = sparse(1 << 17, &windows);
                // Ranges between every other cut.
                let cuts: Vec<u64> = cuts.into_iter().collect();
                let ranges = cuts.chunks_exact(2).map(|pair| Extent::between(pair[0], pair[1]));
                let ranges = Extents::new(ranges).unwrap();
                let inside = |place: u64| ranges.iter().any(|range| range.start <= place && place + 32 <= range.end());
                let wanted: Vec<u64> = windows.iter().map(|(place, _)| *place).filter(|place| inside(*place)).collect();
                let found = search(&file, &ranges, &|_| 0);
    prop_assert_eq!(&found.of(0).places, &wanted);
            }
        }
}
