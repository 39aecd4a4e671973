//! Passwords for the guest's accounts: what the user asked for ([`PasswordRequest`], [`Selector`]), what is to be
//! set ([`PasswordChange`]), and how it is hashed ([`Scheme`]).

#![forbid(unsafe_code)]

mod change;
mod hash;
mod scheme;
mod selector;

pub use change::PasswordChange;
pub use hash::{Scheme, verify};
pub use scheme::{CryptClues, libcrypt_knows_yescrypt};
pub use selector::{PasswordRequest, Selector, refuse_twice};
