//! Volume groups of LVM2, activated by lvm(8). In a machine of our own a group's name collides with no other's.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{Below, Device, Layer, heard, pool, run};
use crate::disk::{Content, Made, Pool, Volume};
use crate::error::{Context, Error, Result};
use crate::uuids::{Form, Kind, NewUuid};

const UNITS: [&str; 5] = ["--reportformat", "json", "--units", "b", "--nosuffix"];

/// Which driver a kind of volume needs, by a word in the kind's name.
const DRIVERS: [(&str, &str); 6] = [
    ("thin", "dm_thin_pool"),
    ("raid", "dm_raid"),
    ("mirror", "dm_mirror"),
    ("snapshot", "dm_snapshot"),
    ("writecache", "dm_writecache"),
    ("cache", "dm_cache_smq"),
];

/// A logical volume, as `lvs` reports it.
#[derive(Debug, Deserialize)]
struct Logical {
    vg_name: String,
    lv_dm_path: String,
    lv_path: String,
    lv_active: String,
    lv_role: String,
    lv_layout: String,
    lv_uuid: String,
    vg_uuid: String,
}

/// A physical volume, as `pvs` reports it.
#[derive(Debug, Deserialize)]
struct Physical {
    pv_name: String,
    pv_uuid: String,
    vg_name: String,
    vg_uuid: String,
}

/// A stretch of a physical volume, as `pvs --segments` reports it.
#[derive(Debug, Deserialize)]
struct Stretch {
    pv_name: String,
    vg_name: String,
    vg_extent_size: String,
    vg_missing_pv_count: String,
    pe_start: String,
    pvseg_start: String,
    pvseg_size: String,
    segtype: String,
}

pub(super) fn open(below: &mut Below<'_>) -> Result<Vec<Device>> {
    let is_physical = |volume: &Volume| {
        volume.superblock.as_ref().is_some_and(|superblock| superblock.content == Content::LvmPv)
    };
    let found: Vec<usize> = below.unopened(is_physical).into_iter().map(|(index, _)| index).collect();
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let mut nodes = Vec::new();
    for index in found {
        nodes.push((device_of(&below.node(&below.storage.volumes[index])?), index));
    }
    let stretches = stretches(&report(
        "pvs",
        &["--segments"],
        "pv_name,vg_name,vg_extent_size,vg_missing_pv_count,pe_start,pvseg_start,pvseg_size,segtype",
    )?)?;
    let mut devices = Vec::new();
    let mut groups: Vec<&str> = stretches.iter().map(|stretch| stretch.vg_name.as_str()).collect();
    groups.sort_unstable();
    groups.dedup();
    for group in groups.into_iter().filter(|group| !group.is_empty()) {
        let of_group = || stretches.iter().filter(|stretch| stretch.vg_name == group);
        let volume_of = |stretch: &Stretch| {
            nodes.iter().find(|(node, _)| *node == device_of(Path::new(&stretch.pv_name)))
        };
        // Of what lies on a layer that is not open yet, or is open already.
        if !of_group().any(|stretch| volume_of(stretch).is_some()) {
            continue;
        }
        if of_group().any(|stretch| stretch.vg_missing_pv_count.trim() != "0") {
            return Err(Error::unsupported(format!("the volume group {group} lacks physical volumes"))
                .hint("give all its disks, each with -a"));
        }
        let (mut of, mut free) = (Vec::new(), Vec::new());
        for stretch in of_group() {
            let Some((_, volume)) = volume_of(stretch) else { continue };
            of.push(*volume);
            free.extend(stretch.free().map(|(start, length)| (*volume, start, length)));
        }
        of.sort_unstable();
        of.dedup();
        let old = renew(below, group, &nodes)?;
        devices.extend(activate(below, (group, old), &of, free)?);
    }
    Ok(devices)
}

/// Gives a group that is not active, and its physical volumes, new UUIDs when that is wanted; the group's old one. LVM
/// chooses the new ones itself.
fn renew(below: &mut Below<'_>, group: &str, nodes: &[(PathBuf, usize)]) -> Result<Option<String>> {
    if !below.opening.new_uuids.contains(&Kind::Lvm) {
        return Ok(None);
    }
    let list = || -> Result<Vec<Physical>> {
        let all: Vec<Physical> = rows(&report("pvs", &[], "pv_name,pv_uuid,vg_name,vg_uuid")?, "pv")?;
        Ok(all.into_iter().filter(|physical| physical.vg_name == group).collect())
    };
    let what = || format!("cannot give the volume group {group} a new UUID");
    let before = list()?;
    for physical in &before {
        run("lvm", &["pvchange", "-u", &physical.pv_name]).map_err(|error| error.within(what()))?;
    }
    run("lvm", &["vgchange", "-u", group]).map_err(|error| error.within(what()))?;
    let after = list()?;
    let mut given = Vec::new();
    for old in &before {
        let new = after.iter().find(|new| new.pv_name == old.pv_name).ok_or_else(|| Error::failed(what()))?;
        let node = device_of(Path::new(&old.pv_name));
        let volume =
            nodes.iter().find(|(known, _)| *known == node).map(|(_, index)| &below.storage.volumes[*index]);
        let place = volume.map_or_else(|| old.pv_name.clone(), super::name);
        let (physical, form) = (format!("the physical volume on {place}"), Form::PhysicalVolume);
        given.push(
            NewUuid { what: physical, form, old: old.pv_uuid.clone(), new: new.pv_uuid.clone() }.checked()?,
        );
        let (old, new) = (old.vg_uuid.clone(), new.vg_uuid.clone());
        if !given.iter().any(|other| other.old == old) {
            let what = format!("the volume group {group}");
            given.push(NewUuid { what, form: Form::VolumeGroup, old, new }.checked()?);
        }
    }
    below.stack.given.extend(given);
    Ok(before.into_iter().next().map(|physical| physical.vg_uuid))
}

fn activate(
    below: &mut Below<'_>,
    (group, old): (&str, Option<String>),
    of: &[usize],
    mut free: Vec<(usize, u64, u64)>,
) -> Result<Vec<Device>> {
    let what = || format!("cannot activate the volume group {group}");
    below.stack.layers.push(Layer::Group(group.to_owned()));
    let kinds = kinds(group)?;
    below.opening.drivers.load(&drivers(&kinds))?;
    run("lvm", &["vgchange", "-v", "-ay", "--activationmode", "complete", group])
        .map_err(|error| error.within(what()))?;
    let list =
        report("lvs", &[group], "vg_name,lv_dm_path,lv_path,lv_active,lv_role,lv_layout,lv_uuid,vg_uuid")?;
    let mut volumes: Vec<Logical> = rows(&list, "lv")?;
    // The guest's files still name the group's old UUID.
    if let Some(old) = old {
        volumes.iter_mut().for_each(|volume| volume.vg_uuid.clone_from(&old));
    }
    let (mut pools, others) =
        pool::pools(below, group)?.into_iter().partition::<Vec<_>, _>(|pool| !pool.copies.is_empty());
    let unseen = |pool: Pool| format!("what {} keeps and none of its volumes uses", pool.name);
    let mut holds: Vec<String> = others.into_iter().map(unseen).collect();
    let mut devices = Vec::new();
    for volume in volumes.iter().filter(|volume| volume.vg_name == group && volume.is_data()) {
        if volume.lv_active != "active" {
            return Err(Error::failed(format!("{} did not become active", volume.lv_path)).within(what()));
        }
        let mapper =
            Path::new(&volume.lv_dm_path).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let copies = below.copies(&mapper)?;
        let names = volume.names(&mapper);
        // What belongs to the group and to none of its volumes goes with the first.
        let (free, holds) = (std::mem::take(&mut free), std::mem::take(&mut holds));
        let made = Made { names, copies, of: of.to_vec(), holds, free, pools: std::mem::take(&mut pools) };
        devices.push(Device { path: PathBuf::from(&volume.lv_dm_path), made });
    }
    Ok(devices)
}

/// The kinds of a group's volumes.
fn kinds(group: &str) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Kind {
        segtype: String,
    }
    let kinds: Vec<Kind> = rows(&report("lvs", &["-a", group], "segtype")?, "lv")?;
    Ok(kinds.into_iter().map(|kind| kind.segtype).collect())
}

/// What kinds of volumes need; LVM itself would ask for them one by one, and gives up at the first.
fn drivers(kinds: &[String]) -> Vec<&'static str> {
    let needed = DRIVERS.iter().filter(|(word, _)| kinds.iter().any(|kind| kind.contains(word)));
    std::iter::once("dm_mod").chain(needed.map(|(_, driver)| *driver)).collect()
}

impl Logical {
    /// What fstab may call it: by its paths, and by what udev makes of its UUIDs and its name.
    fn names(&self, mapper: &str) -> Vec<String> {
        let plain = |uuid: &str| uuid.replace('-', "");
        let by_uuid = format!("dm-uuid-LVM-{}{}", plain(&self.vg_uuid), plain(&self.lv_uuid));
        let by_id = [by_uuid, format!("dm-name-{mapper}")].map(|name| format!("/dev/disk/by-id/{name}"));
        [self.lv_dm_path.clone(), self.lv_path.clone()].into_iter().chain(by_id).collect()
    }

    /// Whether the guest keeps data in it itself: pools are what others are made of.
    fn is_data(&self) -> bool {
        let has = |list: &str, word: &str| list.split(',').any(|other| other == word);
        has(&self.lv_role, "public") && !has(&self.lv_layout, "pool") && !self.lv_path.is_empty()
    }
}

impl Stretch {
    /// The bytes of the physical volume that belong to nothing.
    fn free(&self) -> Option<(u64, u64)> {
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let extent = number(&self.vg_extent_size)?;
        let start = number(&self.pvseg_start)?.checked_mul(extent)?.checked_add(number(&self.pe_start)?)?;
        let length = number(&self.pvseg_size)?.checked_mul(extent)?;
        (self.segtype == "free" && length > 0).then_some((start, length))
    }
}

/// What LVM reports. One that breaks off with a group that it does not understand is no report.
pub(super) fn report(command: &str, words: &[&str], columns: &str) -> Result<Value> {
    let mut all = vec![command];
    all.extend(UNITS);
    all.extend(["-o", columns]);
    all.extend(words);
    let failed = "cannot list volume groups";
    let (said, complaints) = heard("lvm", &all).map_err(|error| error.within(failed))?;
    serde_json::from_str(&said).map_err(|_| {
        // It looks more than once, and says so each time.
        let mut lines: Vec<&str> = Vec::new();
        for line in complaints.lines().map(str::trim) {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        let why = lines.join("; ");
        Error::unsupported(format!("{failed}: LVM does not understand what it has there: {why}"))
            .hint("is the guest's volume group whole? vgck in the guest tells more")
    })
}

fn stretches(report: &Value) -> Result<Vec<Stretch>> {
    let found = rows(report, "pvseg")?;
    if found.is_empty() { rows(report, "pv") } else { Ok(found) }
}

/// The rows of one kind in a report.
pub(super) fn rows<T: for<'de> Deserialize<'de>>(report: &Value, kind: &str) -> Result<Vec<T>> {
    let failed = || "LVM's report is not understood";
    let parts = report["report"].as_array().into_iter().flatten();
    let rows = parts.filter_map(|part| part[kind].as_array()).flatten();
    rows.map(|row| serde_json::from_value(row.clone()).context(failed)).collect()
}

/// A device by the name that the kernel has for it.
fn device_of(node: &Path) -> PathBuf {
    std::fs::canonicalize(node).unwrap_or_else(|_| node.to_path_buf())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reports_of_lvm() {
        let text = r#"{"report":[{"pvseg":[{"pv_name":"/dev/vda2","vg_name":"vg0","vg_extent_size":"4194304",
            "vg_missing_pv_count":"0","pe_start":"1048576","pvseg_start":"3","pvseg_size":"2","segtype":"free"},
            {"pv_name":"/dev/vda2","vg_name":"vg0","vg_extent_size":"4194304","vg_missing_pv_count":"0",
            "pe_start":"1048576","pvseg_start":"0","pvseg_size":"3","segtype":"linear"}]}]}"#;
        let free: Vec<_> = stretches(&serde_json::from_str(text).unwrap())
            .unwrap()
            .iter()
            .filter_map(Stretch::free)
            .collect();
        assert_eq!(free, [(3 * 4_194_304 + 1_048_576, 2 * 4_194_304)]);
        assert!(rows::<Stretch>(&json!({ "report": [{ "pv": [{}] }] }), "pv").is_err());
        let pool = Logical {
            vg_name: "v".into(),
            lv_dm_path: "/dev/mapper/v-p".into(),
            lv_path: String::new(),
            lv_active: "active".into(),
            lv_role: "private".into(),
            lv_layout: "thin,pool".into(),
            lv_uuid: "ab-cd".into(),
            vg_uuid: "12-34".into(),
        };
        assert!(!pool.is_data());
        let by_id = ["/dev/disk/by-id/dm-uuid-LVM-1234abcd", "/dev/disk/by-id/dm-name-v-p"];
        assert_eq!(pool.names("v-p")[2..], by_id);
    }
}
