//! The targets, one file for each kind of input.

pub(crate) mod accounts;
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
pub(crate) mod tables;

/// What an error shows is for a person at a terminal: not long, no control characters but line breaks.
pub(crate) fn check_error(error: &guestseal::Error) {
    let shown = format!("{error:?} {}", error.what_to_do().unwrap_or_default());
    assert!(shown.len() <= 20_000, "an error of {} bytes", shown.len());
    let control = shown.chars().find(|letter| letter.is_control() && *letter != '\n');
    assert!(control.is_none(), "an error with the control character {control:?}: {shown:?}");
}
