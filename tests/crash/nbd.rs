//! The same by nbd, for which scripts/vm-run has a kernel. Everything is slow there, so it is little.

use guestseal::fault::Point;

use crate::children;
use crate::common::{on_path, ready, require};
use crate::mode::{Commit, Mode};
use crate::points::at_each;
use crate::random;

const OVERLAY: Mode = Mode::new("qcow2", "nbd", Commit::Overlay);

fn has_nbd() -> bool {
    ready()
        && require(on_path("qemu-nbd"), "needs qemu-nbd")
        && require(std::path::Path::new("/sys/module/nbd").exists(), "needs the kernel's nbd")
}

/// The points between which the way of attaching makes a difference: the commit is the same for all.
#[test]
fn killed_while_attached() {
    use Point::{Applied, Attached, Detached, Mounted, Unmounted};
    if has_nbd() {
        at_each(&[Attached, Mounted, Applied, Unmounted, Detached], &[OVERLAY], &["kill"]);
    }
}

#[test]
fn children_killed_at_every_point() {
    if has_nbd() {
        children::at_every_point(&[OVERLAY], "qemu-nbd");
    }
}

#[test]
fn killed_at_random_moments() {
    if has_nbd() {
        random::killed("alpine", OVERLAY, 5);
    }
}
