//! Attaching by nbd: qemu-nbd serves the image on a private socket, and the kernel makes a block device of it that
//! no other run can take. The device goes with its last opener and the server with the device, so a kill leaves
//! nothing once the kernel has unmounted what is on it.
//!
//! Disconnecting flushes nothing, so `close` flushes first, and waits for the server's end, which writes the
//! format's own metadata, last. A server that dies takes all I/O with it at once: a thread watches it, since
//! requests that it never answered would otherwise wait for the kernel's time-out.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::io::{self, PipeWriter};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::data::gather;
use super::nbd_protocol::Negotiated;
use super::nbd_server::Server;
use super::nbd_status::StatusClient;
use super::{ImageSpec, LAST_MOMENTS, judge_end, server_lost};
use crate::erase::extent::{Extent, Extents};
use crate::error::{Context, Error, Result, both};
use crate::sys::child::Child;
use crate::sys::nbd_device::{NbdNode, Owner, left_behind};
use crate::sys::nbd_netlink::{Connection, NbdDriver};
use crate::sys::tool::Tool;
use crate::sys::trouble;
use crate::sys::wait::{first_readable, is_hung_up};

const SERVER: &str = "qemu-nbd";
/// After this long without an answer the kernel gives a request up. A dead server is noticed at once without it;
/// this is for one that lives and hangs, and slow storage must not look like that.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// How long the server may take to write its last metadata and end.
const EXIT_PATIENCE: Duration = Duration::from_secs(300);
/// The block sizes that the kernel takes, in bytes: from the smallest to the page size that every machine has.
const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 512..=4096;

/// An image as a block device. Close it: dropping it cuts it off without flushing.
#[derive(Debug)]
#[must_use = "dropping the disk cuts it off without flushing"]
pub struct NbdDisk {
    // Dropped in this order: nobody watches a device that is taken down, and the server goes last.
    watch: Watch,
    status: Status,
    device: Device,
    server: Child,
    /// The kernel's connection to the server.
    socket: UnixStream,
    size_bytes: u64,
}

/// Our own connection, beside that of the kernel: None when the server cannot tell where it has data, or failed to:
/// then all counts as data.
type Status = Mutex<Option<StatusClient<UnixStream>>>;

impl NbdDisk {
    /// Serves the image and makes a device of it. The server's socket has a name in `folder` for a moment.
    ///
    /// # Errors
    /// `HostLacks` without qemu-nbd, an nbd driver, root or device nodes; `Busy` when somebody else holds the
    /// image's lock; `Unsupported` when its block size is too big or it is empty; failed otherwise, with what
    /// qemu-nbd said.
    pub fn attach(image: &ImageSpec, folder: &Path) -> Result<Self> {
        let program = Tool::find(SERVER)?;
        let mut driver = NbdDriver::open()?;
        for index in left_behind() {
            // Its owner is dead. Where it cannot be freed the kernel just picks another one for us.
            let _ = driver.disconnect(index);
        }
        let Server { child: mut server, socket, offer, status } = Server::start(&program, image, folder)?;
        let link = Link::connect(driver, &socket, &offer)?;
        let device = Device::open(link, &offer, image.read_only)?;
        // The device goes with its last opener, and the server with the device. When we are killed it must live that
        // long: the kernel unmounts what is on the device, and would wait for a dead server until its time-out.
        server.let_go()?;
        let size_bytes = device.node.size_bytes()?;
        if size_bytes != offer.size_bytes {
            let (path, offered) = (device.node.path.display(), offer.size_bytes);
            return Err(Error::failed(format!(
                "{path} has {size_bytes} bytes instead of the image's {offered}"
            )));
        }
        let watch = Watch::start(&server, device.link.index).context(|| "cannot watch qemu-nbd")?;
        Ok(Self { watch, status: Mutex::new(status), device, server, socket, size_bytes })
    }

    /// The block device.
    pub fn device(&self) -> &Path {
        &self.device.node.path
    }

    /// Its size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// What of a range may hold data other than zeros: see [`super::AttachedDisk::data`].
    ///
    /// # Errors
    /// When the server does not answer, or a signal came.
    pub(super) fn data(&self, within: Extent) -> Result<Extents> {
        let cannot = || format!("cannot tell where {} has data", self.device().display());
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut client) = status.take() else { return Extents::new([within]) };
        client.forget();
        let data = gather(within, |from, end| client.next_data(from, end).context(cannot));
        // After a signal it is in order, and after an error the run ends.
        if data.is_ok() {
            *status = Some(client);
        }
        data
    }

    /// Tells whether the server still serves: after an I/O error, whether this is why.
    ///
    /// # Errors
    /// When it has ended, with its last words, or the kernel has given it up.
    pub fn check(&self) -> Result<()> {
        let cut = is_hung_up(self.socket.as_fd()).context(|| "cannot watch qemu-nbd")?;
        // The kernel sees its connection end, and fails what waits for it, some moments before the server has ended.
        let patience = if cut { LAST_MOMENTS } else { Duration::ZERO };
        match self.server.exit_within(patience)? {
            Some(exit) => {
                self.watch.told.set(true);
                Err(server_lost(SERVER, Ok(exit)))
            }
            None if cut => {
                let seconds = REQUEST_TIMEOUT.as_secs();
                let why = format!("it gave no answer within {seconds} s, or a wrong one");
                Err(Error::failed(format!("the kernel gave {SERVER} up: {why}")))
            }
            None => Ok(()),
        }
    }

    /// Flushes, disconnects, and waits until the server has written everything and ended. Unmount first, and close
    /// what is stacked on the device.
    ///
    /// # Errors
    /// When anything of this failed, or the server had ended before: the image's state is then unknown.
    pub fn close(self) -> Result<()> {
        let Self { watch, status, mut device, server, .. } = self;
        // First, for the server ends with its last client. That it has gone before is told below.
        if let Some(client) = status.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let _ = client.leave();
        }
        let flushed =
            device.node.file.sync_all().context(|| format!("cannot flush {}", device.node.path.display()));
        let lost = watch.stop();
        let disconnected = device.link.disconnect();
        drop(device);
        let ended = server.wait_within(EXIT_PATIENCE);
        let ended = if lost { Err(server_lost(SERVER, ended)) } else { ended.and_then(judge_end) };
        both(both(ended, flushed), disconnected)
    }
}

/// A device that is connected until it is disconnected.
#[derive(Debug)]
struct Link {
    driver: NbdDriver,
    index: u32,
    mark: String,
    connected: bool,
}

impl Link {
    fn connect(mut driver: NbdDriver, socket: &UnixStream, offer: &Negotiated) -> Result<Self> {
        let mark = Owner::ourselves()?.mark();
        let index = driver.connect(&Connection {
            socket: socket.as_fd(),
            timeout: REQUEST_TIMEOUT,
            server_flags: offer.transmission_flags,
            backend: &mark,
        })?;
        Ok(Self { driver, index, mark, connected: true })
    }

    fn disconnect(&mut self) -> Result<()> {
        self.connected = false;
        self.driver.disconnect(self.index)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.connected {
            self.disconnect().unwrap_or_else(trouble::note);
        }
    }
}

/// A connected device that we hold open. The link is dropped first: the index is ours until the node is closed.
#[derive(Debug)]
struct Device {
    link: Link,
    node: NbdNode,
}

impl Device {
    /// Takes hold of the device before it has anything to show to the rest of the host.
    fn open(link: Link, offer: &Negotiated, read_only: bool) -> Result<Self> {
        let block_size = block_size(offer)?;
        let node = NbdNode::open(link.index, read_only)?;
        let mut device = Self { link, node };
        device.node.keep_udev_away();
        let Link { driver, index, mark, .. } = &mut device.link;
        driver.configure(*index, offer.size_bytes, block_size, mark)?;
        device.node.forget_partitions()?;
        device.node.keep_udev_away();
        Ok(device)
    }
}

/// The device's logical block size in bytes: 512 unless the server needs more.
fn block_size(offer: &Negotiated) -> Result<u32> {
    if offer.size_bytes == 0 {
        return Err(Error::unsupported("the image is empty"));
    }
    let size =
        offer.block_sizes.map_or(*BLOCK_SIZES.start(), |sizes| sizes.minimum.max(*BLOCK_SIZES.start()));
    if !BLOCK_SIZES.contains(&size) {
        return Err(Error::unsupported(format!("qemu-nbd serves the image in blocks of {size} bytes only"))
            .hint("use --attach fuse"));
    }
    Ok(size)
}

/// A thread that takes the device down as soon as its server ends, so that nobody waits for answers that cannot
/// come. It ends when it is told to, which is before the index can become somebody else's.
#[derive(Debug)]
struct Watch {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<bool>>,
    /// Whether the server's end is known to whom it matters.
    told: Cell<bool>,
}

impl Watch {
    fn start(server: &Child, index: u32) -> Result<Self> {
        let ended = server.pidfd().try_clone_to_owned().context(|| "cannot duplicate a descriptor")?;
        let (stopped, stop) = io::pipe().context(|| "cannot make a pipe")?;
        let mut driver = NbdDriver::open()?;
        let watch = move || {
            let lost = first_readable([ended.as_fd(), stopped.as_fd()]) == Ok(0);
            if lost {
                // An error here leaves it to the kernel's time-out.
                let _ = driver.disconnect(index);
            }
            lost
        };
        let thread = thread::Builder::new()
            .name("nbd-watch".into())
            .spawn(watch)
            .context(|| "cannot start a thread")?;
        Ok(Self { stop: Some(stop), thread: Some(thread), told: Cell::new(false) })
    }

    /// Ends the thread; true when the server had ended before.
    fn stop(mut self) -> bool {
        self.join()
    }

    fn join(&mut self) -> bool {
        self.stop = None;
        self.thread.take().is_some_and(|thread| thread.join().unwrap_or(true))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A run that neither closed nor asked may not have noticed.
        if self.join() && !self.told.get() {
            trouble::note(Error::failed(format!("{SERVER} ended while the image was attached")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::nbd_protocol::BlockSizes;
    use crate::error::ErrorKind;

    #[test]
    fn block_sizes_are_those_that_the_kernel_takes() {
        let offer = |minimum| Negotiated {
            size_bytes: 1 << 20,
            transmission_flags: 1,
            block_sizes: Some(BlockSizes { minimum, preferred: 65536, maximum: 1 << 25 }),
        };
        assert_eq!(block_size(&offer(1)).unwrap(), 512);
        assert_eq!(block_size(&offer(4096)).unwrap(), 4096);
        assert_eq!(block_size(&offer(65536)).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(block_size(&Negotiated { block_sizes: None, ..offer(1) }).unwrap(), 512);
        let empty = Negotiated { size_bytes: 0, ..offer(1) };
        assert_eq!(block_size(&empty).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
