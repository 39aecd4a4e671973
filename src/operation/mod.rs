//! Operations as data: the form of their files, the catalogue of those built in and added, selection and order.
//! May read host files, never the guest.

#![forbid(unsafe_code)]

mod builtin;
pub mod catalogue;
mod check;
mod docs;
mod form;
pub mod load;
pub mod network;
mod pairs;
pub mod perl;
pub mod profile;
pub mod schema;
pub mod seed;
pub mod select;
pub mod step;
pub mod step_text;
pub mod user;
pub mod value;
mod when;

pub use builtin::BUILTIN;
pub use catalogue::{Catalogue, SYSTEM_DIR};
pub use docs::reference;
pub(crate) use form::unchecked;
pub use load::{json_schema, parse};
pub use schema::Operation;
pub use select::{Given, Idle, Request, Selection, select};
