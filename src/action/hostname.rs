//! The host name, where the guest's distribution keeps it: hostname(5), machine-info(5), hosts(5), sysconfig of older Red
//! Hat and SUSE.

#![forbid(unsafe_code)]

use std::path::Path;

use regex::bytes::{Captures, Regex};

use super::{Findings, View, put};
use crate::error::{Context, Result};
use crate::guest::change::NewFile;
use crate::guest::names::check_hostname;
use crate::operation::schema::Init;

pub(super) fn set(view: View<'_>) -> Result<Findings> {
    let name = view.settings.required("hostname")?;
    check_hostname(name)?;
    let old = view.root.read_text("/etc/hostname")?;
    let old = old
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && !line.starts_with('#'))
        .unwrap_or_default();
    let mut changes = Vec::new();

    let legacy = Path::new("/etc/sysconfig/network");
    if let Some(content) = view.root.read(legacy)?.filter(|_| view.guest.init != Some(Init::Systemd)) {
        let content = with_setting(&content, "HOSTNAME", name)?;
        changes.extend(put(legacy, content, NewFile::root(0o644), view)?);
    } else {
        changes.extend(put(
            Path::new("/etc/hostname"),
            format!("{name}\n").into_bytes(),
            NewFile::root(0o644),
            view,
        )?);
        // SUSE kept it here before it followed hostname(5); there it is often a link to the other.
        let suse = Path::new("/etc/HOSTNAME");
        if view.root.read(suse)?.is_some() && view.root.read_link(suse)?.is_none() {
            changes.extend(put(suse, format!("{name}\n").into_bytes(), NewFile::root(0o644), view)?);
        }
    }
    // A name for people (machine-info(5)) that says what the template was would outrank the new one.
    let info = Path::new("/etc/machine-info");
    let pretty = view.root.read(info)?.filter(|content| has_setting(content, b"PRETTY_HOSTNAME="));
    if let Some(content) = pretty {
        let content = with_setting(&content, "PRETTY_HOSTNAME", name)?;
        changes.extend(put(info, content, NewFile::root(0o644), view)?);
    }
    let hosts = Path::new("/etc/hosts");
    if let Some(content) = view.root.read(hosts)?.filter(|_| !old.is_empty() && old != name) {
        changes.extend(put(hosts, rename_in_hosts(&content, old, name)?, NewFile::root(0o644), view)?);
    }
    Ok(changes.into())
}

fn has_setting(content: &[u8], key: &[u8]) -> bool {
    content.split(|byte| *byte == b'\n').any(|line| line.starts_with(key))
}

/// Sets `KEY=value` in a sysconfig file: the line that has it, or a new one at the end.
pub(super) fn with_setting(content: &[u8], key: &str, value: &str) -> Result<Vec<u8>> {
    let line = Regex::new(&format!("(?m)^{key}=.*$")).context(|| "the pattern of a setting is wrong")?;
    let setting = format!("{key}={value}").into_bytes();
    if line.is_match(content) {
        return Ok(line.replace_all(content, regex::bytes::NoExpand(&setting)).into_owned());
    }
    let mut content = content.to_vec();
    if content.last().is_some_and(|byte| *byte != b'\n') {
        content.push(b'\n');
    }
    content.extend(setting);
    content.push(b'\n');
    Ok(content)
}

/// Swaps the old name for the new one on loopback lines: whole names only. A full name keeps its domain when the new
/// name has none; a short one beside it stays short.
fn rename_in_hosts(content: &[u8], old: &str, new: &str) -> Result<Vec<u8>> {
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
    let (old_short, new_short) = (short(old), short(new));
    let word = Regex::new(r"[^\s#]+").context(|| "the pattern of a host name is wrong")?;
    let full = format!("{old_short}.").into_bytes();
    let mut hosts = Vec::with_capacity(content.len());
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        if !line.starts_with(b"127.") && !line.starts_with(b"::1") {
            hosts.extend(line);
            continue;
        }
        let has_full = word.find_iter(line).any(|name| name.as_bytes().starts_with(&full));
        let renamed = |found: &Captures<'_>| -> Vec<u8> {
            let Ok(text) = std::str::from_utf8(&found[0]) else { return found[0].to_vec() };
            match text.split_once('.') {
                _ if text == "localhost" => text.into(),
                None if text == old_short => if has_full { new_short.clone() } else { new.to_owned() }.into(),
                Some((name, domain)) if name == old_short && !new.contains('.') => {
                    format!("{new}.{domain}").into()
                }
                Some((name, _)) if name == old_short => new.into(),
                _ => text.into(),
            }
        };
        hosts.extend(word.replace_all(line, renamed).iter());
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_lines_change_and_localhost_stays() {
        let hosts = b"127.0.0.1 localhost\n127.0.1.1\told.example.org old\n10.0.0.1 old\n";
        let new = rename_in_hosts(hosts, "old.example.org", "web.example.net").unwrap();
        assert_eq!(new, b"127.0.0.1 localhost\n127.0.1.1\tweb.example.net web\n10.0.0.1 old\n");
        let new = rename_in_hosts(b"127.0.1.1 old.example.org old older\n", "old", "web").unwrap();
        assert_eq!(new, b"127.0.1.1 web.example.org web older\n");
    }

    #[test]
    fn a_setting_is_replaced_or_added() {
        assert_eq!(with_setting(b"A=1\nHOSTNAME=x$1\n", "HOSTNAME", "web").unwrap(), b"A=1\nHOSTNAME=web\n");
        assert_eq!(with_setting(b"A=1", "HOSTNAME", "web").unwrap(), b"A=1\nHOSTNAME=web\n");
    }
}
