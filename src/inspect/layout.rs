//! Which volume holds the guest's root, and whether its filesystems can be trusted.

#![forbid(unsafe_code)]

use std::path::Path;

use super::mounts::{Tables, with_fstab};
use crate::disk::fstab::Source;
use crate::disk::{Content, ContentClass, FsState, Storage, Superblock, Volume};
use crate::error::{Error, Result, both};
use crate::guest::{FileKind, GuestRoot};
use crate::mount::Devices;
use crate::mount::damage::advice;
use crate::mount::options::{Access, options};
use crate::mount::place::{GuestLayout, Place};

/// A volume's name for people.
pub fn volume_name(volume: &Volume) -> String {
    let partition = volume.partition.as_ref().map(|partition| format!("partition {}", partition.number));
    match (partition, &volume.on) {
        (Some(partition), None) => partition,
        (Some(partition), Some(disk)) => format!("{partition} of {disk}"),
        (None, None) => "the whole disk".to_owned(),
        (None, Some(disk)) => disk.clone(),
    }
}

struct Candidate {
    place: Place,
    name: String,
    tables: Tables,
}

/// Finds the guest's root by looking into each filesystem, read-only, and reads its fstab.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] when there is no operating system or more than one, when a filesystem needs fsck, or
/// when a part of the system lives where guestseal cannot go.
pub fn find_guest(
    disk: &Storage,
    wanted: Option<&str>,
    devices: &mut Devices,
    probe: &Path,
) -> Result<GuestLayout> {
    let wanted = wanted.map(|name| named_root(disk, name)).transpose()?;
    let mut candidates = Vec::new();
    for (index, volume) in disk.volumes.iter().enumerate() {
        let Some(superblock) = &volume.superblock else { continue };
        if superblock.hibernated {
            return Err(Error::unsupported(format!("{} holds a hibernated system", volume_name(volume)))
                .hint("start the guest and shut it down, so that its memory image is gone"));
        }
        refuse_ambivalent(volume, superblock)?;
        if superblock.content.is_linux_filesystem()
            && options(superblock.content, Access::Look, None).is_some()
        {
            check_state(volume)?;
            if wanted.is_none_or(|wanted| wanted == index) && !disk.is_further_device(index) {
                candidates.extend(roots_on((disk, index), superblock.content, devices, probe)?);
            }
        }
    }
    let names: Vec<&str> = candidates.iter().map(|candidate| candidate.name.as_str()).collect();
    match names.as_slice() {
        [] => Err(no_guest(disk)),
        [_] => {
            let Candidate { place, tables, .. } = candidates.remove(0);
            let mut layout = with_fstab(disk, place, &tables)?;
            layout.notes.extend(shared_keys(disk));
            Ok(layout)
        }
        _ => Err(Error::unsupported(format!(
            "there are {} operating systems in the image: {}",
            names.len(),
            names.join("; ")
        ))
        .hint("choose one with --root, such as --root /dev/sda2; only that one is edited")),
    }
}

/// What clones of an encrypted guest have in common.
fn shared_keys(disk: &Storage) -> Option<String> {
    let is_luks = |volume: &&Volume| {
        let content = volume.superblock.as_ref().map(|superblock| superblock.content);
        matches!(content, Some(Content::Luks1 | Content::Luks2))
    };
    let names: Vec<String> = disk.volumes.iter().filter(is_luks).map(volume_name).collect();
    (!names.is_empty()).then(|| {
        format!(
            "clones share the volume key of the LUKS on {}: a passphrase of one opens all; give each clone a key of its own \
             with cryptsetup reencrypt",
            names.join(", ")
        )
    })
}

/// The volume that the user chose.
fn named_root(disk: &Storage, name: &str) -> Result<usize> {
    disk.find(&Source::parse(name, "")).ok_or_else(|| {
        let names: Vec<_> = disk.volumes.iter().map(volume_name).collect();
        Error::usage(format!("--root {name} names no volume of the image")).hint(format!(
            "there are {}; name it as its fstab would, by /dev/sda2 or UUID=…",
            names.join(", ")
        ))
    })
}

/// Of two filesystems on one volume the guest uses one, and the other holds what was thought to be gone. Like mount(8)
/// and udev, guestseal does not choose.
fn refuse_ambivalent(volume: &Volume, superblock: &Superblock) -> Result<()> {
    let all = std::iter::once(superblock.content).chain(superblock.also.iter().copied());
    if !superblock.ambivalent || !all.clone().any(Content::is_linux_filesystem) {
        return Ok(());
    }
    let names: Vec<&str> = all.map(Content::name).collect();
    Err(Error::unsupported(format!(
        "{} has superblocks of {}: nobody can tell which one counts",
        volume_name(volume),
        names.join(" and ")
    ))
    .hint("take away the one that is left from earlier use, with wipefs(8) on a copy"))
}

/// Whether a filesystem can be trusted as far as its superblock tells.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] with the reason when it cannot.
pub fn check_state(volume: &Volume) -> Result<()> {
    let Some(superblock) = volume.superblock.as_ref() else { return Ok(()) };
    let content = superblock.content;
    if superblock.needs_other_device {
        return Err(Error::unsupported(format!(
            "the {content} on {} has more devices than this disk",
            volume_name(volume)
        ))
        .hint("give all its disks, each with -a"));
    }
    if superblock.damaged {
        let what = format!("the checksum of the {content} superblock on {} is wrong", volume_name(volume));
        return Err(Error::unsupported(what).hint(advice(content)));
    }
    if superblock.state == FsState::Errors {
        let what = match content {
            Content::Ext2 => "has errors, or was not unmounted",
            _ => "has errors",
        };
        return Err(Error::unsupported(format!("the {content} on {} {what}", volume_name(volume)))
            .hint(advice(content)));
    }
    if superblock.total_bytes.is_some_and(|bytes| bytes > volume.length) {
        let what = format!("the {content} on {} is longer than what it lies on", volume_name(volume));
        return Err(
            Error::unsupported(what).hint("the image is cut off, or was shrunk too far: take a whole copy")
        );
    }
    Ok(())
}

fn no_guest(disk: &Storage) -> Error {
    let contents =
        disk.volumes.iter().filter_map(|volume| Some((volume, volume.superblock.as_ref()?.content)));
    let found: Vec<String> =
        contents.clone().map(|(volume, content)| format!("{} on {}", content, volume_name(volume))).collect();
    if found.is_empty() {
        return Error::unsupported(
            "there is neither a partition table nor a filesystem that guestseal knows in the image",
        )
        .hint("is it a disk image of a Linux guest, whole, and is its --format right?");
    }
    let error =
        Error::unsupported(format!("no operating system was found; the image holds: {}", found.join(", ")));
    let layered = contents
        .into_iter()
        .find(|(_, content)| matches!(content.class(), ContentClass::Encrypted | ContentClass::Member));
    match layered {
        Some((_, content)) if !content.is_layered() => {
            error.hint(format!("systems on {content} are not supported"))
        }
        Some((_, content)) if content.class() == ContentClass::Encrypted => {
            error.hint(format!("it may be in the {content}: give its key with --key"))
        }
        Some((_, content)) => error.hint(format!(
            "guestseal opens {content} in a virtual machine (--isolate vm), when all disks are given, each with -a"
        )),
        None => error.hint("is it the disk that the guest boots from?"),
    }
}

/// Looks for an operating system on one volume: at its top, or in the subvolumes of a btrfs.
fn roots_on(
    (storage, index): (&Storage, usize),
    content: Content,
    devices: &mut Devices,
    probe: &Path,
) -> Result<Vec<Candidate>> {
    let volume = &storage.volumes[index];
    let place = |subvolume: Option<String>| Place::root(index, content, subvolume);
    let mut look = |subvolume: Option<&str>| -> Result<(Option<Candidate>, Vec<String>)> {
        let place = place(subvolume.map(str::to_owned));
        let mounted = devices
            .mount((storage, index), probe, &place, Access::Look)
            .map_err(|error| error.within(format!("cannot look into {}", volume_name(volume))))?;
        let work = GuestRoot::open(probe).and_then(|root| {
            let found = is_root(&root)?.then(|| candidate(&root, volume, place)).transpose()?;
            Ok((found, subvolume_names(&root, content, subvolume)?))
        });
        both(work, mounted.close())
    };
    let (found, _) = look(None)?;
    if content != Content::Btrfs || found.is_some() {
        return Ok(found.into_iter().collect());
    }
    let mut roots = Vec::new();
    for name in look(Some("/"))?.1 {
        roots.extend(look(Some(&name))?.0);
    }
    Ok(roots)
}

/// Folders at the top of a btrfs that look like subvolumes with a system in them; snapshots are none.
fn subvolume_names(root: &GuestRoot, content: Content, subvolume: Option<&str>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    if content != Content::Btrfs || subvolume != Some("/") {
        return Ok(names);
    }
    for name in root.names(Path::new("/"))? {
        let Some(name) = name.to_str().filter(|name| !name.contains(',') && !name.contains("snapshot"))
        else {
            continue;
        };
        if root
            .lookup(&Path::new("/").join(name).join("etc"))?
            .is_some_and(|entry| entry.kind == FileKind::Folder)
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Whether this looks like the root of a system.
///
/// # Errors
/// When the filesystem cannot answer.
pub fn is_root(root: &GuestRoot) -> Result<bool> {
    if !root.is_folder("/etc")? {
        return Ok(false);
    }
    // As entries, not as files: os-release may be a link into a /usr that is another volume.
    for mark in [
        "/etc/os-release",
        "/usr/lib/os-release",
        "/etc/redhat-release",
        "/etc/debian_version",
        "/etc/alpine-release",
    ] {
        if root.lookup(Path::new(mark))?.is_some() {
            return Ok(true);
        }
    }
    Ok(root.is_file("/etc/fstab")?
        && root.is_file("/etc/passwd")?
        && root.lookup(Path::new("/bin"))?.is_some())
}

fn candidate(root: &GuestRoot, volume: &Volume, place: Place) -> Result<Candidate> {
    let os = super::os_release::OsRelease::parse(&root.read_text("/etc/os-release")?);
    let below = place.subvolume.as_ref().map(|name| format!(", subvolume {name}")).unwrap_or_default();
    let name = format!("{} on {}{below}", os.pretty_name, volume_name(volume));
    let read = |path: &str| Ok::<_, Error>(root.read(Path::new(path))?.unwrap_or_default());
    let mut arrays = read("/etc/mdadm/mdadm.conf")?;
    arrays.extend(read("/etc/mdadm.conf")?);
    let tables = Tables { fstab: read("/etc/fstab")?, crypttab: read("/etc/crypttab")?, arrays };
    Ok(Candidate { place, name, tables })
}
