//! The erasure: what was deleted is made zero, and proven to be.

#![forbid(unsafe_code)]

pub mod extent;
pub mod map;
pub mod metadata;
pub mod volume;
