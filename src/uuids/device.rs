//! Writing new UUIDs on volumes of which nothing is mounted, by the filesystems' own tools.

#![forbid(unsafe_code)]

use std::fs::File;
use std::path::Path;

use super::{Form, NewUuid, fat};
use crate::attach::{AttachedDisk, read_storage};
use crate::disk::{Content, Storage, Volume};
use crate::error::{Context, Error, Result, both};
use crate::inspect::layout::volume_name;
use crate::mount::Devices;
use crate::report::{Event, Observer, Stage};
use crate::sys::interrupt;
use crate::sys::tool::{Tool, run_on};

/// The tools of a filesystem.
fn tools(content: Content) -> &'static [&'static str] {
    match content {
        Content::Ext2 | Content::Ext3 | Content::Ext4 => &["e2fsck", "tune2fs"],
        Content::Xfs => &["xfs_db"],
        Content::Btrfs => &["btrfstune"],
        Content::Swap => &["swaplabel"],
        Content::Luks1 | Content::Luks2 => &["cryptsetup"],
        _ => &[],
    }
}

/// Refuses what this host lacks a tool for.
///
/// # Errors
/// [`crate::ErrorKind::HostLacks`], with the package that has it.
pub fn check_tools(storage: &Storage, uuids: &[NewUuid]) -> Result<()> {
    for (volume, uuid) in of(storage, uuids) {
        let content = volume.superblock.as_ref().map(|superblock| superblock.content);
        for name in content.into_iter().flat_map(tools) {
            Tool::find(name)
                .map_err(|error| error.within(format!("cannot give {} a new UUID", uuid.what)))?;
        }
    }
    Ok(())
}

/// Writes the new UUIDs, and reads them back.
///
/// # Errors
/// When a tool fails; what it did so far stays on the overlay.
pub fn change(disks: &[AttachedDisk], uuids: &[NewUuid], observer: &mut dyn Observer) -> Result<()> {
    let own: Vec<NewUuid> = uuids.iter().filter(|uuid| is_written_here(uuid.form)).cloned().collect();
    if own.is_empty() {
        return Ok(());
    }
    observer.event(Event::Stage(Stage::GivingUuids));
    let storage = read_storage(disks)?;
    let mut devices = Devices::new(disks)?;
    let written = of(&storage, &own).into_iter().try_for_each(|(volume, uuid)| {
        interrupt::check_before("giving new UUIDs")?;
        let content = volume.superblock.as_ref().map(|superblock| superblock.content);
        let what = || format!("cannot give {} the new UUID {}", uuid.what, uuid.new);
        devices
            .node(volume)
            .and_then(|node| write(content, &node, uuid))
            .map_err(|error| error.within(what()))
    });
    let written = written.and_then(|()| devices.flush());
    both(written, devices.close())?;
    let after = read_storage(disks)?;
    let uuid_of = |volume: &Volume| volume.superblock.as_ref().and_then(|superblock| superblock.uuid.clone());
    for uuid in &own {
        let old = after.volumes.iter().find(|volume| uuid_of(volume).as_deref() == Some(&uuid.old));
        let new = after.volumes.iter().any(|volume| uuid_of(volume).as_deref() == Some(&uuid.new));
        if let Some(volume) = old {
            return Err(Error::failed(format!("{} still has the UUID {}", volume_name(volume), uuid.old)));
        }
        if !new {
            return Err(Error::failed(format!("{} has not the UUID {}", uuid.what, uuid.new)));
        }
    }
    Ok(())
}

/// What lies below others is changed when that is opened.
fn is_written_here(form: Form) -> bool {
    matches!(form, Form::Plain | Form::Serial | Form::Luks)
}

/// The volumes that are to be changed: of a filesystem on several devices the first.
fn of<'a>(storage: &'a Storage, uuids: &'a [NewUuid]) -> Vec<(&'a Volume, &'a NewUuid)> {
    let volumes = storage.volumes.iter().enumerate().filter(|(index, _)| !storage.is_further_device(*index));
    let found = volumes.filter_map(|(_, volume)| {
        let own = volume.superblock.as_ref()?.uuid.as_deref()?;
        Some((volume, uuids.iter().find(|uuid| uuid.old == own)?))
    });
    found.collect()
}

fn write(content: Option<Content>, node: &Path, uuid: &NewUuid) -> Result<()> {
    let new = uuid.new.as_str();
    match content {
        Some(Content::Ext2 | Content::Ext3 | Content::Ext4) => {
            // tune2fs writes all checksums anew, and wants to know that they are right.
            match run_on("e2fsck", &["-f", "-p"], node, b"")? {
                (0 | 1, _) => {}
                (code, said) => return Err(failed("e2fsck -f -p", code, &said)),
            }
            // It asks before that, and goes on by itself only after five seconds.
            done("tune2fs", run_on("tune2fs", &["-U", new], node, b"y\n")?)
        }
        // It ends with 0 in any case: what it did is read back.
        Some(Content::Xfs) => {
            done("xfs_db", run_on("xfs_db", &["-x", "-c", &format!("uuid {new}")], node, b"")?)
        }
        Some(Content::Btrfs) => done("btrfstune", run_on("btrfstune", &["-f", "-U", new], node, b"")?),
        Some(Content::Swap) => done("swaplabel", run_on("swaplabel", &["-U", new], node, b"")?),
        Some(Content::Luks1 | Content::Luks2) => {
            let words = ["luksUUID", "--batch-mode", "--uuid", new];
            done("cryptsetup", run_on("cryptsetup", &words, node, b"")?)
        }
        Some(Content::Vfat) => {
            let device = File::options().read(true).write(true).open(node);
            let mut device = device.context(|| format!("cannot open {}", node.display()))?;
            fat::set_serial(&mut device, new)?;
            device.sync_all().context(|| "cannot flush the boot sector")
        }
        _ => Err(Error::unsupported("nothing here can do that")),
    }
}

fn done(program: &str, (code, said): (i32, String)) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(failed(program, code, &said)) }
}

fn failed(program: &str, code: i32, said: &str) -> Error {
    Error::failed(format!("{program} failed (exit code {code})")).caused_by(said)
}
