//! Fuzz targets: each gives any bytes to one of guestseal's readers and checks what must hold of the result.
//!
//! `cargo fuzz run NAME` runs one; `scripts/fuzz` does so with the stable toolchain alone. A target is a function here,
//! so that one program can hold them all.

mod memory;
mod sparse;
mod targets;

use std::sync::OnceLock;

/// A target: it panics when what must hold does not.
pub type Target = fn(&[u8]);

/// All targets by their names.
pub const TARGETS: [(&str, Target); 17] = [
    ("accounts", targets::accounts::run),
    ("domain", targets::domain::run),
    ("fstab", targets::fstab::run),
    ("glob", targets::glob::run),
    ("gpt", targets::tables::gpt),
    ("image", targets::image::run),
    ("journal", targets::journal::run),
    ("mbr", targets::tables::mbr),
    ("nbd", targets::nbd::run),
    ("operation", targets::operation::run),
    ("os_release", targets::os_release::run),
    ("probe", targets::tables::probe),
    ("qcow2", targets::qcow2::run),
    ("record", targets::record::run),
    ("selector", targets::selector::run),
    ("steps", targets::steps::run),
    ("worker", targets::worker::run),
];

static CHOSEN: OnceLock<Target> = OnceLock::new();

/// Chooses the target of this program.
///
/// # Panics
/// When there is none of this name.
pub fn choose(name: &str) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = found.unwrap_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        panic!("GUESTSEAL_FUZZ_TARGET must be one of {}, not {name:?}", names.join(" "));
    });
    CHOSEN.get_or_init(|| *target);
    memory::prepare_stack();
}

/// Chooses the target that the environment names: GUESTSEAL_FUZZ_TARGET.
///
/// # Panics
/// When it names none.
#[expect(clippy::disallowed_methods, reason = "libFuzzer has no arguments of the program's own")]
pub fn choose_from_environment() {
    choose(&std::env::var("GUESTSEAL_FUZZ_TARGET").unwrap_or_default());
}

/// Runs the chosen target and watches the memory it asks for.
pub fn run(data: &[u8]) {
    let target = CHOSEN.get().expect("a target is chosen first");
    memory::watch(|| target(data));
}

/// The program of one target, or of the one that the environment names.
#[macro_export]
macro_rules! program {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(
            init: $crate::choose($name),
            |data: &[u8]| $crate::run(data)
        );
    };
    () => {
        libfuzzer_sys::fuzz_target!(
            init: $crate::choose_from_environment(),
            |data: &[u8]| $crate::run(data)
        );
    };
}
