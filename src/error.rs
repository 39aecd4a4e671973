//! The one error type: a kind that callers branch on (and that becomes the exit code), a sentence for people,
//! what they can do about it, and whatever caused it.

use std::error::Error as StdError;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of failure this is. Each kind is one exit code of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The work failed; the image is unchanged.
    Failed,
    /// The command line or an operation file is wrong.
    Usage,
    /// Somebody else uses the image: try again later.
    Busy,
    /// A commit was interrupted: `guestseal recover` finishes it.
    Interrupted,
    /// A check ran and found what must not be there.
    Found,
    /// The guest, its layout or what was asked for is not supported.
    Unsupported,
    /// The host lacks something guestseal needs.
    HostLacks,
    /// A signal stopped the run, and what it had done was undone.
    Stopped,
}

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync + 'static>;

/// A failure: kind, what failed on what, why, and what to do.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    what: String,
    hint: Option<String>,
    source: Option<Source>,
    also: Vec<Error>,
}

impl Error {
    /// A failure of `kind`; `what` says what failed, on which path or device.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, what: what.into(), hint: None, source: None, also: Vec::new() }))
    }

    /// A plain failure that leaves the image unchanged.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, what)
    }

    /// A wrong command line or operation file.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, what)
    }

    /// A guest, layout or request that is not supported.
    pub fn unsupported(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, what)
    }

    /// A host without something that is needed; say which package has it in the hint.
    pub fn host_lacks(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::HostLacks, what)
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Keeps this error as the first one and remembers that clean-up failed as well. What to do about that stands for
    /// both when nothing better is known.
    #[must_use]
    pub fn and_also(mut self, other: Error) -> Self {
        self.0.hint = self.0.hint.take().or_else(|| other.0.hint.clone());
        self.0.also.push(other);
        self
    }

    /// The same failure as part of something larger: kind, hint and failed clean-up stay.
    #[must_use]
    pub fn within(mut self, what: impl Into<String>) -> Self {
        let (kind, hint, also) = (self.kind(), self.0.hint.take(), std::mem::take(&mut self.0.also));
        Self(Box::new(Inner { kind, what: what.into(), hint, source: Some(self.into()), also }))
    }

    /// The kind, for callers that branch.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What the user can do about it, where that is known.
    pub fn what_to_do(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Failures of the clean-up that followed this one.
    pub fn also(&self) -> &[Error] {
        &self.0.also
    }

    /// The sentence and its causes, joined by colons.
    pub fn chain(&self) -> String {
        let mut text = self.0.what.clone();
        let mut next = self.source();
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.chain())?;
        self.0.also.iter().try_for_each(|other| write!(f, "; also {other:?}"))
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Turns foreign errors into [`Error`] with a sentence about what was being done.
pub trait Context<T> {
    /// A plain failure with this sentence; the foreign error becomes the cause.
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;

    /// The same with another kind.
    fn context_kind<S: Into<String>>(self, kind: ErrorKind, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Source>> Context<T> for std::result::Result<T, E> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.context_kind(ErrorKind::Failed, what)
    }

    fn context_kind<S: Into<String>>(self, kind: ErrorKind, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| Error::new(kind, what()).caused_by(error))
    }
}

/// The result of work that was followed by clean-up: the first error wins and carries the second.
pub fn both<T>(work: Result<T>, clean_up: Result<()>) -> Result<T> {
    both_values(work, clean_up).map(|(value, ())| value)
}

/// The same for clean-up that has a value of its own.
pub fn both_values<A, B>(work: Result<A>, clean_up: Result<B>) -> Result<(A, B)> {
    match (work, clean_up) {
        (Ok(work), Ok(rest)) => Ok((work, rest)),
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => Err(error),
        (Err(first), Err(second)) => Err(first.and_also(second)),
    }
}

/// Several steps of clean-up, each done whatever became of those before it.
pub fn all(steps: impl Iterator<Item = Result<()>>) -> Result<()> {
    let mut result = Ok(());
    for step in steps {
        result = both(result, step);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_joins_causes_and_keeps_the_kind() {
        let io = std::io::Error::other("disk on fire");
        let error = Error::unsupported("cannot read /dev/x").caused_by(io).hint("buy a disk");
        assert_eq!(error.chain(), "cannot read /dev/x: disk on fire");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.what_to_do(), Some("buy a disk"));
    }

    #[test]
    fn the_first_error_wins_and_carries_the_second() {
        let error = both::<()>(Err(Error::failed("work")), Err(Error::failed("clean-up"))).unwrap_err();
        assert_eq!(error.to_string(), "work");
        assert_eq!(error.also()[0].to_string(), "clean-up");
    }
}
