//! How far a job of libvirt has come, by what `virsh domjobinfo` prints in the C locale: pure.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes done.
    pub(super) done: u64,
    /// Bytes in all; 0 while nobody knows.
    pub(super) total: u64,
}

/// Reads what is printed of the job that goes on; none when there is none.
///
/// # Errors
/// When it does not say what kind of job it is.
pub(super) fn parse(text: &str) -> Result<Option<Progress>> {
    let bytes = |name| value(text, name).and_then(bytes).unwrap_or(0);
    match kind(text)? {
        "None" | "Completed" | "Failed" | "Cancelled" => Ok(None),
        _ => Ok(Some(Progress { done: bytes("File processed"), total: bytes("File total") })),
    }
}

/// Judges what is printed of a job that has ended.
///
/// # Errors
/// When it did not succeed, with the reason where there is one.
pub(super) fn succeeded(text: &str) -> Result<()> {
    let kind = kind(text)?;
    if kind == "Completed" {
        return Ok(());
    }
    let reason = value(text, "Error message").map(|reason| format!(": {reason}")).unwrap_or_default();
    Err(Error::failed(format!("the copy of the running guest's disk ended as {kind:?}{reason}"))
        .hint("see to it that there is room for it where --output is, and that the guest goes on running"))
}

fn kind(text: &str) -> Result<&str> {
    value(text, "Job type")
        .ok_or_else(|| Error::failed("virsh domjobinfo does not say what the job is doing"))
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = lines.filter(|(key, _)| *key == name).map(|(_, value)| value.trim());
    values.next().filter(|value| !value.is_empty())
}

/// A number of bytes as virsh prints it: `43.000 MiB`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float is cut to what an integer holds, and how far a copy has come is no exact number"
)]
fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = text.split_once(' ')?;
    let power = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].iter().position(|known| *known == unit)?;
    let number: f64 = number.parse().ok()?;
    Some((number * 1024_f64.powi(i32::try_from(power).ok()?)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_read() {
        let text = "Job type:         Unbounded   \nOperation:        Backup      \nTime elapsed:     98           ms\n\
                    File processed:   43.000 MiB\nFile remaining:   21.000 MiB\nFile total:       1.500 GiB\n\n";
        assert_eq!(parse(text).unwrap(), Some(Progress { done: 43 << 20, total: 3 << 29 }));
        assert_eq!(parse("Job type:         None\n").unwrap(), None);
        assert!(parse("").is_err());
        succeeded("Job type:         Completed\n").unwrap();
        let failed = "Job type:         Failed\nError message:    No space left on device\n";
        assert!(succeeded(failed).unwrap_err().chain().contains("No space left"));
        assert!(succeeded("Job type:         Cancelled\n").is_err() && succeeded("").is_err());
        assert_eq!((bytes("0.000 B"), bytes("x MiB"), bytes("1 furlong")), (Some(0), None, None));
    }
}
