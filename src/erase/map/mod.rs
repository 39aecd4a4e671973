//! Which bytes of a volume hold nothing that is in use, as the filesystem itself accounts for it.

#![forbid(unsafe_code)]

pub mod btrfs;
pub mod fsmap;
mod gather;
