//! Full clones: blocks shared with the template where the filesystem can, else a copy that keeps holes; qemu-img where the
//! format is another.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::copy_file_range;

use super::Made;
use super::source::Source;
use super::thin::MODE;
use crate::action::random_seed::{SEED_BYTES, seed};
use crate::error::{Context, Result};
use crate::image::format::Format;
use crate::image::info::Image;
use crate::image::nameless::{NamelessFile, folder_of};
use crate::image::peek::place_in_file;
use crate::report::{Event, Observer};
use crate::sys::holes::next_data;
use crate::sys::interrupt;
use crate::sys::reflink::reflink;
use crate::sys::tool::Tool;

/// How much is copied between two looks at signals, in bytes.
const STEP: u64 = 32 << 20;

pub(super) fn make(
    source: &Source,
    paths: &[PathBuf],
    format: Format,
    wants_seed: bool,
    observer: &mut dyn Observer,
) -> Result<Made> {
    let mut made = Made { files: Vec::new(), seeded: false, reflinked: false };
    for (disk, (image, path)) in source.images.iter().zip(paths).enumerate() {
        let file = NamelessFile::make(folder_of(path), MODE)?;
        if format == image.format {
            made.reflinked |= copy(image, &file, observer)?;
        } else {
            convert(&image.node(true).to_string(), &file, path, (format, false))?;
        }
        lengthen(&file, path, format, (image.virtual_bytes, image.bytes_after()))?;
        if let Some(place) = source.seed.filter(|place| wants_seed && place.disk == disk) {
            let failed = || format!("cannot write the random seed of {}", path.display());
            if let Some(at) = place_in_file(&mut file.file(), format, place.offset, SEED_BYTES as u64)? {
                file.file().write_all_at(&seed()?, at).context(failed)?;
                made.seeded = true;
            }
        }
        made.files.push(file);
    }
    Ok(made)
}

/// Gives the disk of a clone its length, where that is more than the template's.
fn lengthen(file: &NamelessFile, path: &Path, format: Format, (from, to): (u64, u64)) -> Result<()> {
    let failed = || format!("cannot make {} larger", path.display());
    match format {
        _ if from >= to => Ok(()),
        Format::Raw => file.file().set_len(to).context(failed),
        _ => {
            let resize = Tool::find("qemu-img")?.spawn().args(["resize", "-q", "-f", format.driver()]);
            let (exit, _) = resize.arg(file.path()).arg(to.to_string()).output(1 << 16)?;
            exit.success_without_complaint(&[]).map_err(|error| error.within(failed()))
        }
    }
}

/// The same clones with compressed clusters.
pub(super) fn compressed(
    files: Vec<NamelessFile>,
    paths: &[PathBuf],
    format: Format,
) -> Result<Vec<NamelessFile>> {
    let compress = |(file, path): (NamelessFile, &PathBuf)| {
        let new = NamelessFile::make(folder_of(path), MODE)?;
        let node = serde_json::json!({
            "driver": format.driver(), "file": { "driver": "file", "filename": file.path() },
        });
        convert(&node.to_string(), &new, path, (format, true))?;
        Ok(new)
    };
    files.into_iter().zip(paths).map(compress).collect()
}

fn convert(node: &str, file: &NamelessFile, path: &Path, (format, compress): (Format, bool)) -> Result<()> {
    let convert = Tool::find("qemu-img")?.spawn().args(["convert", "-q", "-W", "-O", format.driver()]);
    let convert = convert.args(compress.then_some("-c"));
    let (exit, _) = convert.arg(format!("json:{node}")).arg(file.path()).output(1 << 16)?;
    exit.success_without_complaint(&[])
        .map_err(|error| error.within(format!("cannot write {}", path.display())))
}

/// Copies an image's file; true when both share blocks.
fn copy(image: &Image, to: &NamelessFile, observer: &mut dyn Observer) -> Result<bool> {
    let failed = || format!("cannot copy {}", image.path.display());
    let (from, to) = (image.lock.file(), to.file());
    if reflink(from, to).context(failed)? {
        return Ok(true);
    }
    to.set_len(image.file_bytes).context(failed)?;
    let mut at = 0;
    while let Some(Range { start, end }) = next_data(from, at, image.file_bytes).context(failed)? {
        at = start;
        while at < end {
            interrupt::check().map_err(|error| error.within(failed()))?;
            let length = STEP.min(end - at);
            at += copy_piece(from, to, at, length).context(failed)?;
            observer.event(Event::Progress { what: "copying", done: at, total: image.file_bytes });
        }
    }
    Ok(false)
}

/// Copies up to `length` bytes at `at`, in the kernel where it can.
fn copy_piece(from: &File, to: &File, at: u64, length: u64) -> std::io::Result<u64> {
    let number = |at: u64| i64::try_from(at).map_err(|_| std::io::Error::from(Errno::EFBIG));
    let (mut read_at, mut write_at) = (number(at)?, number(at)?);
    let wanted = usize::try_from(length).unwrap_or(usize::MAX);
    match copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), wanted) {
        Ok(0) => Err(std::io::Error::other("it became shorter meanwhile")),
        Ok(copied) => Ok(copied as u64),
        Err(Errno::EXDEV | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
            let (mut from, mut to) = (from, to);
            from.seek(SeekFrom::Start(at))?;
            to.seek(SeekFrom::Start(at))?;
            let mut bytes = vec![0; wanted.min(1 << 20)];
            let read = from.read(&mut bytes)?;
            to.write_all(&bytes[..read])?;
            if read == 0 {
                Err(std::io::Error::other("it became shorter meanwhile"))
            } else {
                Ok(read as u64)
            }
        }
        Err(errno) => Err(errno.into()),
    }
}
