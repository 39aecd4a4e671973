//! Which SELinux label a file of the guest is to have, by the guest's own policy: file_contexts(5), and what
//! selabel_file(5) says of its order. Whatever is made anew in a guest needs one, or its services may not read it, and a
//! relabelling of all files at the next boot takes minutes.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::fcntl::OFlag;
use regex::Regex;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::flags::with_attributes_lifted;
use super::path_serde;
use super::{FileKind, GuestRoot};
use crate::error::{Context, Result};

/// The extended attribute that holds a label.
pub(super) const ATTRIBUTE: &str = "security.selinux";
/// Beginning of the lines that say that a file has no label.
const NONE: &str = "<<none>>";
/// The longest label, in bytes; those of policies have fewer than a hundred.
const LABEL_MAX: usize = 4096;
/// Compiled, an expression may take so much memory, in bytes: those of real policies take a hundredth.
const EXPRESSION_LIMIT: usize = 1 << 20;

/// The labels of a policy.
#[derive(Debug, Default)]
pub(super) struct Labels {
    /// By rising precedence.
    specifications: Vec<Specification>,
    /// What stands for other folders, which alone are named above.
    aliases: Vec<(String, String)>,
}

/// A link that was made or moved, and the label that it is to have. The confined worker can label what it can open, and a
/// link is not opened: the calls that take a path are shut to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkLabel {
    #[serde(with = "path_serde")]
    path: PathBuf,
    label: Vec<u8>,
}

#[derive(Debug)]
struct Specification {
    expression: String,
    /// What every path that it matches begins with.
    stem: String,
    kind: Option<FileKind>,
    label: Option<String>,
    /// The expression, once it is asked for; none where it cannot be compiled.
    compiled: OnceLock<Option<Regex>>,
}

impl Labels {
    /// Reads the texts of a policy's files by rising precedence, and those of its aliases. Lines that make no sense are
    /// passed over, as libselinux does.
    pub(super) fn parse<'a>(
        contexts: impl IntoIterator<Item = &'a str>,
        aliases: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let lines = contexts.into_iter().flat_map(str::lines);
        let mut specifications: Vec<_> = lines.filter_map(specification).collect();
        // What names one file counts for more than an expression, wherever it stands.
        specifications.sort_by_key(|one| is_plain(&one.expression));
        let aliases = aliases.into_iter().flat_map(str::lines).filter_map(|line| {
            let mut words = line.split_whitespace();
            let (from, to) = (words.next()?, words.next()?);
            from.starts_with('/').then(|| (from.to_owned(), to.to_owned()))
        });
        Self { specifications, aliases: aliases.collect() }
    }

    /// The label of a file of this kind; none where the policy has no word on it, or says that it has none.
    pub(super) fn of(&self, path: &str, kind: FileKind) -> Option<&str> {
        let real = self.aliases.iter().find_map(|(from, to)| {
            let rest = path.strip_prefix(from.as_str())?;
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("{to}{rest}"))
        });
        let path = real.as_deref().unwrap_or(path);
        let mut matching = self.specifications.iter().rev().filter(|one| one.matches(path, kind));
        matching.next()?.label.as_deref()
    }
}

impl Specification {
    fn matches(&self, path: &str, kind: FileKind) -> bool {
        if self.kind.is_some_and(|wanted| wanted != kind) || !path.starts_with(&self.stem) {
            return false;
        }
        let compile = || {
            let whole = format!("^(?:{})$", self.expression);
            regex::RegexBuilder::new(&whole).size_limit(EXPRESSION_LIMIT).build().ok()
        };
        self.compiled.get_or_init(compile).as_ref().is_some_and(|expression| expression.is_match(path))
    }
}

/// Reads `EXPRESSION [-KIND] LABEL`.
fn specification(line: &str) -> Option<Specification> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (expression, kind, label) = match words[..] {
        [first, ..] if first.starts_with('#') => return None,
        [expression, label] => (expression, None, label),
        [expression, kind, label] => (expression, Some(kind_of(kind)?), label),
        _ => return None,
    };
    let label = (label != NONE).then(|| label.to_owned());
    let (stem, expression) = (stem(expression), expression.to_owned());
    Some(Specification { expression, stem, kind, label, compiled: OnceLock::new() })
}

fn kind_of(word: &str) -> Option<FileKind> {
    match word {
        "--" => Some(FileKind::File),
        "-d" => Some(FileKind::Folder),
        "-l" => Some(FileKind::Link),
        "-b" | "-c" | "-p" | "-s" => Some(FileKind::Special),
        _ => None,
    }
}

fn is_sign(sign: char) -> bool {
    ".^$?*+|[({".contains(sign)
}

fn is_plain(expression: &str) -> bool {
    let mut signs = expression.chars();
    while let Some(sign) = signs.next() {
        match sign {
            '\\' => drop(signs.next()),
            sign if is_sign(sign) => return false,
            _ => {}
        }
    }
    true
}

/// The letters before the first sign of an expression, but for one that the sign makes optional.
fn stem(expression: &str) -> String {
    let end = expression.find(|sign| is_sign(sign) || sign == '\\').unwrap_or(expression.len());
    let mut stem = expression[..end].to_owned();
    if expression[end..].starts_with(['?', '*', '{']) {
        stem.pop();
    }
    if has_alternatives(expression) { String::new() } else { stem }
}

/// Whether one of several expressions is to match, which may begin with anything.
fn has_alternatives(expression: &str) -> bool {
    let (mut depth, mut signs) = (0_u32, expression.chars());
    while let Some(sign) = signs.next() {
        match sign {
            '\\' => drop(signs.next()),
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => return true,
            _ => {}
        }
    }
    false
}

impl GuestRoot {
    /// What a file of this kind at this real path is labelled with in a guest with SELinux: the attribute's value.
    pub(super) fn label_of(&self, path: &Path, kind: FileKind) -> Result<Option<Vec<u8>>> {
        let labels = match self.labels.get() {
            Some(labels) => labels,
            None => {
                let read = self.read_labels()?;
                self.labels.get_or_init(|| read)
            }
        };
        let label = labels.as_ref().zip(path.to_str()).and_then(|(labels, path)| labels.of(path, kind));
        Ok(label.map(|label| format!("{label}\0").into_bytes()))
    }

    /// The links that were made since this was last asked.
    pub fn take_links_to_label(&self) -> Vec<LinkLabel> {
        self.links.lock().map(|mut links| std::mem::take(&mut *links)).unwrap_or_default()
    }

    pub(super) fn keep_link_to_label(&self, path: &Path, label: Vec<u8>) {
        if let Ok(mut links) = self.links.lock() {
            links.push(LinkLabel { path: path.to_path_buf(), label });
        }
    }

    /// Labels a link of the guest, on the word of a worker that is not trusted: it must be a link within the guest, and
    /// what is set is SELinux's label alone. A link that went meanwhile is none to label.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn label_link(&self, link: &LinkLabel) -> Result<()> {
        let LinkLabel { path, label } = link;
        let failed = || format!("cannot label the link {} in the guest", path.display());
        let Some(file) = self.open_existing(path, OFlag::O_PATH | OFlag::O_NOFOLLOW)? else { return Ok(()) };
        if Self::entry_of(path, &file)?.kind != FileKind::Link || label.len() > LABEL_MAX {
            return Ok(());
        }
        // By the open file: the door leads to the link itself, wherever its target is.
        let door = format!("/proc/self/fd/{}", file.as_raw_fd());
        match rustix::fs::setxattr(door, ATTRIBUTE, label, XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP) => Ok(()),
            set => set.context(failed),
        }
    }

    /// What was moved from `old` gets the label of its new place where it had that of its old one. What somebody labelled
    /// otherwise stays so.
    pub(super) fn relabel_moved(&self, old: &Path, new: &Path) -> Result<()> {
        let Some(top) = self.lookup(new)? else { return Ok(()) };
        self.relabel_one(old, new, top.kind)?;
        if top.kind != FileKind::Folder || self.label_of(new, top.kind)?.is_none() {
            return Ok(());
        }
        self.walk(new, |item| {
            let (old, new) = (old.join(item.below), new.join(item.below));
            let kind = if item.kind.is_dir() {
                FileKind::Folder
            } else if item.kind.is_file() {
                FileKind::File
            } else if item.kind.is_symlink() {
                FileKind::Link
            } else {
                FileKind::Special
            };
            self.relabel_one(&old, &new, kind)
        })
    }

    fn relabel_one(&self, old: &Path, new: &Path, kind: FileKind) -> Result<()> {
        let (Some(before), Some(label)) = (self.label_of(old, kind)?, self.label_of(new, kind)?) else {
            return Ok(());
        };
        match kind {
            FileKind::Link => self.keep_link_to_label(new, label),
            FileKind::File | FileKind::Folder if before != label => {
                let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
                let Some(file) = self.open_existing(new, flags)? else { return Ok(()) };
                let failed = || format!("cannot label {} in the guest", new.display());
                if label_on(&file).context(failed)?.as_ref() == Some(&before) {
                    let set =
                        || set(&file, &label).map_err(|errno| nix::Error::from_raw(errno.raw_os_error()));
                    with_attributes_lifted(&[&file], set).context(failed)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The labels of the policy that is configured; none in a guest without.
    fn read_labels(&self) -> Result<Option<Labels>> {
        let text = |path: &str| {
            let bytes = self.read(Path::new(path))?;
            Ok::<_, crate::Error>(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
        };
        let Some(config) = text("/etc/selinux/config")? else { return Ok(None) };
        let policy = config.lines().find_map(|line| line.trim().strip_prefix("SELINUXTYPE="));
        let Some(policy) = policy.map(str::trim).filter(|policy| !policy.contains('/')) else {
            return Ok(None);
        };
        let base = format!("/etc/selinux/{policy}/contexts/files/file_contexts");
        let Some(first) = text(&base)? else { return Ok(None) };
        let more = |ends: [&str; 2]| -> Result<Vec<String>> {
            let texts = ends.into_iter().map(|end| text(&format!("{base}.{end}")));
            Ok(texts.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
        };
        let (others, aliases) = (more(["homedirs", "local"])?, more(["subs", "subs_dist"])?);
        let contexts = std::iter::once(&first).chain(&others).map(String::as_str);
        Ok(Some(Labels::parse(contexts, aliases.iter().map(String::as_str))))
    }
}

/// The label that an open file has; none where it has none, or its filesystem knows of none.
fn label_on(file: &OwnedFd) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut label = [0; LABEL_MAX];
    match rustix::fs::fgetxattr(file, ATTRIBUTE, &mut label) {
        Ok(length) => Ok(Some(label[..length].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn set(file: impl AsFd, label: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::fsetxattr(file, ATTRIBUTE, label, XattrFlags::empty())
}

/// The label of what is new in this folder: as the policy says, or else like the folder. A guest whose folder has no label
/// has none, or gets them all at its next boot.
pub(super) fn of_new(folder: &OwnedFd, policy: Option<Vec<u8>>) -> rustix::io::Result<Option<Vec<u8>>> {
    Ok(label_on(folder)?.map(|like| policy.unwrap_or(like)))
}

/// Gives an open file this label, if any.
pub(super) fn put(file: impl AsFd, label: Option<&[u8]>) -> rustix::io::Result<()> {
    label.map_or(Ok(()), |label| set(file, label))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONTEXTS: &str = "# a comment\n\
        /.*\tsystem_u:object_r:default_t:s0\n\
        /etc/.*\tsystem_u:object_r:etc_t:s0\n\
        /etc/localtime\t-l\tsystem_u:object_r:locale_t:s0\n\
        /etc/shadow.*\t--\tsystem_u:object_r:shadow_t:s0\n\
        /etc/[^/]*\\.conf\t--\tsystem_u:object_r:conf_t:s0\n\
        /root(/.*)?\tsystem_u:object_r:admin_home_t:s0\n\
        /(usr/)?lib/systemd(/.*)?\tsystem_u:object_r:unit_t:s0\n\
        /proc/.*\t<<none>>\n\
        /etc/plain\\.file\tsystem_u:object_r:plain_t:s0\n\
        /a|/b\tsystem_u:object_r:either_t:s0\n\
        /odd(\tsystem_u:object_r:odd_t:s0\n";

    fn label(path: &str, kind: FileKind) -> Option<&'static str> {
        static LABELS: std::sync::LazyLock<Labels> =
            std::sync::LazyLock::new(|| Labels::parse([CONTEXTS], ["/var/roothome /root\n"]));
        LABELS.of(path, kind)?.split(':').nth(2)
    }

    #[test]
    fn the_last_that_matches_counts_and_plain_names_before_all() {
        for (path, kind, wanted) in [
            ("/etc/x", FileKind::File, Some("etc_t")),
            ("/etc/shadow-", FileKind::File, Some("shadow_t")),
            ("/etc/shadow", FileKind::Folder, Some("etc_t")),
            ("/etc/localtime", FileKind::Link, Some("locale_t")),
            ("/etc/localtime", FileKind::File, Some("etc_t")),
            ("/etc/a.conf", FileKind::File, Some("conf_t")),
            ("/etc/plain.file", FileKind::File, Some("plain_t")),
            ("/etc/plainxfile", FileKind::File, Some("etc_t")),
            ("/root", FileKind::Folder, Some("admin_home_t")),
            ("/rooted", FileKind::Folder, Some("default_t")),
            ("/var/roothome/x", FileKind::File, Some("admin_home_t")),
            ("/usr/lib/systemd/system/x", FileKind::File, Some("unit_t")),
            ("/lib/systemd", FileKind::Folder, Some("unit_t")),
            ("/b", FileKind::File, Some("either_t")),
            ("/proc/1", FileKind::File, None),
            ("no/path", FileKind::File, None),
        ] {
            assert_eq!(label(path, kind), wanted, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}", path in "/\\PC{0,20}") {
            let _ = Labels::parse([text.as_str()], [text.as_str()]).of(&path, FileKind::File);
        }

        #[test]
        fn the_stem_is_what_all_matches_begin_with(
            expression in "/[ab]{0,2}(\\.\\*|[?*|]|\\(/\\.\\*\\)\\?|\\\\\\.|[ab]){0,3}", path in "/[ab./]{0,5}",
        ) {
            let whole = Regex::new(&format!("^(?:{expression})$"));
            if whole.is_ok_and(|whole| whole.is_match(&path)) {
                prop_assert!(path.starts_with(&stem(&expression)), "{expression} {path}");
            }
        }
    }
}
