//! Clean-up that failed where no result could be returned (in a `Drop`): kept here, reported and counted as a
//! failure by whoever ends the run.

use std::sync::{Mutex, PoisonError};

use crate::error::Error;

static TROUBLE: Mutex<Vec<Error>> = Mutex::new(Vec::new());

/// Remembers an error of a `Drop`.
pub fn note(error: Error) {
    TROUBLE.lock().unwrap_or_else(PoisonError::into_inner).push(error);
}

/// Takes all that was remembered since the last call.
pub fn take() -> Vec<Error> {
    std::mem::take(&mut *TROUBLE.lock().unwrap_or_else(PoisonError::into_inner))
}
