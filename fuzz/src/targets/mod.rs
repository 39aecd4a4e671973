//! The targets, one file for each kind of input.

pub(crate) mod accounts;
pub(crate) mod domain;
pub(crate) mod fstab;
pub(crate) mod glob;
pub(crate) mod image;
pub(crate) mod journal;
pub(crate) mod nbd;
pub(crate) mod operation;
pub(crate) mod os_release;
pub(crate) mod qcow2;
pub(crate) mod record;
pub(crate) mod selector;
pub(crate) mod steps;
pub(crate) mod tables;
pub(crate) mod worker;

/// What an error shows is for a person at a terminal: not long, and guestseal's own words have no control characters.
/// Those of a cause may: serde quotes unknown keys as they are, and src/cli/print.rs masks them.
pub(crate) fn check_error(error: &guestseal::Error) {
    let all = format!("{error:?}");
    assert!(all.len() <= 20_000, "an error of {} bytes", all.len());
    let shown = format!("{error} {}", error.what_to_do().unwrap_or_default());
    let control = shown.chars().find(|letter| letter.is_control() && *letter != '\n');
    assert!(control.is_none(), "an error with the control character {control:?}: {shown:?}");
}
