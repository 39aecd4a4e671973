//! The time zone: localtime(5), and the names of it that older distributions keep beside.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::hostname::with_setting;
use super::{Findings, View, put};
use crate::error::{Error, Result};
use crate::guest::change::{Change, NewFile};
use crate::guest::names::check_timezone;

pub(super) fn set(view: View<'_>) -> Result<Findings> {
    let zone = view.settings.required("timezone")?;
    check_timezone(zone)?;
    let data = format!("/usr/share/zoneinfo/{zone}");
    if !view.root.is_file(&data)? {
        return Err(Error::usage(format!("the guest has no time zone {zone:?}")).hint(format!(
            "its zones are below /usr/share/zoneinfo; the file {data} is missing there (package tzdata?)"
        )));
    }
    let mut changes = Vec::new();
    let localtime = PathBuf::from("/etc/localtime");
    let old = view.root.read_link(&localtime)?;
    let target = if old.as_ref().is_some_and(|old| old.is_relative()) { format!("..{data}") } else { data };
    let target = PathBuf::from(target);
    if old.as_ref() != Some(&target) {
        changes.push(Change::Link { path: localtime, target });
    }
    let debian = Path::new("/etc/timezone");
    if view.root.read(debian)?.is_some() {
        changes.extend(put(debian, format!("{zone}\n").into_bytes(), NewFile::root(0o644), view)?);
    }
    let clock = Path::new("/etc/sysconfig/clock");
    if let Some(content) = view.root.read(clock)? {
        // Red Hat calls it ZONE, SUSE TIMEZONE.
        let key = if content.windows(9).any(|text| text == b"TIMEZONE=") { "TIMEZONE" } else { "ZONE" };
        changes.extend(put(
            clock,
            with_setting(&content, key, &format!("\"{zone}\""))?,
            NewFile::root(0o644),
            view,
        )?);
    }
    Ok(changes.into())
}
