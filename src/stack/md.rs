//! Software RAID: the members of each array by its UUID, put together by mdadm(8).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Below, Device, Layer, name, run};
use crate::disk::{Content, Made, Segment, Superblock};
use crate::error::{Context, Error, Result};
use crate::uuids::{self, Form, Kind, NewUuid};

/// The number of the first array; the kernel and distributions count down from it.
const FIRST: usize = 127;

pub(super) fn open(below: &mut Below<'_>) -> Result<Vec<Device>> {
    let is_member = |superblock: &Superblock| superblock.content == Content::MdMember;
    let mut arrays: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, volume) in below.unopened(|volume| volume.superblock.as_ref().is_some_and(is_member)) {
        let uuid = volume.superblock.as_ref().and_then(|superblock| superblock.uuid.clone());
        arrays.entry(uuid.unwrap_or_default()).or_default().push(index);
    }
    if !arrays.is_empty() {
        below.opening.drivers.load(&["md_mod"])?;
    }
    arrays.into_values().map(|members| assemble(below, members)).collect()
}

fn assemble(below: &mut Below<'_>, members: Vec<usize>) -> Result<Device> {
    let used = below.stack.layers.iter().filter(|layer| matches!(layer, Layer::Array(_))).count();
    let path = PathBuf::from(format!("/dev/md{}", FIRST - used.min(FIRST)));
    let volumes: Vec<_> = members.iter().map(|index| &below.storage.volumes[*index]).collect();
    let names: Vec<_> = volumes.iter().map(|volume| name(volume)).collect();
    let what = format!("the array on {}", names.join(", "));
    let nodes = volumes.iter().map(|volume| below.node(volume)).collect::<Result<Vec<_>>>()?;
    let mut words = vec!["--assemble".to_owned(), path.display().to_string()];
    if below.opening.degraded {
        // Else it is not started with fewer members than it had last.
        words.push("--run".to_owned());
    }
    if below.opening.read_only {
        words.push("--readonly".to_owned());
    }
    let uuid = volumes.first().and_then(|volume| volume.superblock.as_ref()?.uuid.clone());
    let mut given = None;
    if let Some(old) = uuid.clone().filter(|_| below.opening.new_uuids.contains(&Kind::Md)) {
        let new = NewUuid { what: what.clone(), form: Form::Array, old, new: uuids::random()? }.checked()?;
        words.extend([
            "--update=uuid".to_owned(),
            format!("--uuid={}", numbers(&new.new).unwrap_or_default()),
        ]);
        given = Some(new);
    }
    words.extend(nodes.iter().map(|node| node.display().to_string()));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let label = volumes.iter().find_map(|volume| volume.superblock.as_ref()?.label.clone());
    let started = run("mdadm", &words);
    // Told before anything else fails, so that it is stopped again: a part of it may be there.
    below.stack.layers.push(Layer::Array(path.clone()));
    let missing = started.is_err() || missing_members(&path)? > 0;
    if missing && !below.opening.degraded {
        let error = Error::unsupported(format!("{what} lacks members, or cannot be put together"))
            .hint("give all its disks, each with -a; --degraded takes it as it is");
        return Err(match started {
            Err(cause) => error.caused_by(cause),
            Ok(_) => error,
        });
    }
    started.map_err(|error| error.within(format!("cannot put {what} together")))?;
    if missing {
        below.warn(&format!("{what} lacks members: what they hold is not sealed"));
    }
    let copies = mirrored(below, &path, &members)?;
    below.stack.given.extend(given);
    let names = guest_names(&path, label.as_deref(), uuid.as_deref());
    Ok(Device { made: Made { names, copies, of: members, ..Made::default() }, path })
}

/// How many members the running array lacks.
fn missing_members(path: &Path) -> Result<u64> {
    let folder = Path::new("/sys/class/block").join(path.file_name().unwrap_or_default()).join("md");
    match fs::read_to_string(folder.join("degraded")) {
        Ok(text) => text.trim().parse().context(|| "cannot tell whether the array is whole"),
        // RAID 0 and linear arrays have no such thing: they are whole or not there.
        Err(_) => Ok(0),
    }
}

/// Where each member of a mirror keeps its copy; empty for arrays that spread bytes over their members.
fn mirrored(below: &Below<'_>, path: &Path, members: &[usize]) -> Result<Vec<Vec<Segment>>> {
    let array = Path::new("/sys/class/block").join(path.file_name().unwrap_or_default());
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))?;
        Ok::<_, Error>(text.trim().to_owned())
    };
    let sectors = |path: PathBuf| {
        let number = read(path)?.parse::<u64>().context(|| "the array's size is no number")?;
        Ok::<_, Error>(number.saturating_mul(512))
    };
    if read(array.join("md/level"))? != "raid1" {
        return Ok(Vec::new());
    }
    let length = sectors(array.join("size"))?;
    let mut copies = Vec::new();
    for member in members {
        let volume = &below.storage.volumes[*member];
        let node = below.node(volume)?;
        let name = node.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let start = sectors(array.join(format!("md/dev-{name}/offset")))?;
        let at = volume.offset.saturating_add(start);
        let Some(lies) = below.resolve(volume.disk, at, length) else { return Ok(Vec::new()) };
        copies.extend(lies);
    }
    Ok(copies)
}

/// The array's own name is `HOST:NAME` or `NAME`, most often a number.
fn guest_names(path: &Path, label: Option<&str>, uuid: Option<&str>) -> Vec<String> {
    let mut names = vec![path.display().to_string()];
    if let Some(own) = label.map(|label| label.rsplit(':').next().unwrap_or(label)) {
        names.push(format!("/dev/md/{own}"));
        if own.parse::<u16>().is_ok() {
            names.insert(0, format!("/dev/md{own}"));
        }
    }
    names.dedup();
    names.extend(label.map(|label| format!("/dev/disk/by-id/md-name-{label}")));
    names.extend(uuid.and_then(numbers).map(|numbers| format!("/dev/disk/by-id/md-uuid-{numbers}")));
    names
}

/// mdadm writes a UUID in four parts.
fn numbers(uuid: &str) -> Option<String> {
    let digits = uuid.replace('-', "");
    let parts = [digits.get(..8)?, digits.get(8..16)?, digits.get(16..24)?, digits.get(24..32)?];
    (digits.len() == 32).then(|| parts.join(":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_has_its_own_name_and_the_kernels() {
        let names = |label| guest_names(Path::new("/dev/md127"), label, None);
        let by_name = "/dev/disk/by-id/md-name-";
        assert_eq!(names(Some("host:root")), ["/dev/md127", "/dev/md/root", &format!("{by_name}host:root")]);
        assert_eq!(names(Some("0")), ["/dev/md0", "/dev/md127", "/dev/md/0", &format!("{by_name}0")]);
        let uuid = Some("00112233-4455-6677-8899-aabbccddeeff");
        let by_uuid = "/dev/disk/by-id/md-uuid-00112233:44556677:8899aabb:ccddeeff";
        assert_eq!(guest_names(Path::new("/dev/md127"), None, uuid), ["/dev/md127", by_uuid]);
    }
}
