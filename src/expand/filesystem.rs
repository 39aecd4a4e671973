//! Growing a filesystem by the kernel's own driver, on a mount that lasts no longer; an ext by its tool where that refuses.

use std::fs::File;
use std::path::Path;

use nix::errno::Errno;

use crate::disk::{Content, Storage, Volume};
use crate::error::{Context, Error, Result, both};
use crate::inspect::layout::volume_name;
use crate::mount::Devices;
use crate::mount::options::Access;
use crate::mount::place::Place;
use crate::session::Attachment;
use crate::sys::grow;
use crate::sys::tool::run_on;

/// Has a filesystem take all of its volume.
///
/// # Errors
/// When it cannot be mounted or unmounted; unsupported when nothing grows it.
pub(super) fn grow(attachment: &Attachment, (storage, index): (&Storage, usize)) -> Result<()> {
    let volume = storage.volumes.get(index).ok_or_else(|| Error::failed("there is no such volume"))?;
    let superblock = volume.superblock.as_ref().ok_or_else(|| Error::failed("the filesystem has gone"))?;
    let mut devices = Devices::new(attachment.disks())?;
    let probe = attachment.probe()?;
    let place = Place::root(index, superblock.content, None);
    let node = devices.node(volume)?;
    let mounted = devices.mount((storage, index), &probe, &place, Access::Change)?;
    let grown = both(fill(&probe, volume), mounted.close())
        .and_then(|refused| refused.map_or(Ok(()), |errno| without_the_kernel(volume, &node, errno)));
    let flushed = grown.and_then(|()| devices.flush());
    both(flushed, devices.close())
}

/// What the kernel says when it does not do it.
fn fill(mounted: &Path, volume: &Volume) -> Result<Option<Errno>> {
    let Some(superblock) = &volume.superblock else { return Ok(None) };
    let folder = File::open(mounted).context(|| format!("cannot open {}", mounted.display()))?;
    let block = superblock.block_size.map_or(0, u64::from);
    let blocks = volume.length.checked_div(block);
    let blocks =
        blocks.ok_or_else(|| Error::failed("the filesystem does not say how long its blocks are"))?;
    if superblock.total_bytes.is_some_and(|now| blocks * block <= now) {
        return Ok(None);
    }
    let done = match (superblock.content, &superblock.btrfs) {
        (Content::Xfs, _) => grow::xfs(&folder, volume.length),
        (Content::Btrfs, Some(device)) => grow::btrfs(&folder, device.device_id),
        _ => grow::ext(&folder, blocks),
    };
    Ok(done.err())
}

/// ext's own tool does it as well where the kernel does not: for want of the privilege `CAP_SYS_RESOURCE`, or of a feature.
fn without_the_kernel(volume: &Volume, node: &Path, errno: Errno) -> Result<()> {
    let content = volume.superblock.as_ref().map(|superblock| superblock.content);
    let refused = |why: Error| {
        let name = content.map_or("nothing", Content::name);
        Error::unsupported(format!("the {name} on {} does not grow", volume_name(volume)))
            .caused_by(why.chain())
            .hint("leave --expand out, make the image longer with qemu-img resize, and let the guest grow it")
    };
    let by_kernel = Error::failed("the kernel refuses").caused_by(errno);
    if !matches!(content, Some(Content::Ext2 | Content::Ext3 | Content::Ext4)) {
        return Err(refused(by_kernel));
    }
    let failed = |program: &str, code: i32, said: &str| {
        refused(Error::failed(format!("{program} failed (exit code {code})")).caused_by(said))
            .and_also(by_kernel)
    };
    // It wants to see that the filesystem was just checked. e2fsck(8): a sum of 1 corrected; 2 and more not all.
    match run_on("e2fsck", &["-f", "-p"], node, b"")? {
        (0 | 1, _) => {}
        (code, said) => return Err(failed("e2fsck -f -p", code, &said)),
    }
    match run_on("resize2fs", &[], node, b"")? {
        (0, _) => Ok(()),
        (code, said) => Err(failed("resize2fs", code, &said)),
    }
}
