//! Waiting for an event on descriptors, with an end to one's patience.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Waits until `fd` polls readable (or in error, or hung up) or `patience` is over; true when it did.
///
/// # Errors
/// Those of poll(2) but EINTR, after which the waiting goes on.
pub fn readable_within(fd: BorrowedFd<'_>, patience: Duration) -> nix::Result<bool> {
    let started = Instant::now();
    loop {
        // Rounded up, for a wait of 0 ms in the last millisecond would spin.
        let left = patience.saturating_sub(started.elapsed()).as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
            Ok(0) if left == 0 => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

/// Waits until one of `fds` is ready for what stands beside it, in error or hung up, or `patience` is over; tells for each
/// whether it is.
///
/// # Errors
/// Those of poll(2) but EINTR, after which the waiting goes on.
pub fn ready_within(fds: &[(BorrowedFd<'_>, PollFlags)], patience: Duration) -> nix::Result<Vec<bool>> {
    let started = Instant::now();
    let mut polled: Vec<_> = fds.iter().map(|(fd, flags)| PollFd::new(*fd, *flags)).collect();
    loop {
        let left = patience.saturating_sub(started.elapsed()).as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, timeout) {
            Ok(0) if left > 0 => {}
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
            Ok(_) => return Ok(polled.iter().map(|fd| fd.any().unwrap_or(true)).collect()),
        }
    }
}

/// Whether the other end of a connection has gone, or the connection was shut down; what is left in it to be read is
/// not looked at.
///
/// # Errors
/// Those of poll(2).
pub fn is_hung_up(fd: BorrowedFd<'_>) -> nix::Result<bool> {
    let mut polled = [PollFd::new(fd, PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO)?;
    Ok(polled[0].any().unwrap_or(true))
}

/// Waits, for as long as it takes, until one of `fds` polls readable, in error or hung up; returns the place of the
/// first that does.
///
/// # Errors
/// Those of poll(2) but EINTR.
pub fn first_readable<const N: usize>(fds: [BorrowedFd<'_>; N]) -> nix::Result<usize> {
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    loop {
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
            Ok(_) => {
                if let Some(place) = polled.iter().position(|fd| fd.any().unwrap_or(true)) {
                    return Ok(place);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::Shutdown;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_connection_is_hung_up_when_either_end_leaves() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"unread").unwrap();
        assert!(!is_hung_up(ours.as_fd()).unwrap());
        drop(theirs);
        assert!(is_hung_up(ours.as_fd()).unwrap());
        let (ours, _theirs) = UnixStream::pair().unwrap();
        ours.try_clone().unwrap().shutdown(Shutdown::Both).unwrap();
        assert!(is_hung_up(ours.as_fd()).unwrap());
    }
}
