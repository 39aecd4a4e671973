//! What the guest's fstab(5) mounts below its root, and whether all of it can be sealed.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::layout::{check_state, volume_name};
use crate::disk::fstab::{self, FstabEntry, Source};
use crate::disk::{Content, Made, Storage};
use crate::error::{Error, ErrorKind, Result};
use crate::mount::options::{Access, options};
use crate::mount::place::{GuestLayout, Place};
use crate::sys::tool;

/// Where operations do their work. A guest that keeps one of these on a volume that is not there is refused: what
/// stayed there would not be removed.
const ESSENTIAL: [&str; 9] = ["/boot", "/etc", "/home", "/opt", "/root", "/srv", "/tmp", "/usr", "/var"];

/// The most lines of crypttab and mdadm.conf that are looked at.
const LINES_MAX: usize = 1024;

/// More notes than this are no news to anybody.
const NOTES_MAX: usize = 20;

/// Plans the mounts below the root.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when a part of the system lives where guestseal cannot go, or nobody can tell.
pub(super) fn with_fstab(disk: &Storage, root: Place, tables: &Tables) -> Result<GuestLayout> {
    let mut aliases = encrypted(disk, &tables.crypttab);
    aliases.extend(arrays(disk, &tables.arrays));
    let disk = &Names { disk, aliases };
    let fstab = fstab::parse(&tables.fstab);
    if fstab.beyond_bounds {
        return Err(Error::unsupported("the guest's /etc/fstab is too large to tell what it mounts")
            .hint("shorten it in the guest, to 1 MiB, 16 KiB a line and 4096 entries"));
    }
    let mut layout = GuestLayout { root, others: Vec::new(), swap: Vec::new(), notes: Vec::new() };
    for line in &fstab.ignored_lines {
        layout.notes.push(format!("line {line} of the guest's /etc/fstab is not understood, and ignored"));
    }
    for entry in &fstab.entries {
        let point = Path::new(&entry.mount_point);
        if entry.is_swap() {
            layout.swap.extend(disk.find(&entry.source));
        }
        if !point.is_absolute() || entry.is_swap() || entry.is_memory() {
            continue;
        }
        if point == Path::new("/") {
            layout.notes.extend(other_root(disk, entry, &layout.root));
            continue;
        }
        match place_of(disk, entry) {
            Ok(place) => layout.others.extend(place),
            Err(why) if is_essential(point) && !entry.is_noauto() && !entry.is_nofail() => {
                return Err(Error::new(ErrorKind::Unsupported, format!("the guest's {} {why}", point.display()))
                    .hint("what is there would not be sealed; attach an image that has it, or mark it nofail in the guest's fstab"));
            }
            Err(why) => layout.notes.push(format!("{} is not sealed: it {why}", point.display())),
        }
    }
    let more = layout.notes.len().saturating_sub(NOTES_MAX);
    if more > 0 {
        layout.notes.truncate(NOTES_MAX);
        layout
            .notes
            .push(format!("{more} more lines of the guest's /etc/fstab are not sealed or not understood"));
    }
    layout.others.sort_by_key(|place| place.point.components().count());
    Ok(layout)
}

/// What the guest itself says of its volumes.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// fstab(5).
    pub(super) fstab: Vec<u8>,
    /// crypttab(5).
    pub(super) crypttab: Vec<u8>,
    /// mdadm.conf(5).
    pub(super) arrays: Vec<u8>,
}

/// The volumes by the names that fstab has for them.
struct Names<'a> {
    disk: &'a Storage,
    /// Names of devices that are made of others, with the volume.
    aliases: Vec<(String, usize)>,
}

impl Names<'_> {
    fn find(&self, source: &Source) -> Option<usize> {
        let alias = match source {
            Source::Device(path) => self.aliases.iter().find(|(name, _)| name == path),
            _ => None,
        };
        alias.map(|(_, volume)| *volume).or_else(|| self.disk.find(source))
    }
}

/// What crypttab(5) calls the opened volumes. One that it does not understand has no name by it.
fn encrypted(disk: &Storage, crypttab: &[u8]) -> Vec<(String, usize)> {
    let text = String::from_utf8_lossy(crypttab);
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#')).take(LINES_MAX);
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, source) = (words.next()?, words.next()?);
            let encrypted = disk.find(&Source::parse(source, ""))?;
            Some((format!("/dev/mapper/{name}"), made_of(disk, |made| made.of == [encrypted])?))
        })
        .collect()
}

/// What mdadm.conf(5) calls the arrays, by their UUIDs.
fn arrays(disk: &Storage, conf: &[u8]) -> Vec<(String, usize)> {
    let text = String::from_utf8_lossy(conf);
    let digits = |text: &str| text.chars().filter(char::is_ascii_hexdigit).collect::<String>().to_lowercase();
    let lines = text.lines().map(str::trim).filter(|line| line.starts_with("ARRAY")).take(LINES_MAX);
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let name = words.next()?;
            let uuid = digits(words.find_map(|word| word.strip_prefix("UUID="))?);
            // By its name as the guest knows it: in its superblock there may be a new UUID already.
            let is_it = |name: &String| {
                name.strip_prefix("/dev/disk/by-id/md-uuid-").is_some_and(|own| digits(own) == uuid)
            };
            Some((name.to_owned(), made_of(disk, |made| made.names.iter().any(is_it))?))
        })
        .collect()
}

/// The volume that is a device made in this way.
fn made_of(disk: &Storage, is_it: impl Fn(&Made) -> bool) -> Option<usize> {
    let made = disk.disks.iter().position(|disk| disk.made.as_ref().is_some_and(&is_it))?;
    disk.volumes.iter().position(|volume| volume.disk == made)
}

/// A note when fstab has another root than the volume on which the system was found. What boots is for the kernel's
/// command line to say.
fn other_root(disk: &Names<'_>, entry: &FstabEntry, root: &Place) -> Option<String> {
    let other = disk.find(&entry.source);
    let other = other.filter(|index| *index != root.volume)?;
    Some(format!(
        "the guest's /etc/fstab has {} as its root, but the system is on {}",
        volume_name(&disk.disk.volumes[other]),
        volume_name(&disk.disk.volumes[root.volume])
    ))
}

fn is_essential(point: &Path) -> bool {
    // An EFI system partition holds boot loaders only; where the kernel lacks vfat it stays as it is.
    let efi = point.starts_with("/boot/efi") || point.starts_with("/efi");
    !efi && ESSENTIAL.iter().any(|folder| point.starts_with(folder))
}

/// None for another name of what is sealed by its first one.
fn place_of(disk: &Names<'_>, entry: &FstabEntry) -> Result<Option<Place>, String> {
    if entry.is_bind() {
        return bound(entry).map(|()| None);
    }
    if matches!(entry.source, Source::Network(_) | Source::Other(_)) {
        return Err(format!("is on {}, which is no part of the image", entry.fs_type));
    }
    let index = disk.find(&entry.source);
    let index = index.ok_or_else(|| "is on a volume that the image does not have".to_owned())?;
    let volume = &disk.disk.volumes[index];
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
    // In the options of mount(2) a comma would begin the next option, such as a device of the host.
    if subvolume.as_ref().is_some_and(|name| name.contains(|c: char| c == ',' || c.is_control())) {
        return Err("is on a subvolume whose name cannot be given to the kernel".into());
    }
    let subvolume_id = entry.subvolume_id();
    if subvolume_id.is_none() && entry.has_option("subvolid") {
        return Err("is on a subvolume whose number is none".into());
    }
    let point = PathBuf::from(&entry.mount_point);
    Ok(Some(Place { volume: index, content, subvolume, subvolume_id, point, options: Vec::new() }))
}

/// A bind mount shows a folder that is sealed where it really is, unless operations know it only by its second name.
fn bound(entry: &FstabEntry) -> Result<(), String> {
    let Source::Other(from) = &entry.source else { return Ok(()) };
    let kernel = ["/proc", "/sys", "/dev", "/run"].iter().any(|folder| Path::new(from).starts_with(folder));
    if kernel || is_essential(Path::new(from)) {
        return Ok(());
    }
    Err(format!("is another name for {from}, where operations do not look"))
}
