//! The kernel's nbd driver through its generic netlink family: devices that the kernel itself picks, so that two
//! runs can never take the same one.
//!
//! Source: linux/nbd-netlink.h and drivers/block/nbd.c. All commands need CAP_SYS_ADMIN in the initial user
//! namespace; before Linux 6.4 the family is seen in the initial network namespace only.

#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;

use super::netlink::{Attributes, GenericSocket, attributes, find_attribute, get_u32};
use super::tool::Tool;
use crate::error::{Context, Error, ErrorKind, Result};

const CONNECT: u8 = 1;
const DISCONNECT: u8 = 2;
const RECONFIGURE: u8 = 3;
const STATUS: u8 = 5;

const INDEX: u16 = 1;
const SIZE_BYTES: u16 = 2;
const BLOCK_SIZE_BYTES: u16 = 3;
const TIMEOUT: u16 = 4;
const SERVER_FLAGS: u16 = 5;
const CLIENT_FLAGS: u16 = 6;
const SOCKETS: u16 = 7;
const DEVICE_LIST: u16 = 9;
const BACKEND_IDENTIFIER: u16 = 10;
/// Inside `SOCKETS` and `DEVICE_LIST`.
const SOCKET_ITEM: u16 = 1;
const SOCKET_FD: u16 = 1;
const DEVICE_ITEM: u16 = 1;
const DEVICE_INDEX: u16 = 1;
const DEVICE_CONNECTED: u16 = 2;
/// The device is disconnected when its last opener closes it (`NBD_CFLAG_DISCONNECT_ON_CLOSE`).
const DISCONNECT_ON_CLOSE: u64 = 1 << 1;

const HINT: &str = "load the module nbd (modprobe nbd), or use --attach fuse where the kernel has none";

/// A device to be: what the handshake gave, and how the kernel shall treat it.
#[derive(Debug)]
pub struct Connection<'a> {
    /// A stream socket past the handshake, blocking and without timeouts. The kernel keeps its own reference.
    pub socket: BorrowedFd<'a>,
    /// After this long without an answer a request fails and the connection is given up. Whole seconds, at least 1.
    pub timeout: Duration,
    /// Transmission flags of the handshake.
    pub server_flags: u16,
    /// Whom the device belongs to, shown in sysfs as `backend` since Linux 5.14 and ignored before.
    pub backend: &'a str,
}

/// The driver's command channel.
#[derive(Debug)]
pub struct NbdDriver {
    socket: GenericSocket,
    family: u16,
}

impl NbdDriver {
    /// Opens the channel, loading the module when the kernel does not do so by itself.
    ///
    /// # Errors
    /// `HostLacks` when the kernel has no nbd or does not show it here, and when we may not use it.
    pub fn open() -> Result<Self> {
        let mut socket = GenericSocket::open().context(|| "cannot open a generic netlink socket")?;
        let mut family = socket.resolve("nbd");
        let mut loaded = Ok(());
        if family == Err(Errno::ENOENT) {
            loaded = load_module();
            family = socket.resolve("nbd");
        }
        match (family, loaded) {
            (Ok(family), _) => Ok(Self { socket, family }),
            (Err(Errno::ENOENT), Err(error)) => {
                Err(Error::host_lacks("the kernel has no nbd driver").caused_by(error).hint(HINT))
            }
            (Err(Errno::ENOENT), Ok(())) => Err(Error::host_lacks(
                "the nbd driver is loaded but hidden: before Linux 6.4 it is seen in the first network namespace only",
            )
            .hint("run outside of the container or with the host's network, or use --attach fuse")),
            (Err(error), _) => Err(Error::failed("cannot ask the kernel for its nbd driver").caused_by(error)),
        }
    }

    /// Makes a device, still of no size; the kernel picks a free one or makes a new one. Returns its index: N of
    /// `nbdN`.
    ///
    /// # Errors
    /// `HostLacks` without CAP_SYS_ADMIN; failed when the kernel refuses the socket.
    pub fn connect(&mut self, connection: &Connection<'_>) -> Result<u32> {
        let fd = u32::try_from(connection.socket.as_raw_fd()).context(|| "bad descriptor")?;
        let item = Attributes::default().nested(SOCKET_ITEM, &Attributes::default().u32(SOCKET_FD, fd));
        let request = Attributes::default()
            .u64(SIZE_BYTES, 0)
            .u64(TIMEOUT, connection.timeout.as_secs().max(1))
            .u64(SERVER_FLAGS, connection.server_flags.into())
            .nested(SOCKETS, &item)
            .string(BACKEND_IDENTIFIER, connection.backend);
        let what = "cannot make an nbd device";
        let answer =
            self.socket.request(self.family, CONNECT, &request).map_err(|error| refusal(what, error))?;
        let index = find_attribute(&answer, INDEX).and_then(|index| get_u32(index, 0));
        index.ok_or_else(|| Error::failed(format!("{what}: the kernel did not say which one it made")))
    }

    /// Gives the device its size, in bytes, and its logical block size, a power of two from 512 to the page size.
    /// From now on it goes away with its last opener: only for a device that is held open, or another process's
    /// look at it would be the last.
    ///
    /// # Errors
    /// When the device is not connected, `backend` is not the one it was made with, or a size is refused.
    pub fn configure(&mut self, index: u32, size_bytes: u64, block_size: u32, backend: &str) -> Result<()> {
        let request = Attributes::default()
            .u32(INDEX, index)
            .u64(SIZE_BYTES, size_bytes)
            .u64(BLOCK_SIZE_BYTES, block_size.into())
            .u64(CLIENT_FLAGS, DISCONNECT_ON_CLOSE)
            .string(BACKEND_IDENTIFIER, backend);
        self.command(RECONFIGURE, &request, || format!("cannot configure nbd{index}"))
    }

    /// Takes the device down: tells the server, and fails every request that is under way or still to come. Does
    /// not flush. One that is down already is no error.
    ///
    /// # Errors
    /// When there is no such device, or without CAP_SYS_ADMIN.
    pub fn disconnect(&mut self, index: u32) -> Result<()> {
        self.command(DISCONNECT, &Attributes::default().u32(INDEX, index), || {
            format!("cannot disconnect nbd{index}")
        })
    }

    /// Whether the device is in use: connected, or held open by anybody.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn in_use(&mut self, index: u32) -> Result<bool> {
        let what = || format!("cannot ask for the state of nbd{index}");
        let request = Attributes::default().u32(INDEX, index);
        let answer = self.socket.request(self.family, STATUS, &request).context(what)?;
        let list = find_attribute(&answer, DEVICE_LIST).unwrap_or_default();
        Ok(attributes(list)
            .filter(|(kind, _)| *kind == DEVICE_ITEM)
            .filter(|(_, item)| {
                find_attribute(item, DEVICE_INDEX).and_then(|at| get_u32(at, 0)) == Some(index)
            })
            .any(|(_, item)| find_attribute(item, DEVICE_CONNECTED).is_some_and(|value| value != [0])))
    }

    fn command(&mut self, command: u8, request: &Attributes, what: impl FnOnce() -> String) -> Result<()> {
        let answer = self.socket.request(self.family, command, request);
        answer.map(drop).map_err(|error| refusal(&what(), error))
    }
}

fn refusal(what: &str, error: Errno) -> Error {
    match error {
        Errno::EPERM => Error::host_lacks(what).hint("run as root, outside of an unprivileged container"),
        _ => Error::new(ErrorKind::Failed, what),
    }
    .caused_by(error)
}

/// Runs modprobe(8), which also asks /etc/modprobe.d what the administrator wants.
fn load_module() -> Result<()> {
    let (exit, _) = Tool::find("modprobe")?.spawn().args(["--quiet", "nbd"]).output(1 << 16)?;
    exit.success()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_nbd_is_told_so_with_a_way_out() {
        match NbdDriver::open() {
            Ok(mut driver) => assert!(driver.in_use(u32::MAX - 1).is_ok_and(|in_use| !in_use)),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::HostLacks, "{error:?}");
                assert!(error.what_to_do().is_some_and(|hint| hint.contains("--attach fuse")), "{error:?}");
            }
        }
    }
}
