//! The free space of a volume, as the filesystem itself accounts for it.

#![forbid(unsafe_code)]

pub mod fsmap;
