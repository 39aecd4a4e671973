//! What was done or seen, in words for people.

use std::time::Instant;

use super::expand::told;
use super::print::{Printer, bytes, clean, counts, intention};
use crate::erase::policy::Policy;
use crate::erase::report::Erasure;
use crate::inspect::guest::Guest;
use crate::plan::Plan;
use crate::report::{OperationReport, Tally};
use crate::seal::SealReport;
use crate::survey::Survey;

/// One line about a sealed image.
pub(super) fn summary(plan: &Plan, report: &SealReport, started: Instant, printer: &Printer) -> String {
    let Totals { counts, content } = Totals::of(&report.operations);
    let erased = match report.erasure.policy {
        Policy::None => "deleted data can be read back".to_owned(),
        _ => format!("{} erased", bytes(report.erasure.bytes_zeroed())),
    };
    let image = match report.disks.len() {
        0 => report.image.display().to_string(),
        _ => report.disks.iter().map(|disk| disk.image.display().to_string()).collect::<Vec<_>>().join(", "),
    };
    format!(
        "{} {} ({}): {counts}, {} of content; {erased}; record {}; {:.2} s",
        printer.paint("sealed", "32;1"),
        image,
        report.inspection.guest.os.pretty_name,
        bytes(content),
        report.record.display(),
        started.elapsed().as_secs_f64()
    ) + if plan.digest { "" } else { " (no digest)" }
}

/// What all operations did together.
pub(super) struct Totals {
    /// How many files were removed, truncated and written, in words.
    pub(super) counts: String,
    /// Bytes of content that went.
    pub(super) content: u64,
}

impl Totals {
    pub(super) fn of(operations: &[OperationReport]) -> Self {
        let sum = |count: fn(&Tally) -> u64| {
            operations.iter().map(|report| count(&report.tally)).fold(0, u64::saturating_add)
        };
        let counts =
            counts(sum(|tally| tally.removed), sum(|tally| tally.truncated), sum(|tally| tally.written));
        Self { counts, content: sum(|tally| tally.bytes) }
    }
}

/// One line about the guest.
pub(super) fn guest_line(guest: &Guest) -> String {
    format!(
        "guest: {}; {}; packages by {}; started by {}",
        clean(&guest.os.pretty_name),
        guest.architecture.as_deref().unwrap_or("unknown architecture"),
        word(guest.package_manager),
        word(guest.init)
    )
}

/// The guest, its disk, and what each operation would do.
pub(super) fn describe_guest(seen: &Survey, printer: &Printer) {
    printer.line(&guest_line(&seen.inspection.guest));
    for image in &seen.image {
        printer.line(&format!(
            "image: {}, disk of {}, file of {}",
            image.format.driver(),
            bytes(image.virtual_bytes),
            bytes(image.file_bytes)
        ));
    }
    for (index, volume) in seen.inspection.storage.volumes.iter().enumerate() {
        let name = crate::inspect::layout::volume_name(volume);
        let content =
            volume.superblock.as_ref().map_or("nothing known", |superblock| superblock.content.name());
        let layout = &seen.inspection.layout;
        let places =
            std::iter::once(&layout.root).chain(&layout.others).filter(|place| place.volume == index);
        let points: Vec<String> = places
            .map(|place| {
                place.subvolume.as_ref().map_or_else(
                    || place.point.display().to_string(),
                    |name| format!("{} (subvolume {name})", place.point.display()),
                )
            })
            .collect();
        printer.line(&format!(
            "  {name:<14} {content:<8} {:>12}  {}",
            bytes(volume.length),
            clean(&points.join(", "))
        ));
    }
    seen.expanded.iter().for_each(|expanded| printer.line(&told(expanded, false)));
    describe_operations(&seen.operations, printer);
}

/// What each operation would do.
pub(super) fn describe_operations(operations: &[OperationReport], printer: &Printer) {
    for report in operations.iter().filter(|report| !report.files.is_empty() || !report.notes.is_empty()) {
        printer.line(&format!("{}: {}", printer.paint(&report.name, "1"), intention(report)));
        printer.notes(report);
        for file in &report.files {
            let verb = format!("{:?}", file.action).to_lowercase();
            printer.line(&format!(
                "    {verb:<9} {:>12}  {}",
                bytes(file.bytes),
                file.path.to_string_lossy().escape_debug()
            ));
        }
    }
}

/// What `verify` found to be back, and what it could not judge.
pub(super) fn describe_found(found: &[OperationReport], unsure: &[String], printer: &Printer) {
    for report in found {
        for file in report.files.iter().take(20) {
            printer.line(&format!("    {}: {}", report.name, file.path.to_string_lossy().escape_debug()));
        }
    }
    if !unsure.is_empty() {
        printer.line(&format!("    not checked, for want of a secret or a script: {}", unsure.join(", ")));
    }
}

/// The name of a plain value as the JSON has it.
fn word(value: Option<impl serde::Serialize>) -> String {
    let text = value
        .and_then(|value| serde_json::to_value(value).ok())
        .and_then(|value| value.as_str().map(str::to_owned));
    text.unwrap_or_else(|| "something unknown".into())
}

/// What the proof found, volume by volume.
pub(super) fn describe_erasure(erasure: &Erasure, printer: &Printer) {
    for volume in &erasure.volumes {
        let content = volume.content.as_deref().unwrap_or("-");
        let found = volume.unproven.as_ref().map_or_else(
            || format!("{} free, {} not zero", bytes(volume.free_bytes), bytes(volume.residue())),
            |why| format!("unproven: {}", clean(why)),
        );
        printer.line(&format!("    {:<14} {content:<8} {found}", volume.volume));
        for kind in volume.metadata.iter().filter(|kind| kind.bytes_nonzero > 0) {
            printer.line(&format!("        {} not zero in {}", bytes(kind.bytes_nonzero), kind.kind));
        }
        for held in &volume.holds {
            printer.line(&format!("        may hold deleted data: {}", clean(held)));
        }
    }
}
