//! The lowest room: the only one that starts processes and the only one with `unsafe`. Nothing here knows of guests.

pub mod child;
pub mod confine;
pub mod dumps;
mod exec;
pub mod grow;
pub mod holes;
pub mod interface;
pub mod interrupt;
pub mod ioctl;
pub mod namespace;
pub mod nbd_device;
pub mod nbd_netlink;
pub mod netlink;
pub mod own;
pub mod partitions;
pub mod plain;
pub mod privilege;
pub mod qmp;
pub mod reflink;
mod refusals;
pub mod sandbox;
pub mod tool;
pub mod trouble;
pub mod uevent;
pub mod unprivileged;
pub mod users;
pub mod wait;
