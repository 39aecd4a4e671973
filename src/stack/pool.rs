//! The thin pools of a volume group.

use std::path::PathBuf;

use serde::Deserialize;

use super::Below;
use super::lvm::{report, rows};
use crate::disk::Pool;
use crate::error::Result;

/// A logical volume, hidden ones too. Names of hidden ones stand in brackets.
#[derive(Debug, Deserialize)]
struct Row {
    lv_name: String,
    lv_dm_path: String,
    segtype: String,
    data_lv: String,
    metadata_lv: String,
}

/// The pools of an active group.
pub(super) fn pools(below: &Below<'_>, group: &str) -> Result<Vec<Pool>> {
    let list = report("lvs", &["-a", group], "lv_name,lv_dm_path,segtype,data_lv,metadata_lv")?;
    let rows: Vec<Row> = rows(&list, "lv")?;
    let path_of = |name: &str| {
        let plain = |name: &str| name.trim_matches(['[', ']']).to_owned();
        let row = rows.iter().find(|row| plain(&row.lv_name) == plain(name))?;
        Some(PathBuf::from(&row.lv_dm_path))
    };
    let mut pools = Vec::new();
    for row in rows.iter().filter(|row| row.segtype == "thin-pool") {
        let (Some(data), Some(metadata)) = (path_of(&row.data_lv), path_of(&row.metadata_lv)) else {
            continue;
        };
        let mapper = data.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = format!("the thin pool {}/{}", group, row.lv_name);
        pools.push(Pool { name, metadata, copies: below.copies(&mapper)? });
    }
    Ok(pools)
}
