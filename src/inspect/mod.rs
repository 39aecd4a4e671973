//! Finding out what a guest is: which volume is its root, what is mounted where, which distribution it runs. Looks
//! only, through read-only mounts and [`crate::guest::GuestRoot`].

#![forbid(unsafe_code)]

pub mod file_place;
pub mod guest;
pub mod layout;
mod mounts;
pub mod os_release;
pub mod swap_files;
