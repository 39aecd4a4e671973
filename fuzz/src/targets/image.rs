//! What tells about images of other formats: their first bytes, a vmdk's description, what `qemu-img info` answers.
//! The first byte says which.

use std::io::Cursor;

use guestseal::image::format::{check_vmdk, detect};
use guestseal::image::info::{parse_answer, vmdk_description};

use crate::targets::check_error;

pub(crate) fn run(data: &[u8]) {
    let Some((which, data)) = data.split_first() else { return };
    let result = match which % 4 {
        0 => detect(data).map(drop),
        1 => vmdk(data),
        2 => check_vmdk(&String::from_utf8_lossy(data), false),
        _ => parse_answer(data).map(drop),
    };
    if let Err(error) = result {
        check_error(&error);
    }
}

fn vmdk(data: &[u8]) -> guestseal::Result<()> {
    let text = vmdk_description(Cursor::new(data), &data[..data.len().min(4096)])?;
    assert!(text.len() <= 3 * data.len());
    let read_only = check_vmdk(&text, false);
    // Whoever may write may read.
    assert!(check_vmdk(&text, true).is_err() || read_only.is_ok());
    read_only
}
