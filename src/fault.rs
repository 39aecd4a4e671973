//! Fault points: named places at which the crash tests kill, stop or fail a run. They are compiled in only with the
//! feature `fault-points`; without it [`point`] is nothing.

#![forbid(unsafe_code)]

macro_rules! points {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A place between two steps of which a kill must lose nothing.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Point {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Point {
            /// All of them, in the order of a run.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Its name for the crash tests.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

points! {
    /// libvirt copies the disk of a running guest.
    CopyBegun = "copy-begun",
    /// The image is open and locked.
    Locked = "locked",
    /// Overlay, record and output file are made, nameless.
    FilesMade = "files-made",
    /// The disk is attached.
    Attached = "attached",
    /// The guest is mounted.
    Mounted = "mounted",
    /// The first operation is done.
    FirstOperation = "first-operation",
    /// All operations are done.
    Applied = "applied",
    /// The guest is unmounted.
    Unmounted = "unmounted",
    /// What is free on the disk is zero.
    Erased = "erased",
    /// The disk is detached.
    Detached = "detached",
    /// The erasure is proven.
    Proven = "proven",
    /// The overlay has its name for the commit.
    OverlayNamed = "overlay-named",
    /// The journal has its name: from here on `recover` finishes.
    JournalNamed = "journal-named",
    /// Snapshots and bitmaps are out of the image.
    SnapshotsDropped = "snapshots-dropped",
    /// qemu-img has written the image.
    ImageWritten = "image-written",
    /// What the image's file held besides its disk is zero.
    ContainerCleaned = "container-cleaned",
    /// The image is flushed.
    ImageFlushed = "image-flushed",
    /// The journal says that the image is whole.
    JournalMarked = "journal-marked",
    /// The new file of --output is written, nameless.
    OutputWritten = "output-written",
    /// The new file of --output has its name.
    OutputNamed = "output-named",
    /// The record has a temporary name.
    RecordWritten = "record-written",
    /// The record has its name.
    RecordNamed = "record-named",
    /// The journal is gone.
    JournalRemoved = "journal-removed",
    /// The overlay of the commit is gone.
    OverlayRemoved = "overlay-removed",
}

/// Does what the crash tests asked for at this place; nothing otherwise.
///
/// # Errors
/// When they asked for a failure here.
#[cfg(not(feature = "fault-points"))]
pub fn point(_: Point) -> crate::error::Result<()> {
    Ok(())
}

#[cfg(feature = "fault-points")]
pub use armed::{VARIABLE, arm, point};

#[cfg(feature = "fault-points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::sys::signal::{Signal, raise};

    use super::Point;
    use crate::error::{Context, Error, Result};

    /// The variable that arms one point: `NAME=kill`, `NAME=stop` or `NAME=fail`; with `NAME@2` the second time that the
    /// run comes by it.
    pub const VARIABLE: &str = "GUESTSEAL_FAULT";

    static PASSED: AtomicU32 = AtomicU32::new(0);
    static ARMED: OnceLock<(Point, u32, Fault)> = OnceLock::new();

    #[derive(Debug, Clone, Copy)]
    enum Fault {
        Kill,
        Stop,
        Fail,
    }

    /// Arms the point that the value of [`VARIABLE`] names.
    ///
    /// # Errors
    /// A usage error when it names none.
    pub fn arm(text: &str) -> Result<()> {
        let wrong = || Error::usage(format!("{VARIABLE} is wrong: {text:?}"));
        let (name, fault) = text.split_once('=').ok_or_else(wrong)?;
        let (name, time) = name.split_once('@').unwrap_or((name, "1"));
        let time = time.parse().map_err(|_| wrong())?;
        let point = Point::ALL.iter().find(|point| point.name() == name).ok_or_else(wrong)?;
        let fault = match fault {
            "kill" => Fault::Kill,
            "stop" => Fault::Stop,
            "fail" => Fault::Fail,
            _ => return Err(wrong()),
        };
        // Armed once, at the start of the program.
        let _ = ARMED.set((*point, time, fault));
        Ok(())
    }

    /// As without the feature, but armed.
    ///
    /// # Errors
    /// When the tests asked for a failure here.
    pub fn point(point: Point) -> Result<()> {
        match ARMED.get() {
            // Once: the proof attaches the disk a second time.
            Some((armed, time, fault))
                if *armed == point && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *time =>
            {
                match fault {
                    Fault::Kill => raise(Signal::SIGKILL).context(|| "cannot die"),
                    Fault::Stop => raise(Signal::SIGSTOP).context(|| "cannot stop"),
                    Fault::Fail => Err(Error::failed(format!("failed on purpose at {}", point.name()))),
                }
            }
            _ => Ok(()),
        }
    }
}
