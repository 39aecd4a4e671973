//! Which bytes of a volume or disk hold nothing that is in use, as the filesystem itself accounts for it.

#![forbid(unsafe_code)]

pub mod btrfs;
pub mod fat;
pub mod fsmap;
pub mod gaps;
mod gather;
pub mod swap;
