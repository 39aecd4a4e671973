//! All operations by name: those built in, and those of directories that add to them or replace one.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, ErrorKind, Result};
use crate::similar::nearest;

use super::load::parse;
use super::schema::Operation;

/// The directory of operations that the administrator of this host added.
pub const SYSTEM_DIR: &str = "/etc/guestseal/operations.d";

/// All operations that can be selected.
#[derive(Debug, Clone)]
pub struct Catalogue {
    operations: BTreeMap<String, Operation>,
}

impl Catalogue {
    /// Reads the built-in files, as (name, text), then the `*.toml` files of each directory. An operation of a later
    /// directory replaces an earlier one of the same name.
    ///
    /// # Errors
    ///
    /// A usage error for a bad file, a directory that cannot be read, a name given twice in one directory, and for an
    /// operation that includes one which does not exist or itself includes others.
    pub fn load(builtin: &[(&str, &str)], dirs: &[PathBuf]) -> Result<Self> {
        let mut operations = BTreeMap::new();
        for (name, text) in builtin {
            let operation = parse(text, &format!("{name}.toml (built in)"))?;
            operations.insert(operation.name.clone(), operation);
        }
        for dir in dirs {
            operations.extend(read_dir(dir)?);
        }
        let catalogue = Self { operations };
        catalogue.sorted().into_iter().try_for_each(|operation| catalogue.check_includes(operation))?;
        Ok(catalogue)
    }

    /// The operation of this name.
    ///
    /// # Errors
    ///
    /// A usage error that suggests the most similar name.
    pub fn get(&self, name: &str) -> Result<&Operation> {
        self.operations.get(name).ok_or_else(|| {
            let near = nearest(name, self.operations.keys().map(String::as_str));
            let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
            Error::usage(format!("unknown operation `{name}`"))
                .hint(format!("{near}`guestseal operations list` shows them all"))
        })
    }

    /// All operations in the order in which they run: by `order`, then by name.
    pub fn sorted(&self) -> Vec<&Operation> {
        let mut sorted: Vec<&Operation> = self.operations.values().collect();
        sorted.sort_by_key(|operation| (operation.order, operation.name.as_str()));
        sorted
    }

    /// The operations for which this one stands: those it includes, or only itself.
    pub(super) fn leaves<'a>(&'a self, operation: &'a Operation) -> Vec<&'a Operation> {
        if operation.includes.is_empty() {
            return vec![operation];
        }
        operation.includes.iter().filter_map(|name| self.operations.get(name)).collect()
    }

    fn check_includes(&self, operation: &Operation) -> Result<()> {
        for name in &operation.includes {
            let included = self.get(name).context_kind(ErrorKind::Usage, || {
                format!("operation `{}` includes an operation that does not exist", operation.name)
            })?;
            if !included.includes.is_empty() {
                let what =
                    format!("operation `{}` includes `{name}`, which includes others itself", operation.name);
                return Err(Error::usage(what).hint("name the operations that do the work"));
            }
        }
        Ok(())
    }
}

fn read_dir(dir: &Path) -> Result<BTreeMap<String, Operation>> {
    let unreadable = || format!("cannot read the operations directory {}", dir.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).context_kind(ErrorKind::Usage, unreadable)? {
        let path = entry.context_kind(ErrorKind::Usage, unreadable)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut operations: BTreeMap<String, Operation> = BTreeMap::new();
    for path in paths {
        let origin = path.display().to_string();
        let text =
            fs::read_to_string(&path).context_kind(ErrorKind::Usage, || format!("cannot read {origin}"))?;
        let operation = parse(&text, &origin)?;
        if operations.contains_key(&operation.name) {
            let what =
                format!("operation `{}` stands in more than one file of {}", operation.name, dir.display());
            return Err(Error::usage(what).hint(format!("the second file is {origin}")));
        }
        operations.insert(operation.name.clone(), operation);
    }
    Ok(operations)
}

#[cfg(test)]
mod tests {
    use super::super::BUILTIN;
    use super::*;

    fn file(name: &str, rest: &str) -> String {
        format!("name = \"{name}\"\nsummary = \"s\"\nreason = \"r\"\ndefault = true\n{rest}")
    }

    fn acting(name: &str) -> String {
        file(name, "[[action]]\n[action.remove]\npaths = [\"/x/a\"]\n")
    }

    fn dir(files: &[(&str, String)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for (name, text) in files {
            fs::write(dir.path().join(name), text).expect("a file");
        }
        dir
    }

    #[test]
    fn later_directories_add_and_replace() {
        let first = dir(&[
            ("a.toml", acting("a")),
            ("b.toml", acting("b")),
            (".c.toml", "no".into()),
            ("d", "no".into()),
        ]);
        let second = dir(&[("z.toml", acting("b").replace("\"s\"", "\"new\""))]);
        let builtin = [("k", acting("k"))];
        let builtin: Vec<(&str, &str)> = builtin.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let catalogue = Catalogue::load(&builtin, &[first.path().into(), second.path().into()])
            .expect("a good catalogue");
        let names: Vec<&str> = catalogue.sorted().iter().map(|operation| operation.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "k"]);
        assert_eq!(catalogue.get("b").expect("b").summary, "new");
    }

    #[test]
    fn what_is_wrong_in_a_directory_is_a_usage_error() {
        let cases = [
            (dir(&[("a.toml", acting("a")), ("b.toml", acting("a"))]), "stands in more than one file"),
            (dir(&[("a.toml", "name = 1".into())]), "a.toml"),
            (dir(&[("a.toml", file("a", "includes = [\"nothing\"]\n"))]), "does not exist"),
            (
                dir(&[
                    ("a.toml", file("a", "includes = [\"b\"]\n")),
                    ("b.toml", file("b", "includes = [\"c\"]\n")),
                    ("c.toml", acting("c")),
                ]),
                "includes others itself",
            ),
        ];
        for (dir, reason) in cases {
            let error = Catalogue::load(&[], &[dir.path().into()]).expect_err(reason);
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.chain().contains(reason), "{}", error.chain());
        }
        let error = Catalogue::load(&[], &["/nonexistent".into()]).expect_err("no directory");
        assert_eq!(error.kind(), ErrorKind::Usage);
    }

    #[test]
    fn a_mistyped_name_brings_the_nearest_one() {
        let catalogue = Catalogue::load(BUILTIN, &[]).expect("the built-in operations");
        let error = catalogue.get("ssh-hostkey").expect_err("no such operation");
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.what_to_do().is_some_and(|hint| hint.contains("`ssh-hostkeys`")), "{error:?}");
        let error = catalogue.get("qqqqqqqq").expect_err("no such operation");
        assert!(error.what_to_do().is_some_and(|hint| !hint.contains("did you mean")));
    }

    #[test]
    fn operations_run_by_order_then_by_name() {
        let catalogue = Catalogue::load(BUILTIN, &[]).expect("the built-in operations");
        let orders: Vec<(i32, &str)> =
            catalogue.sorted().iter().map(|operation| (operation.order, operation.name.as_str())).collect();
        assert!(orders.is_sorted());
        assert_eq!(orders.last().map(|(_, name)| *name), Some("machine-id"));
    }
}
