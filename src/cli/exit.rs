//! The exit codes, in one place. Pipelines branch on them: they are part of the interface.

use std::process::ExitCode;

use crate::error::ErrorKind;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: failed; the image is unchanged.
    Failed,
    /// 2: wrong command line or operation file.
    Usage,
    /// 3: the image is in use; try again.
    Busy,
    /// 4: a commit was interrupted; run recover.
    Interrupted,
    /// 5: verify found something.
    Found,
    /// 6: guest, layout or request not supported.
    Unsupported,
    /// 7: the host lacks something.
    HostLacks,
    /// 1, where the program cannot end by the signal that stopped it.
    Stopped,
}

impl Exit {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Busy => "busy",
            Self::Interrupted => "interrupted",
            Self::Found => "found",
            Self::Unsupported => "unsupported",
            Self::HostLacks => "host-lacks",
            Self::Stopped => "stopped",
        }
    }

    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed | Self::Stopped => 1,
            Self::Usage => 2,
            Self::Busy => 3,
            Self::Interrupted => 4,
            Self::Found => 5,
            Self::Unsupported => 6,
            Self::HostLacks => 7,
        }
    }
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Failed => Self::Failed,
            ErrorKind::Usage => Self::Usage,
            ErrorKind::Busy => Self::Busy,
            ErrorKind::Interrupted => Self::Interrupted,
            ErrorKind::Found => Self::Found,
            ErrorKind::Unsupported => Self::Unsupported,
            ErrorKind::HostLacks => Self::HostLacks,
            ErrorKind::Stopped => Self::Stopped,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_of_the_manual() {
        let kinds = [
            ErrorKind::Failed,
            ErrorKind::Usage,
            ErrorKind::Busy,
            ErrorKind::Interrupted,
            ErrorKind::Found,
            ErrorKind::Unsupported,
            ErrorKind::HostLacks,
            ErrorKind::Stopped,
        ];
        let codes: Vec<u8> = kinds.into_iter().map(|kind| Exit::from(kind).code()).collect();
        assert_eq!(codes, [1, 2, 3, 4, 5, 6, 7, 1]);
    }
}
