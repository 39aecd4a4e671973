//! Generic netlink, as little of it as five fixed messages need: a socket tied to the kernel, one request and its
//! answer at a time, attributes in and out. Own code because the crate for it (neli) brings twenty more crates and
//! a thread; this is one page, and what it parses is property-tested.
//!
//! Source: netlink(7), linux/netlink.h, linux/genetlink.h. Numbers are in the host's byte order.

#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv, send, setsockopt,
    socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;

/// Length of `struct nlmsghdr`, `struct genlmsghdr` and `struct nlattr`.
const MESSAGE_HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
const ATTRIBUTE_HEADER: usize = 4;
/// Everything in a message starts at a multiple of this.
const ALIGNMENT: usize = 4;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
/// Flags in an attribute's type (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const ATTRIBUTE_FLAGS: u16 = 3 << 14;
const ATTRIBUTE_NESTED: u16 = 1 << 15;
/// The family that knows the others, its command and its attributes (`GENL_ID_CTRL`, `CTRL_*`).
const CONTROLLER: u16 = 0x10;
const CONTROLLER_GET_FAMILY: u8 = 3;
const CONTROLLER_FAMILY_ID: u16 = 1;
const CONTROLLER_FAMILY_NAME: u16 = 2;
/// Longest answer that is read, in bytes.
const ANSWER_LIMIT: usize = 1 << 20;
/// The kernel queues its answer before send returns, so only a lost one is ever waited for, this many seconds.
const ANSWER_PATIENCE: i64 = 10;

/// Attributes of a message, in the making.
#[derive(Debug, Default, Clone)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    pub(super) fn u64(self, kind: u16, value: u64) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A string with its closing NUL.
    pub(super) fn string(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub(super) fn nested(self, kind: u16, inner: &Attributes) -> Self {
        self.bytes(kind | ATTRIBUTE_NESTED, &inner.0)
    }

    fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // Longer values than a u16 can tell are cut; the constants and short strings that are sent never are.
        let value = &value[..value.len().min(usize::from(u16::MAX) - ATTRIBUTE_HEADER)];
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(ALIGNMENT), 0);
        self
    }
}

/// The value of the first attribute of this kind.
pub(super) fn find_attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// Kind and value of each attribute, up to the first that does not fit.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(get_u16(bytes, 0)?);
        let kind = get_u16(bytes, 2)? & !ATTRIBUTE_FLAGS;
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// What one datagram from the kernel says about the request with this sequence number.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Attributes of the reply, when there is one.
    pub attributes: Option<Vec<u8>>,
    /// The kernel's verdict, which is the last thing it says.
    pub verdict: Option<Result<(), Errno>>,
}

/// Reads the messages of one datagram and takes those that answer the request `sequence`.
pub fn parse_datagram(mut bytes: &[u8], sequence: u32) -> Answer {
    let mut answer = Answer { attributes: None, verdict: None };
    while let Some(length) = get_u32(bytes, 0).and_then(|length| usize::try_from(length).ok()) {
        let Some(payload) = bytes.get(MESSAGE_HEADER..length) else { break };
        if get_u32(bytes, 8) == Some(sequence) {
            if get_u16(bytes, 4) == Some(NLMSG_ERROR) {
                let code = get_u32(payload, 0).map(|code| i32::from_ne_bytes(code.to_ne_bytes()));
                answer.verdict = code.map(|code| match code {
                    0 => Ok(()),
                    code => Err(Errno::from_raw(code.saturating_neg())),
                });
            } else {
                answer.attributes = payload.get(GENERIC_HEADER..).map(<[u8]>::to_vec);
            }
        }
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or(&[]);
    }
    answer
}

fn get_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// The number at this place, if there are so many bytes.
pub(super) fn get_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// A generic netlink socket that talks to the kernel only.
#[derive(Debug)]
pub(super) struct GenericSocket {
    fd: OwnedFd,
    sequence: u32,
}

impl GenericSocket {
    pub(super) fn open() -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkGeneric)?;
        // Connected to port 0, the kernel's, it takes nothing from other processes.
        connect(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&fd, ReceiveTimeout, &TimeVal::new(ANSWER_PATIENCE, 0))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// The number of a family by its name. The kernel may load the module that has it. ENOENT: there is none.
    pub(super) fn resolve(&mut self, name: &str) -> nix::Result<u16> {
        let attributes = Attributes::default().string(CONTROLLER_FAMILY_NAME, name);
        let answer = self.request(CONTROLLER, CONTROLLER_GET_FAMILY, &attributes)?;
        find_attribute(&answer, CONTROLLER_FAMILY_ID).and_then(|id| get_u16(id, 0)).ok_or(Errno::EPROTO)
    }

    /// Sends one command and returns the attributes of the reply, empty when the kernel only acknowledges.
    pub(super) fn request(
        &mut self,
        family: u16,
        command: u8,
        attributes: &Attributes,
    ) -> nix::Result<Vec<u8>> {
        self.sequence = self.sequence.wrapping_add(1);
        let message = self.message(family, command, attributes);
        send(self.fd.as_raw_fd(), &message, MsgFlags::empty())?;
        let mut reply = Vec::new();
        loop {
            let answer = parse_datagram(&self.receive()?, self.sequence);
            reply = answer.attributes.unwrap_or(reply);
            if let Some(verdict) = answer.verdict {
                return verdict.map(|()| reply);
            }
        }
    }

    fn message(&self, family: u16, command: u8, attributes: &Attributes) -> Vec<u8> {
        let length = MESSAGE_HEADER + GENERIC_HEADER + attributes.0.len();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        bytes.extend(family.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        bytes.extend(self.sequence.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend([command, 1, 0, 0]);
        bytes.extend(&attributes.0);
        bytes
    }

    /// One datagram whole: a first look tells its length.
    fn receive(&self) -> nix::Result<Vec<u8>> {
        let fd = self.fd.as_raw_fd();
        let length = retry(|| recv(fd, &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC))?;
        let mut bytes = vec![0; length.min(ANSWER_LIMIT)];
        let got = retry(|| recv(fd, &mut bytes, MsgFlags::MSG_TRUNC))?;
        if got > bytes.len() { Err(Errno::EMSGSIZE) } else { Ok(bytes) }
    }
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_are_laid_out_as_the_header_says() {
        let inner = Attributes::default().u32(1, 7);
        let Attributes(bytes) = Attributes::default().string(2, "nbd!").nested(3, &inner).u64(4, 9);
        // Length 9 and 3 bytes of padding, then a nested one of 12 bytes, then one of 12 bytes.
        assert_eq!(bytes[..12], [&9u16.to_ne_bytes()[..], &2u16.to_ne_bytes(), b"nbd!\0\0\0\0"].concat());
        assert_eq!(bytes[12..16], [12u16.to_ne_bytes(), 0x8003u16.to_ne_bytes()].concat());
        assert_eq!(
            find_attribute(&bytes, 3).and_then(|inner| find_attribute(inner, 1)),
            Some(&7u32.to_ne_bytes()[..])
        );
        assert_eq!(find_attribute(&bytes, 4), Some(&9u64.to_ne_bytes()[..]));
        assert_eq!(find_attribute(&bytes, 5), None);
    }

    #[test]
    fn the_kernel_answers_and_names_its_errors() {
        let mut socket = GenericSocket::open().unwrap();
        assert_eq!(socket.resolve("nlctrl"), Ok(CONTROLLER));
        assert_eq!(socket.resolve("no such thing"), Err(Errno::ENOENT));
        // After an error the next answer is still told apart by its number.
        assert_eq!(socket.resolve("nlctrl"), Ok(CONTROLLER));
    }

    proptest! {
        #[test]
        fn any_datagram_is_parsed_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse_datagram(&bytes, 1);
            let _ = attributes(&bytes).count();
        }

        #[test]
        fn a_bad_length_in_a_good_datagram_is_harmless(at in 0usize..40, byte in any::<u8>()) {
            let socket = GenericSocket { fd: std::fs::File::open("/dev/null").unwrap().into(), sequence: 5 };
            let mut bytes = socket.message(CONTROLLER, 1, &Attributes::default().u32(1, 2).u64(3, 4));
            bytes[at] = byte;
            for (_, value) in attributes(&parse_datagram(&bytes, 5).attributes.unwrap_or_default()) {
                prop_assert!(value.len() <= 40);
            }
        }
    }
}
