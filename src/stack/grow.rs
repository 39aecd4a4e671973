//! More room below a filesystem, handed up through encryption and volume groups that are open. Everything that cannot take
//! it is refused by name before anything is written.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::lvm::{report, rows};
use super::{name, node_on, run};
use crate::attach::AttachedDisk;
use crate::disk::{Content, Made, Storage, Volume};
use crate::error::{Context, Error, Result};
use crate::expand::{Layers, Target};

/// The layers of a machine of our own.
#[derive(Debug)]
pub struct Grower;

/// One layer: a volume, its node, and the device that was made of it on the way to the filesystem.
struct Layer<'a> {
    volume: &'a Volume,
    content: Content,
    node: PathBuf,
    made: &'a Made,
    path: PathBuf,
}

/// A logical volume, as `lvs` reports it; a row for each of its segments.
#[derive(Debug, Deserialize)]
struct Logical {
    lv_full_name: String,
    lv_layout: String,
    lv_role: String,
    segtype: String,
}

/// A physical volume, as `pvs` reports it.
#[derive(Debug, Deserialize)]
struct Physical {
    pv_pe_count: String,
    pv_pe_alloc_count: String,
}

impl Layers for Grower {
    fn check(&mut self, disks: &[AttachedDisk], storage: &Storage, target: &Target) -> Result<()> {
        layers(disks, storage, target)?.iter().try_for_each(Layer::check)
    }

    fn grow(&mut self, disks: &[AttachedDisk], storage: &Storage, target: &Target) -> Result<()> {
        layers(disks, storage, target)?.iter().try_for_each(Layer::grow)
    }
}

fn layers<'a>(disks: &[AttachedDisk], storage: &'a Storage, target: &'a Target) -> Result<Vec<Layer<'a>>> {
    let above = target.path.iter().skip(1);
    let layer = |((_, volume), above): ((usize, &'a Volume), &usize)| {
        let lost = || Error::failed("a layer has gone");
        let content = volume.superblock.as_ref().map(|superblock| superblock.content).ok_or_else(lost)?;
        let above = storage.volumes.get(*above).ok_or_else(lost)?;
        if above.partition.is_some() {
            let what = format!("{} cannot grow: it is in a partition table of its own", name(above));
            return Err(Error::unsupported(what));
        }
        let made = storage.disks.get(above.disk).and_then(|disk| disk.made.as_ref()).ok_or_else(lost)?;
        let path = disks.get(above.disk).ok_or_else(lost)?.path().to_path_buf();
        Ok(Layer { volume, content, node: node_on(disks, volume)?, made, path })
    };
    target.layers(storage).zip(above).map(layer).collect()
}

impl Layer<'_> {
    fn check(&self) -> Result<()> {
        match self.content {
            Content::Luks1 => Ok(()),
            Content::Luks2 => {
                let words = ["luksDump", "--dump-json-metadata", &self.node.to_string_lossy()];
                follows_device(&run("cryptsetup", &words)?)
                    .map_err(|error| error.within(format!("{} cannot grow", name(self.volume))))
            }
            Content::LvmPv => {
                let full = self.logical()?;
                let rows: Vec<Logical> =
                    rows(&report("lvs", &[&full], "lv_full_name,lv_layout,lv_role,segtype")?, "lv")?;
                rows.iter().try_for_each(Logical::check)
            }
            content => Err(Error::unsupported(format!(
                "what lies on {} cannot grow: it is {content}",
                name(self.volume)
            ))
            .hint("leave --expand out, and let the guest grow it")),
        }
    }

    fn grow(&self) -> Result<()> {
        let node = self.node.to_string_lossy();
        let cannot = |error: Error| error.within(format!("cannot grow what lies on {}", name(self.volume)));
        if self.content != Content::LvmPv {
            let mapper = self.path.file_name().unwrap_or_default().to_string_lossy();
            return run("cryptsetup", &["resize", &mapper]).map(drop).map_err(cannot);
        }
        run("lvm", &["pvresize", &node]).map_err(cannot)?;
        let free = free_extents(&report("pvs", &[&node], "pv_pe_count,pv_pe_alloc_count")?)?;
        if free == 0 {
            return Ok(());
        }
        // Only what is free on this physical volume: what the others keep free has a reason.
        let words = ["lvextend", "-l", &format!("+{free}"), &self.logical()?, &node];
        run("lvm", &words).map(drop).map_err(cannot)
    }

    /// The logical volume on the way, as group and name.
    fn logical(&self) -> Result<String> {
        let names = self.made.names.iter().filter(|name| !name.starts_with("/dev/mapper/"));
        let full = names.filter_map(|name| name.strip_prefix("/dev/")).next();
        full.map(str::to_owned).ok_or_else(|| Error::failed("a logical volume has no name"))
    }
}

impl Logical {
    fn check(&self) -> Result<()> {
        let Self { lv_full_name, lv_layout, lv_role, segtype } = self;
        let is_origin = lv_role.split(',').any(|role| role == "origin");
        if lv_layout == "linear" && segtype == "linear" && !is_origin {
            return Ok(());
        }
        let kind = if is_origin { "the origin of a snapshot" } else { lv_layout };
        Err(Error::unsupported(format!(
            "the logical volume {lv_full_name} cannot grow: it is {kind}, not linear"
        ))
        .hint("name another volume with --expand-volume, or let the guest grow it"))
    }
}

/// Whether a LUKS2 volume reaches to the end of its device, by the JSON of its header.
fn follows_device(metadata: &str) -> Result<()> {
    let metadata: Value = serde_json::from_str(metadata).context(|| "its header is not understood")?;
    let segments: Vec<&Value> =
        metadata["segments"].as_object().into_iter().flat_map(|all| all.values()).collect();
    match segments.as_slice() {
        [one] if one["type"] == "crypt" && one["size"] == "dynamic" && one["integrity"].is_null() => Ok(()),
        [one] if !one["integrity"].is_null() => {
            Err(Error::unsupported("its LUKS2 keeps checksums, for a length that is fixed"))
        }
        [one] if one["size"].is_string() => {
            Err(Error::unsupported(format!("its LUKS2 has a fixed length of {} bytes", one["size"])))
        }
        _ => Err(Error::unsupported("its LUKS2 is being encrypted anew")),
    }
}

fn free_extents(report: &Value) -> Result<u64> {
    let number = |text: &str| text.trim().parse::<u64>().context(|| "LVM's report is not understood");
    let physical: Vec<Physical> = rows(report, "pv")?;
    let counts = physical.iter().map(|physical| {
        Ok(number(&physical.pv_pe_count)?.saturating_sub(number(&physical.pv_pe_alloc_count)?))
    });
    counts.sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_luks_that_reaches_to_the_end_grows() {
        let header = |segment: Value| json!({ "segments": { "0": segment } }).to_string();
        follows_device(&header(json!({ "type": "crypt", "offset": "1", "size": "dynamic" }))).unwrap();
        for (segment, why) in [
            (json!({ "type": "crypt", "size": "1048576" }), "fixed length"),
            (json!({ "type": "crypt", "size": "dynamic", "integrity": {} }), "checksums"),
            (json!({}), "encrypted anew"),
        ] {
            let error = follows_device(&header(segment)).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(follows_device("").is_err());
    }

    #[test]
    fn only_linear_volumes_grow() {
        let logical = |layout: &str, role: &str| Logical {
            lv_full_name: "vg/root".into(),
            lv_layout: layout.into(),
            lv_role: role.into(),
            segtype: layout.into(),
        };
        logical("linear", "public").check().unwrap();
        let error = logical("striped", "public").check().unwrap_err().to_string();
        assert_eq!(error, "the logical volume vg/root cannot grow: it is striped, not linear");
        assert!(logical("linear", "public,origin,thickorigin").check().is_err());
        let report = json!({ "report": [{ "pv": [{ "pv_pe_count": "10", "pv_pe_alloc_count": "7" }] }] });
        assert_eq!(free_extents(&report).unwrap(), 3);
    }
}
