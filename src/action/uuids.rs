//! New UUIDs in place of old ones, wherever the guest names them. The volumes themselves are changed when nothing of them is
//! mounted any more, see [`crate::uuids`].

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::{Findings, View, find};
use crate::error::{Context, Error, Result};
use crate::guest::change::{Change, Content};
use crate::guest::{Entry, FileKind};
use crate::operation::schema::NewUuids;
use crate::uuids::initramfs::{self, Mended};
use crate::uuids::mend::Mender;

/// The longest file that is mended; GRUB's largest configurations have some hundred kilobytes.
const TEXT_LIMIT: u64 = 4 << 20;
/// How much of a program is looked at: kernels with their archives are the longest.
const PROGRAM_LIMIT: u64 = 512 << 20;
/// Read at a time, and what of it is looked at again with the next.
const PIECE: usize = 1 << 20;
const OVERLAP: usize = 1024;
/// Where snapper keeps snapshots of the root, which cannot be written.
const SNAPSHOTS: &str = "/.snapshots";

pub(super) fn mend(verb: &NewUuids, view: View<'_>) -> Result<Findings> {
    let mut findings = Findings::default();
    let uuids = view.settings.uuids.as_deref();
    let uuids = uuids.ok_or_else(|| Error::unsupported("there are no volumes to give new UUIDs to"))?;
    if uuids.is_empty() {
        return Ok(findings);
    }
    let mender = Mender::new(uuids)?;
    for entry in files(&verb.paths, view)? {
        mend_file(&entry, &mender, view, &mut findings)?;
    }
    if view.settings.recorded {
        return Ok(findings);
    }
    findings.later = true;
    for uuid in uuids {
        let becomes = if uuid.new == uuid.old { "gets a new one" } else { &format!("becomes {}", uuid.new) };
        findings.note(None, format!("{}: the UUID {} {becomes}", uuid.what, uuid.old));
    }
    for entry in files(&verb.programs, view)? {
        if is_in_program(&entry, &mender, view)? {
            let what = format!("{} in the guest finds it by a UUID that is built in", entry.path.display());
            return Err(Error::unsupported(what)
                .hint("leave the operation out, or run it on each clone and make that program anew there"));
        }
    }
    for entry in files(&verb.initramfs, view)? {
        mend_initramfs(entry, &mender, view, &mut findings)?;
    }
    if !view.root.names(Path::new(SNAPSHOTS))?.is_empty() {
        findings.note(PathBuf::from(SNAPSHOTS), "snapshots name the old UUIDs, and do not boot any more");
    }
    Ok(findings)
}

/// The regular files that the globs match, once each, where links lead.
fn files(globs: &[String], view: View<'_>) -> Result<Vec<Entry>> {
    let (mut files, mut seen) = (Vec::new(), BTreeSet::new());
    for entry in find(globs, &[], view)? {
        let entry = if entry.kind == FileKind::Link { view.root.resolve(&entry.path)? } else { Some(entry) };
        let file = entry.filter(|entry| entry.kind == FileKind::File);
        files.extend(file.filter(|entry| seen.insert(entry.path.clone())));
    }
    Ok(files)
}

fn mend_file(entry: &Entry, mender: &Mender, view: View<'_>, findings: &mut Findings) -> Result<()> {
    if entry.bytes > TEXT_LIMIT {
        findings.note(entry.path.clone(), format!("it has {} bytes and was not looked at", entry.bytes));
        return Ok(());
    }
    let Some(content) = view.root.read(&entry.path)? else { return Ok(()) };
    let Some(mended) = mender.mend(&content) else { return Ok(()) };
    if content.contains(&0) {
        findings.note(entry.path.clone(), "it is no text, and names an old UUID");
        return Ok(());
    }
    findings.changes.push(Change::rewrite(entry.clone(), mended));
    Ok(())
}

/// A guest whose initramfs names its root by an old UUID would not start.
fn mend_initramfs(entry: Entry, mender: &Mender, view: View<'_>, findings: &mut Findings) -> Result<()> {
    let Some(file) = view.root.open_file(&entry.path)? else { return Ok(()) };
    match initramfs::mended(BufReader::with_capacity(PIECE, File::from(file)), mender)? {
        Mended::Nothing => {}
        Mended::Segment(segment) => {
            findings.changes.push(Change::Append { path: entry.path, content: Content(segment) });
        }
        Mended::Unread(why) => findings.note(
            entry.path,
            format!("it may name old UUIDs and was not read ({why}): make it anew in a clone (update-initramfs -u, dracut -f)"),
        ),
    }
    Ok(())
}

fn is_in_program(entry: &Entry, mender: &Mender, view: View<'_>) -> Result<bool> {
    let failed = || format!("cannot read {} in the guest", entry.path.display());
    let Some(file) = view.root.open_file(&entry.path)? else { return Ok(false) };
    let (mut file, mut bytes) = (File::from(file).take(PROGRAM_LIMIT), Vec::new());
    loop {
        let read = (&mut file).take(PIECE as u64).read_to_end(&mut bytes).context(failed)?;
        if read == 0 || mender.is_in(&bytes) {
            return Ok(read != 0);
        }
        bytes.drain(..bytes.len().saturating_sub(OVERLAP));
    }
}
