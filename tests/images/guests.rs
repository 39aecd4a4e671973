//! The guests that scripts/make-guest makes and keeps, and the secrets planted in them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::tool;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/make-guest")
}

/// A guest's image, which nobody writes, and its secrets.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) image: PathBuf,
    pub(crate) canaries: Vec<Canary>,
}

/// A secret planted in a guest.
#[derive(Debug)]
pub(crate) struct Canary {
    pub(crate) marker: String,
    pub(crate) kind: String,
    /// Whether sealing by default removes it.
    pub(crate) by_default: bool,
    /// None for what is in no file.
    pub(crate) path: Option<String>,
}

/// The guest of this variant; made when it is not there yet, which takes up to a minute.
pub(crate) fn guest(variant: &str) -> Guest {
    let image = PathBuf::from(tool(script().to_str().unwrap(), [variant]).trim());
    let list = fs::read_to_string(image.with_extension("canaries")).unwrap();
    let canaries: Vec<_> = list.lines().map(canary).collect();
    assert!(canaries.len() > 100, "{variant} has hardly any secrets");
    Guest { image, canaries }
}

fn canary(line: &str) -> Canary {
    let fields: Vec<&str> = line.split('\t').collect();
    let [marker, kind, class, path] = fields[..] else { panic!("bad line in a list of canaries: {line}") };
    assert!(["default", "optional"].contains(&class), "{line}");
    Canary {
        marker: marker.into(),
        kind: kind.into(),
        by_default: class == "default",
        path: (path != "-").then(|| path.to_owned()),
    }
}

/// The files of a hand-made distribution, in a new folder.
pub(crate) fn tree(name: &str, folder: &Path) -> PathBuf {
    let root = folder.join("tree");
    tool(
        script().to_str().unwrap(),
        [name, root.to_str().unwrap()].iter().fold(vec!["tree"], |mut all, arg| {
            all.push(arg);
            all
        }),
    );
    root
}
