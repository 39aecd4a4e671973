//! Going over stretches of a file that hold nothing of value: counting what is not zero there, or making it so. Only
//! where the file has data: its holes are zero.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};

use super::ContainerResidue;
use crate::disk::number::nonzero;
use crate::erase::extent::Extent;
use crate::erase::metadata::Act;
use crate::error::{Context, Error, Result};
use crate::sys::holes;

/// What is read at a time, in bytes.
const CHUNK: u64 = 1 << 20;
/// The unit in which what is not zero is overwritten, in bytes.
const BLOCK: usize = 4096;
/// How many places are told.
const PLACES: usize = 16;

/// A file that is gone over.
#[derive(Debug)]
pub(super) struct Sweep<'a> {
    file: &'a File,
    act: Act,
    end: u64,
    /// The block length of the file's filesystem; None where nothing can be given back to it.
    grain: Option<u64>,
    /// Where the hole ends that was found last, and where it begins.
    hole: Extent,
    buffer: Vec<u8>,
    given_back: u64,
    overwritten: u64,
    found: ContainerResidue,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(file: &'a File, act: Act) -> Result<Self> {
        let failed = || "cannot examine the image file";
        let metadata = file.metadata().context(failed)?;
        let end = std::io::Seek::seek(&mut &*file, std::io::SeekFrom::End(0)).context(failed)?;
        let is_device = metadata.file_type().is_block_device();
        let grain = metadata.blksize();
        let grain = if grain.is_power_of_two() && (512..=CHUNK).contains(&grain) { grain } else { 4096 };
        Ok(Self {
            file,
            act,
            end,
            // What a block device does with BLKDISCARD is its own affair.
            grain: (!is_device).then_some(grain),
            hole: Extent::between(0, 0),
            buffer: vec![0; usize::try_from(CHUNK).unwrap_or(BLOCK)],
            given_back: 0,
            overwritten: 0,
            found: ContainerResidue::default(),
        })
    }

    /// The length of the file in bytes.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes that held data were made zero.
    pub(super) fn zeroed(&self) -> u64 {
        self.given_back.saturating_add(self.overwritten)
    }

    /// How that was done.
    pub(super) fn method(&self) -> String {
        match self.grain {
            Some(_) => "whole blocks given back to the filesystem, edges overwritten with zeros".into(),
            None => "overwritten with zeros".into(),
        }
    }

    pub(super) fn residue(self) -> ContainerResidue {
        self.found
    }

    /// Goes over one stretch; what of it is behind the end of the file is left out.
    pub(super) fn over(&mut self, extent: Extent) -> Result<()> {
        let (mut at, end) = (extent.start, extent.end().min(self.end));
        self.found.bytes_unreferenced += end.saturating_sub(at);
        while at < end {
            let Some(data) = self.data(at, end)? else { break };
            match self.act {
                Act::Count => self.read(data)?,
                Act::Zero => self.zero_chunks(data)?,
            }
            at = data.end();
        }
        Ok(())
    }

    /// The first stretch of data between two bytes of the file.
    fn data(&mut self, at: u64, end: u64) -> Result<Option<Extent>> {
        if self.hole.start <= at && end <= self.hole.end() {
            return Ok(None);
        }
        let failed = || "cannot look for data in the image file";
        let Some(start) = holes::first_data(self.file, at).context(failed)? else {
            self.hole = Extent::between(at, self.end);
            return Ok(None);
        };
        self.hole = Extent::between(at, start);
        if start >= end {
            return Ok(None);
        }
        Ok(Some(Extent::between(start, holes::data_end(self.file, start, end).context(failed)?)))
    }

    /// Makes data zero, but for long stretches that are zero already. What is not is told by its beginning.
    fn zero_chunks(&mut self, data: Extent) -> Result<()> {
        let mut at = data.start;
        let mut from = None;
        while at < data.end() {
            let next = (at / CHUNK * CHUNK).saturating_add(CHUNK).min(data.end());
            match (self.is_zero(Extent::between(at, next))?, from) {
                (false, None) => from = Some(at),
                (true, Some(start)) => {
                    self.zero(Extent::between(start, at))?;
                    from = None;
                }
                _ => {}
            }
            at = next;
        }
        from.map_or(Ok(()), |start| self.zero(Extent::between(start, data.end())))
    }

    /// Whether a stretch is zero; read until something is not.
    fn is_zero(&mut self, extent: Extent) -> Result<bool> {
        let head = Extent { length: extent.length.min(BLOCK as u64), ..extent };
        for part in [head, Extent::between(head.end(), extent.end())] {
            let mut zero = true;
            self.chunks(part, |_, bytes| {
                zero &= bytes.iter().all(|byte| *byte == 0);
                Ok(())
            })?;
            if !zero {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes data zero: blocks of the filesystem as holes, what is left over by writing.
    fn zero(&mut self, data: Extent) -> Result<()> {
        if let Some(grain) = self.grain {
            let whole = Extent::between(data.start.next_multiple_of(grain), data.end() / grain * grain);
            if whole.length > 0 && self.give_back(whole)? {
                self.given_back += whole.length;
                self.overwrite(Extent::between(data.start, whole.start))?;
                return self.overwrite(Extent::between(whole.end(), data.end()));
            }
        }
        self.overwrite(data)
    }

    /// Whether the filesystem took it back.
    fn give_back(&mut self, extent: Extent) -> Result<bool> {
        let given = holes::punch(self.file, extent.start..extent.end());
        let given = given.context(|| "cannot give back blocks of the image file")?;
        if !given {
            self.grain = None;
        }
        Ok(given)
    }

    /// Writes zeros where there are none.
    fn overwrite(&mut self, extent: Extent) -> Result<()> {
        const ZEROS: [u8; BLOCK] = [0; BLOCK];
        let mut overwritten = 0;
        let file = self.file;
        self.chunks(extent, |at, bytes| {
            for (index, block) in bytes.chunks(BLOCK).enumerate() {
                if block != &ZEROS[..block.len()] {
                    file.write_all_at(&ZEROS[..block.len()], at + (index * BLOCK) as u64)
                        .context(|| "cannot overwrite a part of the image file")?;
                    overwritten += block.len() as u64;
                }
            }
            Ok(())
        })?;
        self.overwritten += overwritten;
        Ok(())
    }

    /// Counts what is not zero.
    fn read(&mut self, extent: Extent) -> Result<()> {
        let mut found = std::mem::take(&mut self.found);
        let read = self.chunks(extent, |at, bytes| {
            for (index, block) in bytes.chunks(BLOCK).enumerate() {
                let Some(first) = block.iter().position(|byte| *byte != 0) else { continue };
                let last = block.iter().rposition(|byte| *byte != 0).unwrap_or(first);
                found.bytes_nonzero += nonzero(block);
                let block_at = at + (index * BLOCK) as u64;
                add(&mut found.places, Extent::between(block_at + first as u64, block_at + last as u64 + 1));
            }
            Ok(())
        });
        self.found = found;
        read
    }

    fn chunks(&mut self, extent: Extent, mut work: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let mut at = extent.start;
        while at < extent.end() {
            let length = usize::try_from((extent.end() - at).min(CHUNK)).unwrap_or(BLOCK);
            let Some(buffer) = self.buffer.get_mut(..length) else { break };
            match self.file.read_at(buffer, at) {
                Ok(0) => break,
                Ok(count) => {
                    work(at, buffer.get(..count).unwrap_or_default())?;
                    at += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let what = format!("cannot read the image file at byte {at}");
                    return Err(Error::failed(what).caused_by(error));
                }
            }
        }
        Ok(())
    }
}

/// Adds a place to those that are told; what touches is one.
fn add(places: &mut Vec<Extent>, place: Extent) {
    if let Some(last) = places.last_mut()
        && place.start.saturating_sub(last.end()) < BLOCK as u64
    {
        *last = Extent::between(last.start, place.end());
    } else if places.len() < PLACES {
        places.push(place);
    }
}
