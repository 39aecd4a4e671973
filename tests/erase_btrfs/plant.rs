//! Canaries: what is planted, deleted and must not be found again; and what is kept and must be the same.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::disks::tool;

const BLOCK: usize = 4096;

/// Bytes that no compression makes smaller, the same at each call.
fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
}

/// `blocks` of noise with this text at the start of each, every other one zero behind the text.
pub(crate) fn text(what: &str, seed: u64, blocks: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = noise(seed).take(blocks * BLOCK).collect();
    for (index, block) in bytes.chunks_mut(BLOCK).enumerate() {
        if index % 2 == 1 {
            block.fill(0);
        }
        block[..what.len()].copy_from_slice(what.as_bytes());
        block[what.len()] = b'\n';
    }
    bytes
}

/// Writes a file whose blocks come in an order that leaves each an extent of its own.
pub(crate) fn fragmented(path: &Path, what: &str, seed: u64) {
    let file = File::create(path).unwrap();
    let bytes = text(what, seed, 96);
    let blocks: Vec<_> = bytes.chunks(BLOCK).enumerate().collect();
    for (index, block) in blocks.iter().step_by(2).chain(blocks.iter().skip(1).step_by(2)) {
        file.write_all_at(block, (index * BLOCK) as u64).unwrap();
        if index % 8 < 2 {
            file.sync_data().unwrap();
        }
    }
}

/// Files of every kind below `folder`, with this mark in all that they hold.
pub(crate) fn files(folder: &Path, mark: &str) {
    fs::create_dir(folder).unwrap();
    for number in 0..150_u32 {
        let path = folder.join(format!("{mark}-name-{number}"));
        fs::write(&path, format!("{mark}-inline {number}\n").repeat(8)).unwrap();
    }
    for number in 0..20 {
        fs::write(folder.join(format!("small{number}")), text(&format!("{mark}-small"), number, 3)).unwrap();
        std::os::unix::fs::symlink(format!("{mark}-link-{number}"), folder.join(format!("link{number}")))
            .unwrap();
    }
    fragmented(&folder.join("fragmented"), &format!("{mark}-fragmented"), 5);
    fragmented(&folder.join("scattered"), &format!("{mark}-scattered"), 6);
    fs::write(folder.join("large"), text(&format!("{mark}-large"), 7, 600)).unwrap();
    fs::hard_link(folder.join("large"), folder.join("other")).unwrap();
    let sparse = File::create(folder.join("sparse")).unwrap();
    sparse.write_all_at(&text(&format!("{mark}-sparse"), 8, 5), 40 << 20).unwrap();
    for number in 0..20 {
        let path = folder.join(format!("small{number}"));
        let name = format!("user.{mark}-attribute");
        rustix::fs::setxattr(
            &path,
            &*name,
            format!("{mark}-value-{number}").as_bytes(),
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
    }
}

/// What a tree holds: each path with the digest of its content.
pub(crate) fn digests(folder: &Path) -> BTreeMap<Vec<u8>, String> {
    let entries = walkdir::WalkDir::new(folder).into_iter().map(Result::unwrap);
    entries
        .map(|entry| {
            let content = match entry.file_type() {
                kind if kind.is_file() => fs::read(entry.path()).unwrap(),
                kind if kind.is_symlink() => {
                    fs::read_link(entry.path()).unwrap().as_os_str().as_bytes().to_vec()
                }
                _ => Vec::new(),
            };
            let name = entry.path().strip_prefix(folder).unwrap().as_os_str().as_bytes().to_vec();
            (name, format!("{:x?}", Sha256::digest(content)))
        })
        .collect()
}

/// Writes what was changed to the disk, twice: what one commit frees is used again behind it.
pub(crate) fn sync(folder: &Path) {
    tool("btrfs", ["filesystem", "sync"].map(Path::new).into_iter().chain([folder]));
}
