//! The client's half of the NBD handshake (fixed newstyle), over any byte stream: it ends where the kernel takes
//! over. Every length that the server names is bounded before anything is read or allocated for it.
//!
//! Source: doc/proto.md of the NetworkBlockDevice/nbd project; the values in brackets below are its names. All
//! numbers on the wire are big-endian.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

/// First greeting word, `NBDMAGIC` (`INIT_PASSWD`).
const GREETING_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second greeting word, `IHAVEOPT`; also opens every option.
const OPTION_MAGIC: u64 = 0x4948_4156_454F_5054;
/// Opens every answer to an option.
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Handshake flag and client flag for the fixed newstyle (`NBD_FLAG_FIXED_NEWSTYLE`).
const FIXED_NEWSTYLE: u16 = 1;
/// The same for leaving out the 124 zero bytes of old (`NBD_FLAG_NO_ZEROES`).
const NO_ZEROES: u16 = 1 << 1;
/// The option that names an export and enters transmission (`NBD_OPT_GO`).
const OPTION_GO: u32 = 7;
/// The answers that end an option well, carry information, or refuse (`NBD_REP_ACK`, `NBD_REP_INFO`, bit 31).
pub(super) const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_ERROR: u32 = 1 << 31;
/// Kinds of information (`NBD_INFO_EXPORT`, `NBD_INFO_BLOCK_SIZE`).
const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;
/// Longest payload of one answer, in bytes; the protocol's longest string is 4096 bytes.
const REPLY_LIMIT: u32 = 8 << 10;
/// Most informational answers before the one that ends the option.
const INFO_COUNT_LIMIT: u32 = 64;
/// Most characters of a server's error text that are passed on.
const ERROR_TEXT_LIMIT: usize = 400;

/// The server has flags at all (`NBD_FLAG_HAS_FLAGS`).
pub const FLAG_HAS_FLAGS: u16 = 1;
/// The export cannot be written (`NBD_FLAG_READ_ONLY`).
pub const FLAG_READ_ONLY: u16 = 1 << 1;
/// The server understands flush (`NBD_FLAG_SEND_FLUSH`).
pub const FLAG_SEND_FLUSH: u16 = 1 << 2;
/// The server understands trim (`NBD_FLAG_SEND_TRIM`).
pub const FLAG_SEND_TRIM: u16 = 1 << 5;

/// What the server offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    /// Size of the export, in bytes.
    pub size_bytes: u64,
    /// Transmission flags as sent (`NBD_FLAG_*`), for the kernel.
    pub transmission_flags: u16,
    /// What block sizes the server asks for, if it said.
    pub block_sizes: Option<BlockSizes>,
}

/// Limits on the offset and length of a request, in bytes; the first two are powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSizes {
    /// Every request must be aligned to this.
    pub minimum: u32,
    /// Requests aligned to this are fast.
    pub preferred: u32,
    /// No request may carry more.
    pub maximum: u32,
}

/// Why there was no handshake.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The stream failed or ended.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// What came is not the protocol.
    #[error("the server breaks the NBD protocol: {0}")]
    Protocol(String),
    /// The server speaks only the old protocol.
    #[error("the server does not speak the fixed newstyle NBD protocol")]
    OldStyle,
    /// The server said no.
    #[error("the server refused the export: {0}")]
    Refused(String),
}

type Result<T> = std::result::Result<T, HandshakeError>;

pub(super) fn broken<T>(why: impl Into<String>) -> Result<T> {
    Err(HandshakeError::Protocol(why.into()))
}

/// Runs the handshake for `export` (`""` is the server's default) up to the point where requests may be sent.
///
/// # Errors
/// When the stream fails, the server breaks the protocol or is too old, or refuses the export.
pub fn negotiate(stream: &mut (impl Read + Write), export: &str) -> Result<Negotiated> {
    begin(stream)?;
    go(stream, export)
}

/// Takes the greeting and answers it; then come the options.
pub(super) fn begin(stream: &mut (impl Read + Write)) -> Result<()> {
    let no_zeroes = greet(stream)?;
    stream.write_all(&u32::from(FIXED_NEWSTYLE | no_zeroes).to_be_bytes())?;
    Ok(())
}

/// The last option: names the export, after which requests may be sent.
pub(super) fn go(stream: &mut (impl Read + Write), export: &str) -> Result<Negotiated> {
    stream.write_all(&go_option(export)?)?;
    stream.flush()?;
    read_go_replies(stream)
}

/// Reads the greeting; returns the bit of `NO_ZEROES` when the server has it.
fn greet(stream: &mut impl Read) -> Result<u16> {
    if read_u64(stream)? != GREETING_MAGIC {
        return broken("no NBD greeting");
    }
    if read_u64(stream)? != OPTION_MAGIC {
        return Err(HandshakeError::OldStyle);
    }
    let flags = read_u16(stream)?;
    if flags & FIXED_NEWSTYLE == 0 {
        return Err(HandshakeError::OldStyle);
    }
    Ok(flags & NO_ZEROES)
}

fn go_option(export: &str) -> Result<Vec<u8>> {
    let Some(name_len) = u32::try_from(export.len()).ok().filter(|len| *len <= 4096) else {
        return broken("export name longer than 4096 bytes");
    };
    let mut data = Vec::new();
    data.extend(name_len.to_be_bytes());
    data.extend(export.as_bytes());
    data.extend(1u16.to_be_bytes());
    data.extend(INFO_BLOCK_SIZE.to_be_bytes());
    option(OPTION_GO, &data)
}

/// An option as it is sent.
pub(super) fn option(option: u32, data: &[u8]) -> Result<Vec<u8>> {
    let Ok(length) = u32::try_from(data.len()) else { return broken("an option that is too long") };
    let mut bytes = Vec::new();
    bytes.extend(OPTION_MAGIC.to_be_bytes());
    bytes.extend(option.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend(data);
    Ok(bytes)
}

/// Whether an answer to an option is a no.
pub(super) fn is_refusal(kind: u32) -> bool {
    kind & REPLY_ERROR != 0
}

fn read_go_replies(stream: &mut impl Read) -> Result<Negotiated> {
    let mut export = None;
    let mut block_sizes = None;
    for _ in 0..=INFO_COUNT_LIMIT {
        let (kind, data) = read_reply(stream, OPTION_GO)?;
        match kind {
            REPLY_ACK => {
                let Some((size_bytes, transmission_flags)) = export else {
                    return broken("export accepted without its size");
                };
                return Ok(Negotiated { size_bytes, transmission_flags, block_sizes });
            }
            REPLY_INFO => {
                let mut data = data.as_slice();
                match read_u16(&mut data)? {
                    INFO_EXPORT => export = Some(parse_export(data)?),
                    INFO_BLOCK_SIZE => block_sizes = Some(parse_block_sizes(data)?),
                    // A client must ignore information that it did not ask for.
                    _ => {}
                }
            }
            kind if is_refusal(kind) => return Err(refusal(kind, &data)),
            kind => return broken(format!("unexpected answer {kind:#x}")),
        }
    }
    broken("no end of answers to one option")
}

/// Reads one answer to the option that was sent: its kind and its payload.
pub(super) fn read_reply(stream: &mut impl Read, sent: u32) -> Result<(u32, Vec<u8>)> {
    if read_u64(stream)? != REPLY_MAGIC {
        return broken("bad magic of an answer");
    }
    let option = read_u32(stream)?;
    if option != sent {
        return broken(format!("answer to option {option}, which was not sent"));
    }
    let kind = read_u32(stream)?;
    let length = read_u32(stream)?;
    if length > REPLY_LIMIT {
        return broken(format!("answer of {length} bytes"));
    }
    let mut data = Vec::new();
    if stream.take(length.into()).read_to_end(&mut data)? != usize::try_from(length).unwrap_or(usize::MAX) {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok((kind, data))
}

fn parse_export(mut data: &[u8]) -> Result<(u64, u16)> {
    if data.len() != 10 {
        return broken(format!("export information of {} bytes", data.len()));
    }
    let size = read_u64(&mut data)?;
    let flags = read_u16(&mut data)?;
    if i64::try_from(size).is_err() {
        return broken(format!("export of {size} bytes"));
    }
    if flags & FLAG_HAS_FLAGS == 0 {
        return broken("export without transmission flags");
    }
    Ok((size, flags))
}

fn parse_block_sizes(mut data: &[u8]) -> Result<BlockSizes> {
    if data.len() != 12 {
        return broken(format!("block sizes of {} bytes", data.len()));
    }
    let sizes = BlockSizes {
        minimum: read_u32(&mut data)?,
        preferred: read_u32(&mut data)?,
        maximum: read_u32(&mut data)?,
    };
    let sound = sizes.minimum.is_power_of_two()
        && sizes.preferred.is_power_of_two()
        && sizes.preferred >= sizes.minimum.max(512)
        && sizes.maximum >= sizes.minimum;
    if sound { Ok(sizes) } else { broken(format!("block sizes {sizes:?}")) }
}

/// The server's own words, shortened and without control characters, behind the name of its error.
fn refusal(kind: u32, data: &[u8]) -> HandshakeError {
    let name = match kind & !REPLY_ERROR {
        1 => "option not supported",
        2 => "refused by policy",
        3 => "invalid option",
        4 => "not supported on this platform",
        5 => "TLS required",
        6 => "no such export",
        7 => "server is shutting down",
        8 => "block sizes required",
        9 => "option too large",
        _ => "unknown error",
    };
    let text = String::from_utf8_lossy(data);
    let text: String = text.chars().filter(|c| !c.is_control()).take(ERROR_TEXT_LIMIT).collect();
    let colon = if text.is_empty() { "" } else { ": " };
    HandshakeError::Refused(format!("{name}{colon}{text}"))
}

pub(super) fn read_array<const N: usize>(stream: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn read_u16(stream: &mut impl Read) -> Result<u16> {
    read_array(stream).map(u16::from_be_bytes)
}

pub(super) fn read_u32(stream: &mut impl Read) -> Result<u32> {
    read_array(stream).map(u32::from_be_bytes)
}

pub(super) fn read_u64(stream: &mut impl Read) -> Result<u64> {
    read_array(stream).map(u64::from_be_bytes)
}

#[cfg(test)]
#[path = "nbd_protocol_tests.rs"]
mod tests;
