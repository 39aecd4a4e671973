//! Which volume holds the guest's root, and what its fstab(5) mounts where.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::disk::fstab::{self, FstabEntry, Source};
use crate::disk::{Content, ContentClass, DiskLayout, FsState, Volume};
use crate::error::{Error, ErrorKind, Result, both};
use crate::guest::{FileKind, GuestRoot};
use crate::mount::damage::advice;
use crate::mount::options::{Access, options};
use crate::mount::place::{GuestLayout, Place};
use crate::mount::{Devices, Mounted};
use crate::sys::tool;

/// Where operations do their work. A guest that keeps one of these on a volume that is not there is refused: what
/// stayed there would not be removed.
const ESSENTIAL: [&str; 9] = ["/boot", "/etc", "/home", "/opt", "/root", "/srv", "/tmp", "/usr", "/var"];

/// A volume's name for people.
pub fn volume_name(volume: &Volume) -> String {
    volume
        .partition
        .as_ref()
        .map_or_else(|| "the whole disk".to_owned(), |partition| format!("partition {}", partition.number))
}

struct Candidate {
    place: Place,
    name: String,
    fstab: Vec<u8>,
}

/// Finds the guest's root by looking into each filesystem, read-only, and reads its fstab.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when there is no operating system or more than one, when a filesystem needs fsck, or
/// when a part of the system lives where guestseal cannot go.
pub fn find_guest(disk: &DiskLayout, devices: &mut Devices, probe: &Path) -> Result<GuestLayout> {
    let mut candidates = Vec::new();
    for (index, volume) in disk.volumes.iter().enumerate() {
        let Some(superblock) = &volume.superblock else { continue };
        if superblock.hibernated {
            return Err(Error::unsupported(format!("{} holds a hibernated system", volume_name(volume)))
                .hint("start the guest and shut it down, so that its memory image is gone"));
        }
        if superblock.content.is_linux_filesystem()
            && options(superblock.content, Access::Look, None).is_some()
        {
            check_state(volume)?;
            candidates.extend(roots_on(index, volume, superblock.content, devices, probe)?);
        }
    }
    let names: Vec<&str> = candidates.iter().map(|candidate| candidate.name.as_str()).collect();
    match names.as_slice() {
        [] => Err(no_guest(disk)),
        [_] => with_fstab(disk, candidates.remove(0)),
        _ => Err(Error::unsupported(format!(
            "there are {} operating systems in the image: {}",
            names.len(),
            names.join("; ")
        ))
        .hint("guestseal works on images with one")),
    }
}

fn check_state(volume: &Volume) -> Result<()> {
    let Some(superblock) = volume.superblock.as_ref() else { return Ok(()) };
    let content = superblock.content;
    if superblock.needs_other_device {
        return Err(Error::unsupported(format!(
            "the {content} on {} has more devices than this disk",
            volume_name(volume)
        )));
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

fn no_guest(disk: &DiskLayout) -> Error {
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
        Some((_, content)) => error.hint(format!("systems on {content} are not supported yet")),
        None => error,
    }
}

/// Looks for an operating system on one volume: at its top, or in the subvolumes of a btrfs.
fn roots_on(
    index: usize,
    volume: &Volume,
    content: Content,
    devices: &mut Devices,
    probe: &Path,
) -> Result<Vec<Candidate>> {
    let node = devices.node(volume)?;
    let place =
        |subvolume: Option<String>| Place { volume: index, content, subvolume, point: PathBuf::from("/") };
    let look = |subvolume: Option<&str>| -> Result<(Option<Candidate>, Vec<String>)> {
        let mounted = Mounted::mount(&node, probe, content, Access::Look, subvolume)?;
        let work = GuestRoot::open(probe).and_then(|root| {
            let found = is_root(&root)?
                .then(|| candidate(&root, volume, place(subvolume.map(str::to_owned))))
                .transpose()?;
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

fn is_root(root: &GuestRoot) -> Result<bool> {
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
    let fstab = root.read(Path::new("/etc/fstab"))?.unwrap_or_default();
    Ok(Candidate { place, name, fstab })
}

/// Plans the mounts below the root.
fn with_fstab(disk: &DiskLayout, candidate: Candidate) -> Result<GuestLayout> {
    let mut layout = GuestLayout { root: candidate.place, others: Vec::new(), notes: Vec::new() };
    for entry in fstab::parse(&candidate.fstab).entries {
        let point = Path::new(&entry.mount_point);
        if point == Path::new("/") || !point.is_absolute() || entry.is_swap() || entry.is_bind() {
            continue;
        }
        match place_of(disk, &entry) {
            Ok(place) => layout.others.push(place),
            Err(why) if is_essential(point) && !entry.is_noauto() && !entry.is_nofail() => {
                return Err(Error::new(ErrorKind::Unsupported, format!("the guest's {} {why}", point.display()))
                    .hint("what is there would not be sealed; attach an image that has it, or mark it nofail in the guest's fstab"));
            }
            Err(why) => layout.notes.push(format!("{} is not sealed: it {why}", point.display())),
        }
    }
    layout.others.sort_by_key(|place| place.point.components().count());
    Ok(layout)
}

fn is_essential(point: &Path) -> bool {
    // An EFI system partition holds boot loaders only; where the kernel lacks vfat it stays as it is.
    let efi = point.starts_with("/boot/efi") || point.starts_with("/efi");
    !efi && ESSENTIAL.iter().any(|folder| point.starts_with(folder))
}

fn place_of(disk: &DiskLayout, entry: &FstabEntry) -> Result<Place, String> {
    if matches!(entry.source, Source::Network(_) | Source::Other(_)) {
        return Err(format!("is on {}, which is no part of the image", entry.fs_type));
    }
    let index = disk.volumes.iter().position(|volume| entry.source.matches(volume, 0, 1));
    let index = index.ok_or_else(|| "is on a volume that the image does not have".to_owned())?;
    let volume = &disk.volumes[index];
    let content = volume.superblock.as_ref().map(|superblock| superblock.content);
    let content =
        content.ok_or_else(|| format!("is on {}, which holds nothing known", volume_name(volume)))?;
    check_state(volume).map_err(|error| format!("cannot be mounted: {}", error.chain()))?;
    if options(content, Access::Look, None).is_none() {
        return Err(format!("is a {content}, which guestseal does not mount"));
    }
    if content == Content::Vfat && !tool::has_filesystem("vfat") {
        return Err("is a vfat, which this host's kernel does not have".into());
    }
    let subvolume = entry.subvolume().map(str::to_owned);
    Ok(Place { volume: index, content, subvolume, point: PathBuf::from(&entry.mount_point) })
}
