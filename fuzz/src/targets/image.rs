//! What tells about images of other formats: their first bytes, a vmdk's description, what `qemu-img info` answers.
//! The first byte says which.

use std::io::Cursor;

use guestseal::image::format::detect;
use guestseal::image::info::parse_answer;
use guestseal::image::vmdk;

use crate::targets::check_error;

pub(crate) fn run(data: &[u8]) {
    let Some((which, data)) = data.split_first() else { return };
    let result = match which % 3 {
        0 => detect(data).map(drop),
        1 => sparse_vmdk(data),
        _ => parse_answer(data).map(drop),
    };
    if let Err(error) = result {
        check_error(&error);
    }
}

fn sparse_vmdk(data: &[u8]) -> guestseal::Result<()> {
    let check = |will_write| vmdk::check(Cursor::new(data), &data[..data.len().min(4096)], will_write);
    let read_only = check(false);
    // Whoever may write may read.
    assert!(check(true).is_err() || read_only.is_ok());
    read_only
}
