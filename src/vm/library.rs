//! The libraries that a program of this host needs, as its own loader finds them (ld.so(8), `--list`).

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};

use super::elf::Elf;
use crate::error::{Context, Error, Result};
use crate::sys::child::Spawn;

const ANSWER_LIMIT: u64 = 1 << 20;

/// A file with all that has to lie beside it, each at its own path.
#[derive(Debug)]
pub struct Program {
    /// Its bytes, without what is never loaded. A script stays as it is.
    pub bytes: Vec<u8>,
    /// Its libraries and its loader.
    pub libraries: Vec<PathBuf>,
}

impl Program {
    /// Reads the program or library at `path`; `loader` is asked about a library, which names none itself.
    ///
    /// # Errors
    /// When it cannot be read, or one of its libraries is missing.
    pub fn read(path: &Path, loader: Option<&Path>) -> Result<Self> {
        let bytes = fs::read(path).context(|| format!("cannot read {}", path.display()))?;
        let Some(elf) = Elf::new(&bytes) else { return Ok(Self { bytes, libraries: Vec::new() }) };
        let own = elf.loader();
        let libraries = match own.as_deref().or(loader) {
            Some(loader) => list(loader, path)?,
            None => Vec::new(),
        };
        Ok(Self { bytes: elf.stripped(), libraries })
    }
}

fn list(loader: &Path, path: &Path) -> Result<Vec<PathBuf>> {
    let (exit, answer) = Spawn::new(loader).arg("--list").arg(path).output(ANSWER_LIMIT)?;
    let failed = || format!("cannot find the libraries of {}", path.display());
    exit.success().map_err(|error| error.within(failed()))?;
    let mut libraries =
        parse_list(&String::from_utf8_lossy(&answer)).map_err(|error| error.within(failed()))?;
    if !libraries.iter().any(|library| library == loader) {
        libraries.push(loader.to_path_buf());
    }
    Ok(libraries.into_iter().map(without_variant).collect())
}

/// The paths in what a loader prints: `NAME => PATH (ADDRESS)`, and the loader's own `PATH (ADDRESS)`.
///
/// # Errors
/// When a library was not found.
pub fn parse_list(text: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for line in text.lines().map(str::trim) {
        let found = line.split_once(" => ").map_or(line, |(_, found)| found);
        if found.starts_with("not found") {
            return Err(Error::failed(format!("a library is missing: {line}")));
        }
        let path = found.rsplit_once(" (").map_or(found, |(path, _)| path);
        if path.starts_with('/') {
            paths.push(PathBuf::from(path));
        }
    }
    Ok(paths)
}

/// The plain build of a library where the loader took one for this host's processor, which the machine may not have.
fn without_variant(path: PathBuf) -> PathBuf {
    let mut parts: Vec<_> = path.components().collect();
    let Some(place) = parts.iter().position(|part| part.as_os_str() == "glibc-hwcaps") else { return path };
    if place + 2 < parts.len() {
        parts.drain(place..place + 2);
    }
    let plain: PathBuf = parts.into_iter().collect();
    if plain.is_file() { plain } else { path }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_read_as_loaders_print_them() {
        let text = "\tlinux-vdso.so.1 (0x00007f4fbc1d5000)\n\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f4fbb963000)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f4fbc1d7000)\n";
        assert_eq!(
            parse_list(text).unwrap(),
            ["/lib/x86_64-linux-gnu/libm.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from)
        );
        assert!(parse_list("\tstatically linked\n").unwrap().is_empty());
        let error = parse_list("\tlibgone.so.1 => not found\n").unwrap_err();
        assert!(error.chain().contains("libgone.so.1"), "{error:?}");
    }

    #[test]
    fn this_test_has_libraries() {
        let program = Program::read(&std::env::current_exe().unwrap(), None).unwrap();
        assert!(program.libraries.iter().any(|path| path.to_string_lossy().contains("libc.so")));
        assert!(program.libraries.iter().all(|path| path.is_file()));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[a-z=>/ (\n\t]{0,120}") {
            for path in parse_list(&text).unwrap_or_default() {
                prop_assert!(path.is_absolute());
            }
        }
    }
}
