//! The kernel's own word that devices come and go (netlink(7), `NETLINK_KOBJECT_UEVENT`).

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use super::wait::readable_within;
use crate::error::{Context, Result};

/// The group to which the kernel itself speaks; udev's is 2.
const FROM_KERNEL: u32 = 1;
/// Longer than any event.
const EVENT: usize = 8 << 10;

/// Hears of devices from when it was opened.
#[derive(Debug)]
pub struct Uevents {
    socket: OwnedFd,
}

impl Uevents {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn listen() -> Result<Self> {
        let failed = || "cannot listen for devices";
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol).context(failed)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, FROM_KERNEL)).context(failed)?;
        Ok(Self { socket })
    }

    /// Looks again after every event until `look` finds something or `patience` is over.
    ///
    /// # Errors
    /// Those of `look`, and when the kernel refuses to wait.
    pub fn until<T>(
        &self,
        patience: Duration,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let failed = || "cannot wait for devices";
        let started = Instant::now();
        loop {
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            let left = patience.saturating_sub(started.elapsed());
            if !readable_within(self.socket.as_fd(), left).context(failed)? {
                return Ok(None);
            }
            self.drain().context(failed)?;
        }
    }

    /// Takes all that was said: what it was about is looked up.
    fn drain(&self) -> nix::Result<()> {
        let mut event = [0; EVENT];
        loop {
            match recv(self.socket.as_raw_fd(), &mut event, MsgFlags::empty()) {
                Err(Errno::EAGAIN) => return Ok(()),
                // ENOBUFS: some were lost, and what they told of is there to be seen.
                Ok(_) | Err(Errno::EINTR | Errno::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_and_what_is_there_needs_none() {
        let events = Uevents::listen().unwrap();
        assert_eq!(events.until(Duration::from_millis(20), || Ok(None::<()>)).unwrap(), None);
        assert_eq!(events.until(Duration::ZERO, || Ok(Some(1))).unwrap(), Some(1));
    }
}
