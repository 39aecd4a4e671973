//! The record of a guest with several disks: which of its subjects each image should be.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::{SealRecord, Subject};
use crate::error::{Error, Result};

/// Reads the record of a guest: it is beside the seat of the first disk, which need not be named first here.
///
/// # Errors
/// As [`super::load`].
pub fn load(seats: &[&Path]) -> Result<SealRecord> {
    let seat = seats.iter().find(|seat| super::path_of(seat).exists()).or(seats.first());
    seat.map_or_else(|| Err(Error::usage("no image is named")), |seat| super::load(seat))
}

/// Which subject each image should be: by name where the names tell that, else by their order.
///
/// # Errors
/// A usage error when there are more or fewer; it says which are missing.
pub fn matched<'a>(images: &[PathBuf], subjects: &'a [Subject]) -> Result<Vec<&'a Subject>> {
    if images.len() != subjects.len() {
        return Err(other_number(images, subjects));
    }
    let of = |image: &PathBuf| subjects.iter().position(|subject| has_name(image, subject));
    let mut by_name: Vec<usize> = images.iter().filter_map(of).collect();
    let order = by_name.clone();
    by_name.sort_unstable();
    by_name.dedup();
    Ok(match by_name.len() == subjects.len() {
        true => order.into_iter().map(|index| &subjects[index]).collect(),
        false => subjects.iter().collect(),
    })
}

fn other_number(images: &[PathBuf], subjects: &[Subject]) -> Error {
    let names = |subjects: &mut dyn Iterator<Item = &Subject>| {
        subjects.map(|subject| subject.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let all = names(&mut subjects.iter());
    let number =
        if subjects.len() == 1 { "one disk".to_owned() } else { format!("{} disks", subjects.len()) };
    let mut what = format!("the record is of a guest with {number}, {all}");
    let mut missing =
        subjects.iter().filter(|subject| !images.iter().any(|image| has_name(image, subject))).peekable();
    if missing.peek().is_some() {
        what = format!("{what}: {} is missing", names(&mut missing));
    }
    Error::usage(what).hint("name all its disks and no others: guestseal verify -a FIRST -a SECOND")
}

fn has_name(image: &Path, subject: &Subject) -> bool {
    image.file_name().is_some_and(|name| name.to_string_lossy() == subject.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(names: &[&str]) -> Vec<Subject> {
        let subject = |name: &&str| Subject { name: (*name).to_owned(), digest: [].into() };
        names.iter().map(subject).collect()
    }

    fn order(images: &[&str], names: &[&str]) -> Vec<String> {
        let images: Vec<PathBuf> = images.iter().map(PathBuf::from).collect();
        let subjects = subjects(names);
        matched(&images, &subjects).unwrap().into_iter().map(|subject| subject.name.clone()).collect()
    }

    #[test]
    fn names_tell_before_order_does() {
        assert_eq!(order(&["/x/b", "/y/a"], &["a", "b"]), ["b", "a"]);
        assert_eq!(order(&["new1", "new2"], &["a", "b"]), ["a", "b"]);
        assert_eq!(order(&["b", "new"], &["a", "b"]), ["a", "b"]);
        assert_eq!(order(&["1/disk", "2/disk"], &["disk", "disk"]), ["disk", "disk"]);
        assert_eq!(order(&["renamed"], &["a"]), ["a"]);
    }

    #[test]
    fn what_is_missing_is_said() {
        let wrong = |images: &[&str], names: &[&str]| {
            let images: Vec<PathBuf> = images.iter().map(PathBuf::from).collect();
            matched(&images, &subjects(names)).unwrap_err().chain()
        };
        assert!(wrong(&["a"], &["a", "b"]).contains("a guest with 2 disks, a, b: b is missing"));
        assert!(wrong(&["a", "b"], &["a"]).ends_with("a guest with one disk, a"));
    }
}
