//! Globs over the guest's files, as operation files write them: absolute paths in which `*`, `?`, `[a-z]` and `{a,b}`
//! stay within one name, `**` stands for any depth and a leading `~` for every home folder.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};
use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag};
use nix::sys::stat::Mode;

use super::{Entry, FileKind, GuestRoot};
use crate::error::{Context, Error, Result};

/// The most links on one way, as the kernel counts them: path_resolution(7).
const LINKS_MAX: u32 = 40;

/// Linux's PATH_MAX: a longer glob can match nothing.
const LENGTH_MAX: usize = 4096;

/// The most steps that the braces of one glob may take to expand.
const EXPANSIONS_MAX: u32 = 1024;
/// The most bytes that the paths of one search may have together: a million usual ones.
const FOUND_MAX: usize = 128 << 20;

/// A parsed glob, its braces already expanded.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// From the root, or from each home folder when `in_homes`.
    alternatives: Vec<Vec<Step>>,
    in_homes: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Name(String),
    Match(GlobMatcher),
    Below,
}

impl Pattern {
    /// Parses a glob.
    ///
    /// # Errors
    /// When it is neither absolute nor below `~/`, has `..` or an empty name, or is no glob.
    pub fn parse(text: &str) -> Result<Self> {
        let (in_homes, rest) = match text.strip_prefix("~/") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('/').ok_or_else(|| wrong(text, "it must begin with / or ~/"))?),
        };
        if text.contains('\0') {
            return Err(wrong(text, "no file's name has a NUL"));
        }
        if text.len() > LENGTH_MAX {
            return Err(wrong(text.get(..40).unwrap_or("/"), "it is longer than a path"));
        }
        let alternatives = expand_braces(rest).map_err(|why| wrong(text, why))?;
        let steps = |path: &String| path.split('/').map(|name| step(text, name)).collect::<Result<Vec<_>>>();
        Ok(Self { alternatives: alternatives.iter().map(steps).collect::<Result<_>>()?, in_homes })
    }

    /// Everything in the guest that this glob matches.
    ///
    /// A folder on the way that is a symbolic link is followed inside the guest when root owns the link, so that a
    /// user's link in a home or /tmp leads nowhere; below `**` and at the end no link is followed.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn find(&self, root: &GuestRoot, homes: &[PathBuf], found: &mut Vec<Entry>) -> Result<()> {
        find_all(std::slice::from_ref(self), root, homes, found)
    }
}

/// Everything that any of these globs matches; what several match is found as often. Globs that go through the same
/// folder do so together: a guest may have a million files.
///
/// # Errors
/// As [`Pattern::find`], and kind [`crate::ErrorKind::Unsupported`] when more is found than a run can hold in memory.
pub fn find_all(
    patterns: &[Pattern],
    root: &GuestRoot,
    homes: &[PathBuf],
    found: &mut Vec<Entry>,
) -> Result<()> {
    let slash = [PathBuf::from("/")];
    let mut walks: BTreeMap<PathBuf, Vec<&[Step]>> = BTreeMap::new();
    let mut finds = Finds { root, found, bytes: 0 };
    for pattern in patterns {
        for start in if pattern.in_homes { homes } else { &slash } {
            for steps in &pattern.alternatives {
                match leading_names(start, steps) {
                    (folder, [Step::Below, rest @ ..]) => walks.entry(folder).or_default().push(rest),
                    _ => find_from(start, steps, &mut finds)?,
                }
            }
        }
    }
    for (folder, rests) in walks {
        if let Some(folder) = folder_trusted(root, &folder)? {
            walk(&folder, &rests, &mut finds)?;
        }
    }
    Ok(())
}

/// What was found so far.
struct Finds<'a> {
    root: &'a GuestRoot,
    found: &'a mut Vec<Entry>,
    bytes: usize,
}

impl Finds<'_> {
    fn add(&mut self, entry: Option<Entry>) -> Result<()> {
        let Some(entry) = entry else { return Ok(()) };
        self.bytes += entry.path.as_os_str().len();
        if self.bytes > FOUND_MAX {
            let folder = entry.path.ancestors().find(|path| path.as_os_str().len() < 100);
            let folder = folder.unwrap_or(&entry.path).display();
            return Err(Error::unsupported(format!(
                "there are too many files, or too long paths, below {folder} in the guest"
            ))
            .hint("look into the folder in the guest: no sane one has millions of files to be removed"));
        }
        self.found.push(entry);
        Ok(())
    }
}

/// The names with which the steps begin, from `start` on, and the other steps.
fn leading_names<'a>(start: &Path, steps: &'a [Step]) -> (PathBuf, &'a [Step]) {
    let mut path = start.to_path_buf();
    let named = steps.iter().map_while(|step| if let Step::Name(name) = step { Some(name) } else { None });
    let count = named.map(|name| path.push(name)).count();
    (path, &steps[count..])
}

fn wrong(text: &str, why: &str) -> Error {
    // What is wrong may be a character, and is quoted as it is.
    let why: String = why.chars().filter(|letter| !letter.is_control()).collect();
    Error::usage(format!("the glob {text:?} is wrong: {why}"))
}

fn step(text: &str, name: &str) -> Result<Step> {
    match name {
        "" | "." | ".." => Err(wrong(text, "a name in it is empty, `.` or `..`")),
        "**" => Ok(Step::Below),
        _ if name.contains("**") => Err(wrong(text, "`**` must stand alone between slashes")),
        _ if name.contains(['*', '?', '[', '\\']) => {
            let glob = GlobBuilder::new(name).literal_separator(true).backslash_escape(true).build();
            Ok(Step::Match(glob.map_err(|error| wrong(text, &error.kind().to_string()))?.compile_matcher()))
        }
        _ => Ok(Step::Name(name.to_owned())),
    }
}

/// `a{b,c{d,e}}f` → `abf`, `acdf`, `acef`.
fn expand_braces(text: &str) -> std::result::Result<Vec<String>, &'static str> {
    expand(text, &mut { EXPANSIONS_MAX })
}

/// Each brace doubles the work and more, so `left` bounds it.
fn expand(text: &str, left: &mut u32) -> std::result::Result<Vec<String>, &'static str> {
    const UNPAIRED: &str = "its braces do not match";
    *left = left.checked_sub(1).ok_or("its braces stand for too many globs: write fewer into one")?;
    let Some(open) = text.find(['{', '}']) else { return Ok(vec![text.to_owned()]) };
    let (mut depth, mut from, mut parts) = (0usize, open + 1, Vec::new());
    for (at, letter) in text[open..].char_indices().map(|(at, letter)| (at + open, letter)) {
        match letter {
            '{' => depth += 1,
            ',' if depth == 1 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            '}' => depth = depth.checked_sub(1).ok_or(UNPAIRED)?,
            _ => {}
        }
        if depth == 0 {
            parts.push(&text[from..at]);
            let mut expanded = Vec::new();
            for part in parts {
                expanded.extend(expand(&format!("{}{part}{}", &text[..open], &text[at + 1..]), left)?);
            }
            return Ok(expanded);
        }
    }
    Err(UNPAIRED)
}

fn find_from(at: &Path, steps: &[Step], finds: &mut Finds<'_>) -> Result<()> {
    let root = finds.root;
    let (path, steps) = leading_names(at, steps);
    let Some((step, rest)) = steps.split_first() else {
        return finds.add(lookup_trusted(root, &path)?);
    };
    let Some(folder) = folder_trusted(root, &path)? else { return Ok(()) };
    match step {
        Step::Match(glob) => {
            for name in root.names(&folder)? {
                if glob.is_match(Path::new(&name)) {
                    find_from_child(&folder.join(name), rest, finds)?;
                }
            }
            Ok(())
        }
        _ => walk(&folder, &[rest], finds),
    }
}

fn find_from_child(path: &Path, rest: &[Step], finds: &mut Finds<'_>) -> Result<()> {
    if rest.is_empty() { finds.add(finds.root.lookup(path)?) } else { find_from(path, rest, finds) }
}

/// The file at `path` when every folder on the way is real, or a link that root owns.
fn lookup_trusted(root: &GuestRoot, path: &Path) -> Result<Option<Entry>> {
    match root.open_at(
        path,
        OFlag::O_PATH | OFlag::O_NOFOLLOW,
        Mode::empty(),
        ResolveFlag::RESOLVE_NO_SYMLINKS,
    ) {
        Ok(fd) => GuestRoot::entry_of(path, &fd).map(Some),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG) => Ok(None),
        Err(Errno::ELOOP) => {
            let Some(parent) = path.parent() else { return Ok(None) };
            if folder_trusted(root, parent)?.is_some() { root.lookup(path) } else { Ok(None) }
        }
        Err(errno) => Err(errno).context(|| format!("cannot look at {} in the guest", path.display())),
    }
}

/// `path` when it leads to a folder by way of real folders and links that root owns.
fn folder_trusted(root: &GuestRoot, path: &Path) -> Result<Option<PathBuf>> {
    if root
        .open_at(path, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty(), ResolveFlag::RESOLVE_NO_SYMLINKS)
        .is_ok()
    {
        return Ok(Some(path.to_path_buf()));
    }
    let names = |path: &Path| path.components().map(|part| part.as_os_str().to_owned()).collect::<Vec<_>>();
    let (mut so_far, mut left, mut links) = (PathBuf::from("/"), VecDeque::from(names(path)), 0);
    // One link at a time: root's link may lead to a user's.
    while let Some(name) = left.pop_front() {
        match name.as_encoded_bytes() {
            b"/" => so_far = PathBuf::from("/"),
            b"." => {}
            b".." => drop(so_far.pop()),
            _ => {
                so_far.push(&name);
                match root.lookup(&so_far)? {
                    Some(entry) if entry.kind == FileKind::Folder => {}
                    Some(entry) if entry.kind == FileKind::Link && entry.uid == 0 && links < LINKS_MAX => {
                        let Some(target) = root.read_link(&so_far)? else { return Ok(None) };
                        so_far.pop();
                        links += 1;
                        names(&target).into_iter().rev().for_each(|name| left.push_front(name));
                    }
                    _ => return Ok(None),
                }
            }
        }
    }
    Ok(Some(so_far))
}

/// All below `folder` of which the last names match one of `rests`; an empty one means everything.
fn walk(folder: &Path, rests: &[&[Step]], finds: &mut Finds<'_>) -> Result<()> {
    finds.root.walk(folder, |item| {
        if rests.iter().any(|rest| ends_with(item.below, rest)) {
            finds.add(finds.root.lookup(&folder.join(item.below))?)?;
        }
        Ok(())
    })
}

/// Whether the path's last names match the steps, one name a step; a further `**` matches any number of names.
fn ends_with(path: &Path, steps: &[Step]) -> bool {
    if !steps.iter().any(|step| matches!(step, Step::Below)) {
        // The usual case, by the last names alone: a path may have thousands.
        let mut names = path.iter().rev();
        return steps.iter().rev().all(|step| {
            names.next().is_some_and(|name| match step {
                Step::Name(text) => name == text.as_str(),
                Step::Match(glob) => glob.is_match(Path::new(name)),
                Step::Below => false,
            })
        });
    }
    let names: Vec<&Path> = path.iter().map(Path::new).collect();
    (0..=names.len()).any(|from| matches(&names[from..], steps)) && !names.is_empty()
}

fn matches(names: &[&Path], steps: &[Step]) -> bool {
    match steps.split_first() {
        None => names.is_empty(),
        Some((Step::Below, rest)) => (0..=names.len()).any(|from| matches(&names[from..], rest)),
        Some((step, rest)) => names.split_first().is_some_and(|(name, others)| {
            let this = match step {
                Step::Name(text) => *name == Path::new(text),
                Step::Match(glob) => glob.is_match(name),
                Step::Below => false,
            };
            this && matches(others, rest)
        }),
    }
}

/// The globs of `keep`: what matches one of them, or is below such a folder, stays.
#[derive(Debug, Clone)]
pub struct KeepSet {
    absolute: GlobSet,
    in_homes: GlobSet,
    homes: Vec<PathBuf>,
}

impl KeepSet {
    /// Compiles the globs; `~/` stands for each of `homes`.
    ///
    /// # Errors
    /// When one is no glob.
    pub fn new(globs: &[String], homes: &[PathBuf]) -> Result<Self> {
        let (mut absolute, mut in_homes) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for text in globs {
            let (set, glob) =
                text.strip_prefix("~/").map_or((&mut absolute, text.as_str()), |rest| (&mut in_homes, rest));
            let glob = GlobBuilder::new(glob).literal_separator(true).backslash_escape(true).build();
            set.add(glob.map_err(|error| wrong(text, &error.kind().to_string()))?);
        }
        let build = |set: &GlobSetBuilder| set.build().map_err(|error| Error::usage(error.to_string()));
        Ok(Self { absolute: build(&absolute)?, in_homes: build(&in_homes)?, homes: homes.to_vec() })
    }

    /// Whether nothing stays.
    pub fn is_empty(&self) -> bool {
        self.absolute.is_empty() && self.in_homes.is_empty()
    }

    /// To ask about many paths, one after the other.
    pub fn ask(&self) -> Keeper<'_> {
        Keeper { set: self, path: Vec::new(), levels: Vec::new() }
    }

    /// Whether one of the globs matches this very path.
    fn matches(&self, path: &Path) -> bool {
        let below_home =
            |home: &PathBuf| path.strip_prefix(home).is_ok_and(|below| self.in_homes.is_match(below));
        (!self.absolute.is_empty() && self.absolute.is_match(path))
            || (!self.in_homes.is_empty() && self.homes.iter().any(below_home))
    }
}

/// Answers about a path and the folders that lead to it. It remembers those of the last path, so that in a sorted list
/// each folder is looked at once: a guest may nest them by the thousand.
#[derive(Debug)]
pub struct Keeper<'a> {
    set: &'a KeepSet,
    path: Vec<u8>,
    /// Where in `path` each of its folders ends, and whether that one stays.
    levels: Vec<(usize, bool)>,
}

impl Keeper<'_> {
    /// Whether this path, or a folder that leads to it, stays.
    pub fn keeps(&mut self, path: &Path) -> bool {
        if self.set.is_empty() {
            return false;
        }
        let bytes = path.as_os_str().as_bytes();
        let same = self.path.iter().zip(bytes).take_while(|(one, other)| one == other).count();
        let is_level = |end: usize| end == bytes.len() || bytes.get(end) == Some(&b'/');
        while self.levels.last().is_some_and(|(end, _)| *end > same || !is_level(*end)) {
            self.levels.pop();
        }
        self.path.clear();
        self.path.extend(bytes);
        let known = self.levels.last().map_or(0, |(end, _)| *end);
        let ends = (known + 1..=bytes.len()).filter(|end| is_level(*end));
        for end in ends {
            let above = self.levels.last().is_some_and(|(_, kept)| *kept);
            let kept = above || self.set.matches(Path::new(OsStr::from_bytes(&bytes[..end])));
            self.levels.push((end, kept));
        }
        self.levels.last().is_some_and(|(_, kept)| *kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_expand_also_across_slashes_and_nested() {
        assert_eq!(expand_braces("{a,b/{c,d}}/e").unwrap(), ["a/e", "b/c/e", "b/d/e"]);
        assert_eq!(expand_braces("x{,.old}").unwrap(), ["x", "x.old"]);
        assert!(expand_braces("{a").is_err() && expand_braces("a}").is_err());
    }

    #[test]
    fn braces_do_not_fill_the_memory() {
        assert_eq!(Pattern::parse(&format!("/x{}", "{a,b}".repeat(8))).unwrap().alternatives.len(), 256);
        for many in ["{a,b}".repeat(40), "{a}".repeat(1300), "{".repeat(4000), "a".repeat(5000)] {
            assert!(Pattern::parse(&format!("/x{many}")).is_err());
        }
    }

    #[test]
    fn an_error_shows_no_control_characters() {
        for wrong in ["/x/[\r\u{1b}", "/x/[A-\u{e}]"] {
            let error = Pattern::parse(wrong).unwrap_err().chain();
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn a_glob_cannot_climb_or_be_relative() {
        for bad in ["etc/x", "/etc/../x", "/etc//x", "/a/**b", "~x/y", "/[a", "/a\0b"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn double_star_matches_any_depth() {
        let steps = |text: &str| Pattern::parse(text).unwrap().alternatives.remove(0);
        assert!(ends_with(Path::new("a/b/c.log"), &steps("/*.log")));
        assert!(ends_with(Path::new("c.log"), &steps("/*.log")));
        assert!(!ends_with(Path::new("c.log/x"), &steps("/*.log")));
        assert!(ends_with(Path::new("a/x/y/z"), &steps("/x/**/z")));
    }
}
