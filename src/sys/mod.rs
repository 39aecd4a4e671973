//! The lowest room: the only one that starts processes and the only one with `unsafe`. Nothing here knows of guests.

pub mod child;
mod exec;
pub mod ioctl;
pub mod namespace;
pub mod nbd_device;
pub mod nbd_netlink;
pub mod netlink;
mod partitions;
pub mod tool;
pub mod trouble;
pub mod wait;
