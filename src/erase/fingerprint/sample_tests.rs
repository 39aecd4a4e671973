use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use proptest::prelude::*;

use super::*;
use crate::guest::FileKind;
use crate::guest::change::NewFile;

/// A guest in a folder, and a sampler with what it gave away.
struct Guest {
    folder: tempfile::TempDir,
    root: GuestRoot,
    sampler: Sampler,
    windows: Vec<Window>,
    coverage: Coverage,
}

impl Guest {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = GuestRoot::open(folder.path()).unwrap();
        let (sampler, coverage) = (Sampler::default(), Coverage::default());
        Self { folder, root, sampler, windows: Vec::new(), coverage }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
    }

    /// The windows of this change, and what they stand for.
    fn before(&mut self, change: &Change) -> (Vec<Window>, Coverage) {
        let (windows, coverage) = (&mut self.windows, &mut self.coverage);
        let mut sink = |batch: &[Window], more: Coverage| {
            assert!(batch.len() <= BATCH);
            windows.extend_from_slice(batch);
            coverage.add(&more);
        };
        self.sampler.before(&self.root, change, &mut sink);
        self.sampler.flush(&mut sink);
        (std::mem::take(&mut self.windows), std::mem::take(&mut self.coverage))
    }

    fn removed(&mut self, name: &str) -> (Vec<Window>, Coverage) {
        let path = Path::new("/").join(name);
        self.before(&Change::Remove { path, kind: FileKind::File, bytes: 0 })
    }

    fn replaced(&mut self, name: &str, content: &[u8]) -> Vec<Window> {
        let (path, content) = (Path::new("/").join(name), Content(content.to_vec()));
        self.before(&Change::Replace { path, content, new: NewFile::root(0o600) }).0
    }
}

/// Lines such as a log has, each one different.
fn log(lines: usize) -> Vec<u8> {
    (0..lines)
        .flat_map(|line| format!("Nov 22 08:17:{line:06} sshd[{line}]: accepted\n").into_bytes())
        .collect()
}

fn has(content: &[u8], window: &Window) -> bool {
    content.windows(WINDOW).any(|other| other == window)
}

fn counted(coverage: Coverage) -> [u64; 5] {
    let Coverage { sampled, plain, linked, skipped, unread } = coverage;
    [sampled, plain, linked, skipped, unread]
}

#[test]
fn windows_are_of_the_file_and_from_all_over_it() {
    let mut guest = Guest::new();
    for (lines, least) in [(1, 1), (10, 2), (100, 4), (10_000, 4), (120_000, 4)] {
        let content = log(lines);
        guest.write("log", &content);
        let (windows, coverage) = guest.removed("log");
        assert_eq!(counted(coverage), [1, 0, 0, 0, 0]);
        assert!(windows.len() >= least && windows.len() <= PER_FILE, "{} of {lines} lines", windows.len());
        assert!(windows.iter().all(|window| has(&content, window) && is_distinctive(window)));
        if lines == 100 || lines > 100_000 {
            let quarter = content.len() / 4;
            let at = |part: &[u8]| windows.iter().filter(|window| has(part, window)).count();
            assert!(at(&content[..quarter]) > 0 && at(&content[3 * quarter..]) > 0);
        }
    }
}

#[test]
fn what_has_nothing_of_its_own_is_only_counted() {
    let mut guest = Guest::new();
    guest.write("empty", b"");
    guest.write("short", b"hostname\n");
    guest.write("plain", &[b'-'; 100_000]);
    assert_eq!(counted(guest.removed("empty").1), [0; 5]);
    assert_eq!(counted(guest.removed("short").1), [0, 1, 0, 0, 0]);
    assert_eq!(counted(guest.removed("plain").1), [0, 1, 0, 0, 0]);
    assert_eq!(counted(guest.removed("missing").1), [0; 5]);
}

#[test]
fn only_regular_files_are_opened_and_links_are_not_followed() {
    let mut guest = Guest::new();
    guest.write("secret", &log(9));
    fs::create_dir(guest.path("folder")).unwrap();
    symlink("secret", guest.path("link")).unwrap();
    symlink("/etc/passwd", guest.path("out")).unwrap();
    nix::unistd::mkfifo(&guest.path("fifo"), Mode::S_IRUSR).unwrap();
    for name in ["folder", "link", "out", "fifo"] {
        assert_eq!(guest.removed(name), (Vec::new(), Coverage::default()), "{name}");
    }
    let all = Change::RemoveTree { path: "/".into(), bytes: 0, entries: 5 };
    assert_eq!(counted(guest.before(&all).1), [1, 0, 0, 0, 0]);
}

#[test]
fn a_file_with_another_name_lives_on_unless_it_is_emptied() {
    let mut guest = Guest::new();
    guest.write("one", &log(9));
    fs::hard_link(guest.path("one"), guest.path("two")).unwrap();
    assert_eq!(guest.removed("one"), (Vec::new(), Coverage { linked: 1, ..Coverage::default() }));
    assert_eq!(guest.replaced("one", b"new"), Vec::<Window>::new());
    let (windows, coverage) = guest.before(&Change::Truncate { path: "/two".into(), bytes: 1 });
    assert_eq!((windows.is_empty(), counted(coverage)), (false, [1, 0, 0, 0, 0]));
}

#[test]
fn of_a_big_sparse_file_only_data_is_read() {
    let mut guest = Guest::new();
    let file = File::create(guest.path("sparse")).unwrap();
    // The longest that ext4 takes.
    file.set_len((16 << 40) - 4096).unwrap();
    let started = Instant::now();
    assert_eq!(counted(guest.removed("sparse").1), [0, 1, 0, 0, 0]);
    file.write_all_at(&log(10), 3 << 40).unwrap();
    let (windows, coverage) = guest.removed("sparse");
    assert_eq!((windows.len(), counted(coverage)), (1, [1, 0, 0, 0, 0]));
    let new = Change::Replace { path: "/sparse".into(), content: Content(log(5)), new: NewFile::root(0) };
    assert_eq!(counted(guest.before(&new).1), [0, 1, 0, 0, 0]);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn of_a_changed_file_what_went_is_taken() {
    let mut guest = Guest::new();
    let content = log(1000);
    guest.write("log", &content);
    assert_eq!(guest.replaced("log", &content), Vec::<Window>::new());
    assert_eq!(guest.replaced("new", &content), Vec::<Window>::new());
    for gone in [0, 500, 999] {
        let lines: Vec<&[u8]> = content.split_inclusive(|byte| *byte == b'\n').collect();
        let new = [lines[..gone].concat(), lines[gone + 1..].concat()].concat();
        let windows = guest.replaced("log", &new);
        assert!(!windows.is_empty(), "line {gone}");
        let around = lines[gone.saturating_sub(1)..1000.min(gone + 2)].concat();
        assert!(windows.iter().all(|window| has(&around, window) && !has(&new, window)), "line {gone}");
    }
    assert_eq!(guest.replaced("log", b"").len(), PER_FILE);
}

#[test]
fn of_a_big_folder_some_files_are_taken_from_everywhere() {
    let mut guest = Guest::new();
    let folders = ["a", "b/c", "d"];
    for folder in folders {
        fs::create_dir_all(guest.path(&format!("tree/{folder}"))).unwrap();
        (0..3000).for_each(|file| guest.write(&format!("tree/{folder}/{file}"), &log(1 + file % 3)));
    }
    let (windows, coverage) =
        guest.before(&Change::RemoveTree { path: "/tree".into(), bytes: 0, entries: 9004 });
    // One of eighteen, of which the last are thinned out as anywhere.
    assert!(coverage.sampled > 350 && coverage.sampled < 400, "{coverage:?}");
    assert_eq!(coverage.sampled + coverage.skipped, 9000);
    assert!(windows.len() as u64 >= coverage.sampled);
}

#[test]
fn there_is_an_end_and_the_last_files_still_have_a_share() {
    let mut guest = Guest::new();
    guest.write("log", &log(100));
    let (mut windows, mut all) = (0, Coverage::default());
    for _ in 0..100_000 {
        let (more, coverage) = guest.removed("log");
        windows += more.len();
        all.add(&coverage);
    }
    assert_eq!(all.sampled + all.skipped, 100_000);
    assert!(all.sampled > 2000 && all.sampled < 2500, "{all:?}");
    assert_eq!(windows as u64, all.sampled * 4);
    let spots: std::collections::BTreeSet<u64> = (0..9).flat_map(|turn| spots(60_000, turn)).collect();
    assert_eq!(spots.len(), 11, "each third of them is looked at: {spots:?}");
    guest.sampler.taken = LIMIT - PER_FILE + 1;
    guest.sampler.files = 0;
    assert_eq!(counted(guest.removed("log").1), [0, 0, 0, 1, 0]);
}

proptest! {
    #[test]
    fn spots_are_in_the_file_in_order(short in 1u64..9_000_000, long: u64, turn: u64) {
        for length in [short, long.max(1)] {
            let spots = spots(length, turn);
            prop_assert!(!spots.is_empty() && spots.len() <= PER_FILE);
            prop_assert!(spots.is_sorted_by(|one, other| one < other) && spots.iter().all(|spot| *spot < length));
            let mut pages: Vec<u64> = spots.iter().map(|spot| spot / PAGE).collect();
            pages.dedup();
            prop_assert!(pages.len() <= if length > BIG { 3 } else { 1 }, "{:?}", spots);
        }
    }

    #[test]
    fn what_is_gone_was_there_and_is_not_any_more(
        old in prop::collection::vec(any::<u8>(), 0..2000),
        cut in (0usize..2000, 0usize..300),
        new in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let start = cut.0.min(old.len());
        let end = (start + cut.1).min(old.len());
        let changed = [&old[..start], &new, &old[end..]].concat();
        let windows = gone(&old, &changed);
        prop_assert!(windows.iter().all(|window| has(&old, window) && !has(&changed, window)));
        prop_assert!(end - start < 128 || !windows.is_empty());
        prop_assert!(gone(&old, &old).is_empty());
    }
}
