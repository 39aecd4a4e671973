//! The fuzz targets are listed in several places, which must agree: cargo-fuzz reads the manifest, scripts/fuzz the list
//! in fuzz/src/lib.rs.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The kept inputs are part of the repository: many, but small.
const CORPUS_MOST: u64 = 1 << 20;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(folder: &str) -> BTreeSet<String> {
    let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    fs::read_dir(fuzz().join(folder)).unwrap().map(|entry| stem(entry.unwrap().path())).collect()
}

/// What stands between `before` and the next quote, in each line of a file that has it.
fn quoted(file: &str, before: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(fuzz().join(file)).unwrap();
    let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix(before));
    lines.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

#[test]
fn every_target_has_its_program_and_its_inputs() {
    let listed = quoted("src/lib.rs", "(\"");
    assert!(listed.len() >= 16, "only {listed:?} were found");
    let mut programs = names("fuzz_targets");
    assert!(programs.remove("all"));
    assert_eq!(programs, listed);
    let mut manifest = quoted("Cargo.toml", "name = \"");
    assert!(manifest.remove("all") && manifest.remove("guestseal-fuzz"));
    assert_eq!(manifest, listed);
    assert_eq!(names("corpus"), listed);
    let documentation = fs::read_to_string(fuzz().join("../docs/fuzzing.md")).unwrap();
    for target in &listed {
        assert!(documentation.contains(&format!("| `{target}` |")), "docs/fuzzing.md lacks {target}");
    }
}

#[test]
fn the_kept_inputs_are_small() {
    let files: Vec<_> = walkdir::WalkDir::new(fuzz().join("corpus"))
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .collect();
    let bytes: u64 = files.iter().map(|entry| entry.metadata().unwrap().len()).sum();
    assert!(files.len() > 100, "only {} inputs", files.len());
    assert!(bytes < CORPUS_MOST, "{} inputs of {bytes} bytes", files.len());
}
