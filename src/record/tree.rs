//! The digest of a folder that is a guest: over a listing of everything in it, whose form docs/record.md has.

#![forbid(unsafe_code)]

use std::fs::File;
use std::os::unix::ffi::OsStrExt;

use nix::sys::stat::{SFlag, major, minor};
use sha2::{Digest, Sha256};

use super::digest::sha256;
use crate::error::{Error, Result};
use crate::guest::GuestRoot;
use crate::guest::listing::Listed;
use crate::image::identity::hexadecimal;
use crate::report::Observer;
use crate::sys::interrupt;

/// The name of this digest in a record; another form of the listing gets another number.
pub const TREE_DIGEST: &str = "guestsealTree1";

/// The digest, lower-case hexadecimal.
///
/// # Errors
/// When something cannot be read.
pub fn tree_digest(root: &GuestRoot, observer: &mut dyn Observer) -> Result<String> {
    let mut hash = Sha256::new();
    root.list(|file| {
        interrupt::check().map_err(|error| error.within("the digest of the tree was not finished"))?;
        for field in fields(root, file, observer)? {
            hash.update(&field);
            hash.update([0]);
        }
        Ok(())
    })?;
    Ok(hexadecimal(&hash.finalize()))
}

/// What the listing has of a file. No field holds a NUL byte, which ends each of them.
fn fields(root: &GuestRoot, file: &Listed<'_>, observer: &mut dyn Observer) -> Result<Vec<Vec<u8>>> {
    let stat = &file.stat;
    let device = || format!("{}:{}", major(stat.st_rdev), minor(stat.st_rdev)).into_bytes();
    let (kind, what) = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => ("file", content(root, file, observer)?),
        SFlag::S_IFDIR => ("folder", Vec::new()),
        SFlag::S_IFLNK => ("link", target(root, file)?),
        SFlag::S_IFCHR => ("char", device()),
        SFlag::S_IFBLK => ("block", device()),
        SFlag::S_IFIFO => ("fifo", Vec::new()),
        _ => ("socket", Vec::new()),
    };
    let attributes = file.attributes()?;
    let mode = format!("{:04o}", stat.st_mode & 0o7777);
    let mut fields = vec![file.path.as_os_str().as_bytes().to_vec(), kind.into(), mode.into()];
    fields.extend([stat.st_uid.to_string().into(), stat.st_gid.to_string().into(), what]);
    fields.push(attributes.len().to_string().into());
    for (name, value) in attributes {
        fields.extend([name, hexadecimal(&Sha256::digest(&value)).into_bytes()]);
    }
    Ok(fields)
}

fn content(root: &GuestRoot, file: &Listed<'_>, observer: &mut dyn Observer) -> Result<Vec<u8>> {
    let opened = root.open_file(file.path)?.ok_or_else(|| moved(file))?;
    let opened = File::from(opened);
    let digest = sha256(&opened, file.path, observer)?;
    Ok(format!("{}:{digest}", file.stat.st_size).into_bytes())
}

fn target(root: &GuestRoot, file: &Listed<'_>) -> Result<Vec<u8>> {
    let target = root.read_link(file.path)?.ok_or_else(|| moved(file))?;
    Ok(target.as_os_str().as_bytes().to_vec())
}

fn moved(file: &Listed<'_>) -> Error {
    Error::failed(format!("{} in the guest changed while it was read", file.path.display()))
}
