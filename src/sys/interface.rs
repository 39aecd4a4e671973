//! The network of the machine: one interface, at the addresses that qemu's user-mode network has for the guest of a
//! machine (qemu's documentation, "Using the user mode network stack"). Set by the ioctls of netdevice(7) and of
//! linux/route.h.
#![expect(unsafe_code, reason = "ioctl(2) has no safe form for these requests")]

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::error::{Context, Error, Result};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Where names are resolved.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

nix::ioctl_read_bad!(
    /// Reads the flags of an interface.
    get_flags,
    libc::SIOCGIFFLAGS, libc::ifreq
);
nix::ioctl_write_ptr_bad!(
    /// Sets the flags of an interface.
    set_flags,
    libc::SIOCSIFFLAGS, libc::ifreq
);
nix::ioctl_write_ptr_bad!(
    /// Sets the address of an interface.
    set_address,
    libc::SIOCSIFADDR, libc::ifreq
);
nix::ioctl_write_ptr_bad!(
    /// Sets the mask of an interface's network.
    set_mask,
    libc::SIOCSIFNETMASK, libc::ifreq
);
nix::ioctl_write_ptr_bad!(
    /// Adds a route.
    add_route,
    libc::SIOCADDRT, libc::rtentry
);

/// The name of the one interface that is not the machine's own loopback.
///
/// # Errors
/// When the kernel does not say.
pub fn find() -> Result<Option<String>> {
    let names = fs::read_dir("/sys/class/net").context(|| "cannot look for network interfaces")?;
    let mut names = names.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.find(|name| name != "lo"))
}

/// Gives the interface its address, and a way out.
///
/// # Errors
/// When the kernel refuses.
pub fn set_up(name: &str) -> Result<()> {
    let failed = || format!("cannot set up the network interface {name}");
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None).context(failed)?;
    let mut own = request("lo")?;
    raise(&socket, &mut own).context(failed)?;
    let mut request = request(name)?;
    let fd = socket.as_raw_fd();
    request.ifr_ifru.ifru_addr = address(ADDRESS);
    // SAFETY: the request is whole and is only read.
    unsafe { set_address(fd, &raw const request) }.context(failed)?;
    request.ifr_ifru.ifru_addr = address(MASK);
    // SAFETY: as above.
    unsafe { set_mask(fd, &raw const request) }.context(failed)?;
    raise(&socket, &mut request).context(failed)?;
    // SAFETY: all zero is a value of this structure of numbers and a null pointer.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    let anywhere = address(Ipv4Addr::UNSPECIFIED);
    (route.rt_dst, route.rt_genmask, route.rt_gateway) = (anywhere, anywhere, address(GATEWAY));
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: the route is whole and is only read.
    unsafe { add_route(fd, &raw const route) }.context(failed)?;
    Ok(())
}

fn raise(socket: &OwnedFd, request: &mut libc::ifreq) -> nix::Result<()> {
    // SAFETY: the kernel writes the flags into the request, which is whole.
    unsafe { get_flags(socket.as_raw_fd(), request) }?;
    // SAFETY: the kernel has just set this member of the union.
    unsafe { request.ifr_ifru.ifru_flags |= FLAG_UP };
    // SAFETY: the request is whole and is only read.
    unsafe { set_flags(socket.as_raw_fd(), request) }.map(drop)
}

/// `IFF_UP` as wide as the field that it is put into.
const FLAG_UP: libc::c_short = 1;

fn request(name: &str) -> Result<libc::ifreq> {
    // SAFETY: all zero is a value of this structure of numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(Error::failed(format!("{name:?} is no name of a network interface")));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Ok(request)
}

/// An address of IPv4 as `sockaddr_in` has it: family, port, address, in the order of the network.
fn address(ip: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(ip.octets()) {
        *to = from.cast_signed();
    }
    libc::sockaddr { sa_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or(0), sa_data: data }
}
