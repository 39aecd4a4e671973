//! The guest's account files as pure parsers and editors over bytes: passwd(5), shadow(5), group(5), gshadow(5),
//! subuid(5), subgid(5) and login.defs(5).
//!
//! Every file keeps its bytes: comments, blank lines, NIS lines (`+`, `-`), broken lines and odd line ends come out as
//! they went in, and only the lines that an edit names change. Lines are read as glibc's `files` service reads them,
//! because that decides who can log in. Errors name a line by its number, from 1, and never quote it.

#![forbid(unsafe_code)]

mod group;
mod homes;
mod login_defs;
mod passwd;
mod shadow;
mod subid;
mod text;

pub use group::{Group, GroupEntry, GroupFile};
pub use homes::{clean_path, homes};
pub use login_defs::LoginDefs;
pub use passwd::{Account, NewAccount, Passwd, PasswdField};
pub use shadow::{PasswordKind, Shadow, ShadowEntry};
pub use subid::SubIds;
