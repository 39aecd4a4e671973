//! guestseal seals the disk images of shut-down Linux guests so that they can become templates.
//!
//! The data goes one way: `Args` → `Plan` → `AttachedDisk` → `Inspection` → `MountedTree` → `Applied` →
//! `EraseReport` → `Committed` → `SealRecord`. Each room below holds one of these steps; the head of its file says
//! what it is for and what it may touch.

pub mod action;
pub mod apply;
pub mod attach;
pub mod cli;
pub mod clone;
pub mod cpio;
pub mod disk;
pub mod domain;
pub mod erase;
pub mod error;
pub mod expand;
pub mod fault;
pub mod guest;
pub mod image;
pub mod inspect;
pub mod isolate;
pub mod mount;
pub mod operation;
pub mod payload;
pub mod phases;
pub mod plan;
pub mod proof;
pub mod record;
pub mod recover;
pub mod rehearsal;
pub mod repair;
pub mod report;
pub mod results;
pub mod seal;
pub mod session;
pub mod similar;
pub mod site;
pub mod stack;
pub mod survey;
pub mod sys;
pub mod template;
pub mod tree;
pub mod uuids;
pub mod vm;
pub mod worker;

pub use error::{Error, ErrorKind, Result};
