//! The same by nbd, for which scripts/vm-run has a kernel. Everything is slow there, so it is little.

use guestseal::fault::Point;

use crate::common::{on_path, ready, require};
use crate::mode::{Commit, Mode, WHOLE};
use crate::{children, points, random};

const OVERLAY: Mode = Mode::new("qcow2", "nbd", Commit::Overlay);

fn has_nbd() -> bool {
    ready()
        && require(on_path("qemu-nbd"), "needs qemu-nbd")
        && require(std::path::Path::new("/sys/module/nbd").exists(), "needs the kernel's nbd")
}

/// The points between which the way of attaching makes a difference: the commit is the same for all.
const POINTS: [Point; 5] =
    [Point::Attached, Point::Mounted, Point::Applied, Point::Unmounted, Point::Detached];

#[test]
fn killed_while_attached() {
    if has_nbd() {
        points::at_each(&POINTS, &[(OVERLAY, WHOLE)], &["kill"]);
    }
}

#[test]
fn children_killed_while_attached() {
    if has_nbd() {
        children::at_each(&POINTS[..4], &[(OVERLAY, WHOLE)], "qemu-nbd");
    }
}

#[test]
fn killed_at_random_moments() {
    if has_nbd() {
        random::killed("alpine", OVERLAY, 5);
    }
}
