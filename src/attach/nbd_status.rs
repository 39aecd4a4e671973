//! Asking an NBD server where an export has data: structured replies and the metadata context `base:allocation`. The
//! kernel's nbd driver asks for neither, so this is a connection of our own beside the kernel's. Pure over `Read` and
//! `Write`; every number that the server sends is bounded.
//!
//! Source: doc/proto.md of the NetworkBlockDevice/nbd project; the values in brackets below are its names.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::ops::Range;

use super::nbd_protocol::{
    HandshakeError, Negotiated, REPLY_ACK, begin, broken, go, is_refusal, option, read_array, read_reply,
    read_u16, read_u32, read_u64,
};

/// `NBD_OPT_STRUCTURED_REPLY`, `NBD_OPT_SET_META_CONTEXT`.
const OPTION_STRUCTURED: u32 = 8;
const OPTION_CONTEXT: u32 = 10;
/// `NBD_REP_META_CONTEXT`.
const REPLY_CONTEXT: u32 = 4;
/// The context that says what is allocated and what reads as zero.
const CONTEXT: &str = "base:allocation";
/// Opens a request (`NBD_REQUEST_MAGIC`), a simple reply, and a chunk of a structured one.
const REQUEST: u32 = 0x2560_9513;
const SIMPLE: u32 = 0x6744_6698;
const CHUNK: u32 = 0x668e_33ef;
/// `NBD_CMD_DISC`, `NBD_CMD_BLOCK_STATUS`.
const COMMAND_LEAVE: u16 = 2;
const COMMAND_STATUS: u16 = 7;
/// The last chunk of a reply (`NBD_REPLY_FLAG_DONE`).
const DONE: u16 = 1;
/// Kinds of chunks: nothing, block status, and all errors (`NBD_REPLY_TYPE_*`).
const CHUNK_NONE: u16 = 0;
const CHUNK_STATUS: u16 = 5;
const CHUNK_ERROR: u16 = 1 << 15;
/// An extent reads as zero (`NBD_STATE_ZERO`). That it is a hole alone says nothing of what is read from it.
const ZERO: u32 = 1 << 1;
/// The longest chunk in bytes: qemu sends at most 1 MiB of extents.
const CHUNK_LIMIT: u32 = 4 << 20;
/// The most chunks of one reply.
const CHUNKS: u32 = 64;
/// The most that is asked for at once, in bytes.
const ASK: u64 = 2 << 30;

/// Some bytes, and whether they are data.
type State = (Range<u64>, bool);
type Result<T> = std::result::Result<T, HandshakeError>;

/// A connection over which the server tells where it has data.
#[derive(Debug)]
pub struct StatusClient<S: Read + Write> {
    stream: S,
    context: u32,
    offer: Negotiated,
    /// Answers not given out yet, in order and without a gap: whether each is data.
    known: Vec<State>,
    requests: u64,
}

impl<S: Read + Write> StatusClient<S> {
    /// Runs the handshake for `export`. None when the server does not tell such things.
    ///
    /// # Errors
    /// When the stream fails, the server breaks the protocol or is too old, or refuses the export.
    pub fn negotiate(mut stream: S, export: &str) -> Result<Option<Self>> {
        begin(&mut stream)?;
        stream.write_all(&option(OPTION_STRUCTURED, b"")?)?;
        match read_reply(&mut stream, OPTION_STRUCTURED)?.0 {
            REPLY_ACK => {}
            kind if is_refusal(kind) => return Ok(None),
            kind => return broken(format!("unexpected answer {kind:#x}")),
        }
        let Some(context) = set_context(&mut stream, export)? else { return Ok(None) };
        let offer = go(&mut stream, export)?;
        Ok(Some(Self { stream, context, offer, known: Vec::new(), requests: 0 }))
    }

    /// Forgets what the server told before: something may have been written since.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// The next bytes at or after `from` and before `end` that may be other than zero; None when there are none.
    ///
    /// # Errors
    /// When the stream fails, or the server breaks the protocol or cannot tell. The connection is of no use then.
    pub fn next_data(&mut self, from: u64, end: u64) -> Result<Option<Range<u64>>> {
        let end = end.min(self.offer.size_bytes);
        let mut found: Option<Range<u64>> = None;
        let mut at = from;
        while at < end {
            let (extent, data) = self.status(at, end)?;
            let reached = extent.end.min(end);
            match &mut found {
                Some(found) if data => found.end = reached,
                Some(_) => break,
                None if data => found = Some(at..reached),
                None => {}
            }
            at = reached;
        }
        Ok(found)
    }

    /// The extent in which `at` is, from `at` on at least, and whether it is data.
    fn status(&mut self, at: u64, end: u64) -> Result<State> {
        let next = self.known.partition_point(|(extent, _)| extent.end <= at);
        if self.known.get(next).is_none_or(|(extent, _)| extent.start > at) {
            self.known = self.ask(at, end)?;
            return match self.known.first() {
                Some(first) if first.0.contains(&at) => Ok(first.clone()),
                _ => broken("a block status that does not say what was asked"),
            };
        }
        Ok(self.known[next].clone())
    }

    /// Asks once; the answer begins at or before `at`, and may end before `end`.
    fn ask(&mut self, at: u64, end: u64) -> Result<Vec<State>> {
        let block = u64::from(self.offer.block_sizes.map_or(512, |sizes| sizes.minimum));
        let size = self.offer.size_bytes;
        let start = at - at % block;
        let length = (end - start).min(ASK).next_multiple_of(block).min(size - start);
        self.requests += 1;
        let cookie = self.requests;
        let length = u32::try_from(length).or_else(|_| broken("a request that is too long"))?;
        self.stream.write_all(&request(COMMAND_STATUS, cookie, start, length))?;
        self.stream.flush()?;
        let mut extents = None;
        for _ in 0..CHUNKS {
            let (kind, done, payload) = read_chunk(&mut self.stream, cookie)?;
            match kind {
                CHUNK_NONE if payload.is_empty() => {}
                CHUNK_STATUS => {
                    if let Some(own) = parse_status(&payload, self.context, start, size)?
                        && extents.replace(own).is_some()
                    {
                        return broken("two block states of the same");
                    }
                }
                kind if kind & CHUNK_ERROR != 0 => {
                    return Err(HandshakeError::Refused(format!(
                        "no block status (error {})",
                        code(&payload)
                    )));
                }
                kind => return broken(format!("an unexpected chunk of kind {kind}")),
            }
            if done {
                return extents.map_or_else(|| broken("no block status in the reply"), Ok);
            }
        }
        broken("no end of chunks")
    }

    /// Takes leave, so that the server has nothing to complain of.
    ///
    /// # Errors
    /// When the server has gone already.
    pub fn leave(mut self) -> io::Result<()> {
        self.stream.write_all(&request(COMMAND_LEAVE, 0, 0, 0))?;
        self.stream.flush()
    }
}

/// Chooses the context; its number for this connection. None when the server does not have it.
fn set_context(stream: &mut (impl Read + Write), export: &str) -> Result<Option<u32>> {
    let length = |text: &str| match u32::try_from(text.len()) {
        Ok(length) => Ok(length.to_be_bytes()),
        Err(_) => broken("export name too long"),
    };
    // The export, how many contexts are asked for, and these.
    let (name, count, query) = (length(export)?, 1u32.to_be_bytes(), length(CONTEXT)?);
    let data = [&name[..], export.as_bytes(), &count, &query, CONTEXT.as_bytes()].concat();
    stream.write_all(&option(OPTION_CONTEXT, &data)?)?;
    let mut context = None;
    for _ in 0..3 {
        let (kind, data) = read_reply(stream, OPTION_CONTEXT)?;
        match kind {
            REPLY_ACK => return Ok(context),
            REPLY_CONTEXT => {
                let mut data = data.as_slice();
                let number = read_u32(&mut data)?;
                if data != CONTEXT.as_bytes() || context.replace(number).is_some() {
                    return broken("a context that was not asked for");
                }
            }
            kind if is_refusal(kind) => return Ok(None),
            kind => return broken(format!("unexpected answer {kind:#x}")),
        }
    }
    broken("no end of answers to one option")
}

fn request(command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(28);
    bytes.extend(REQUEST.to_be_bytes());
    bytes.extend(0u16.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

/// The kind of a chunk, whether it is the last one, and what it holds.
fn read_chunk(stream: &mut impl Read, cookie: u64) -> Result<(u16, bool, Vec<u8>)> {
    let magic = read_u32(stream)?;
    if magic == SIMPLE {
        // Errors may come in the old form.
        let payload = read_array::<4>(stream)?.to_vec();
        return if read_u64(stream)? == cookie { Ok((CHUNK_ERROR, true, payload)) } else { broken(OTHER) };
    }
    if magic != CHUNK {
        return broken("bad magic of a reply");
    }
    let (flags, kind) = (read_u16(stream)?, read_u16(stream)?);
    if read_u64(stream)? != cookie {
        return broken(OTHER);
    }
    let length = read_u32(stream)?;
    if length > CHUNK_LIMIT {
        return broken(format!("a chunk of {length} bytes"));
    }
    let mut payload = Vec::new();
    let read = stream.take(length.into()).read_to_end(&mut payload)?;
    if read != usize::try_from(length).unwrap_or(usize::MAX) {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok((kind, flags & DONE != 0, payload))
}

const OTHER: &str = "a reply to a request that was not sent";

/// The number of an error; 0 when there is none.
fn code(mut payload: &[u8]) -> u32 {
    read_u32(&mut payload).unwrap_or(0)
}

/// The extents of a block status, from `start` on; None when they are of another context.
fn parse_status(mut payload: &[u8], context: u32, start: u64, size: u64) -> Result<Option<Vec<State>>> {
    if read_u32(&mut payload)? != context {
        return Ok(None);
    }
    let (descriptors, rest) = payload.as_chunks::<8>();
    if descriptors.is_empty() || !rest.is_empty() {
        return broken(format!("a block status of {} bytes", payload.len()));
    }
    let mut extents: Vec<State> = Vec::with_capacity(descriptors.len());
    let mut at = start;
    for descriptor in descriptors {
        let mut descriptor = &descriptor[..];
        let (length, state) = (read_u32(&mut descriptor)?, read_u32(&mut descriptor)?);
        let end = at.saturating_add(length.into()).min(size);
        if end <= at {
            return broken("a block status of nothing");
        }
        let data = state & ZERO == 0;
        match extents.last_mut() {
            Some((last, same)) if *same == data => last.end = end,
            _ => extents.push((at..end, data)),
        }
        at = end;
    }
    Ok(Some(extents))
}

#[cfg(test)]
#[path = "nbd_status_tests.rs"]
mod tests;
