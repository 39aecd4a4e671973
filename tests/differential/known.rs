//! The differences that have a reason.

const LIST: &str = include_str!("differences.tsv");

/// One line of differences.tsv: guests, glob, what, reason.
pub(crate) struct Known {
    pub(crate) line: &'static str,
    guests: Vec<&'static str>,
    glob: globset::GlobMatcher,
    what: Vec<&'static str>,
}

impl Known {
    /// Those of one guest.
    pub(crate) fn of(guest: &str) -> Vec<Self> {
        let mut all = Self::all();
        all.retain(|one| one.guests.contains(&guest));
        all
    }

    pub(crate) fn all() -> Vec<Self> {
        LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(Self::parse).collect()
    }

    pub(crate) fn guests(&self) -> &[&'static str] {
        &self.guests
    }

    fn parse(line: &'static str) -> Self {
        let columns: Vec<_> = line.split('\t').collect();
        let [guests, glob, what, reason] = columns[..] else { panic!("{line:?} has not four columns") };
        assert!(reason.len() > 10, "{line:?}: why?");
        let glob = globset::GlobBuilder::new(glob).literal_separator(true).build().unwrap().compile_matcher();
        Self { line, guests: guests.split(',').collect(), glob, what: what.split(',').collect() }
    }

    pub(crate) fn is(&self, path: &str, what: &str) -> bool {
        self.what.contains(&what) && self.glob.is_match(path)
    }
}
