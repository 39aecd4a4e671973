//! ifupdown, of Debian, Alpine and busybox: interfaces(5).

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::{find, interface, put};
use crate::action::{Findings, View};
use crate::error::Result;
use crate::guest::change::NewFile;
use crate::operation::network::Network;

const MAIN: &str = "/etc/network/interfaces";

/// The words that begin something new.
const HEADS: [&str; 7] =
    ["iface", "mapping", "auto", "source", "source-directory", "no-auto-down", "no-scripts"];

/// Its files with their content, the main one first.
fn files(view: View<'_>) -> Result<Vec<(PathBuf, String)>> {
    let mut files = vec![(PathBuf::from(MAIN), view.root.read_text(MAIN)?)];
    for entry in find(&["/etc/network/interfaces.d/*".to_owned()], &[], view)? {
        let text = view.root.read(&entry.path)?.unwrap_or_default();
        files.push((entry.path, String::from_utf8_lossy(&text).into_owned()));
    }
    Ok(files)
}

/// Whether its files have the interface; when none is named, any.
pub(super) fn names(network: &Network, view: View<'_>) -> Result<bool> {
    let known = known(&files(view)?);
    Ok(network.interface.as_ref().map_or(!known.is_empty(), |name| known.contains(name)))
}

fn known(files: &[(PathBuf, String)]) -> Vec<String> {
    let lines = files.iter().flat_map(|(_, text)| text.lines());
    let mut known: Vec<String> = lines
        .filter_map(|line| {
            words(line).strip_prefix(&["iface"]).and_then(|rest| Some((*rest.first()?).to_owned()))
        })
        .filter(|name| name != "lo")
        .collect();
    known.sort_unstable();
    known.dedup();
    known
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

pub(super) fn set_up(networks: &[&Network], view: View<'_>) -> Result<Findings> {
    let files = files(view)?;
    let known = known(&files);
    let named = networks.iter().map(|network| Ok((interface(network, &known, view)?, *network)));
    let named: Vec<(String, &Network)> = named.collect::<Result<_>>()?;
    let mut findings = Findings::default();
    let strip = |text: &str| named.iter().fold(text.to_owned(), |text, (name, _)| without(&text, name));
    let left: Vec<String> = files.iter().map(|(_, text)| strip(text)).collect();
    let started = |name: &str| left.iter().any(|text| text.lines().any(|line| starts(line, name)));
    for ((path, text), left) in files.iter().zip(&left) {
        let mut new = left.clone();
        if path == Path::new(MAIN) {
            if !new.is_empty() && !new.ends_with('\n') {
                new.push('\n');
            }
            new.extend(named.iter().map(|(name, network)| stanza(name, network, started(name))));
        }
        if new != *text {
            findings.changes.extend(put(path, new.into_bytes(), NewFile::root(0o644), view)?);
        }
    }
    let servers: Vec<&String> = networks.iter().flat_map(|network| &network.dns).collect();
    if !servers.is_empty() {
        name_servers(&servers, view, &mut findings)?;
    }
    Ok(findings)
}

/// Whether the line has the interface brought up when the guest starts.
fn starts(line: &str, name: &str) -> bool {
    match words(line).as_slice() {
        [head, names @ ..] => (*head == "auto" || head.starts_with("allow-")) && names.contains(&name),
        [] => false,
    }
}

/// The file without what it says of the interface, unless it says so of others as well.
fn without(text: &str, name: &str) -> String {
    let mut inside = false;
    let mut continued = false;
    let mut left = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let within = continued;
        if !within {
            let words = words(line);
            match words.first() {
                Some(&"iface") => inside = words.get(1) == Some(&name),
                Some(head) if HEADS.contains(head) || head.starts_with("allow-") => inside = false,
                _ => {}
            }
        }
        continued = line.trim_end().ends_with('\\');
        let comment = line.trim_start().starts_with('#') || line.trim().is_empty();
        let started = !within && words(line) == ["auto", name];
        if !started && (!inside || (comment && !continued)) {
            left += line;
        }
    }
    left
}

fn stanza(name: &str, network: &Network, started: bool) -> String {
    let mut text = if started { String::new() } else { format!("auto {name}\n") };
    match network.fixed() {
        Some((address, _)) => {
            let family = if address.is_ipv4() { "inet" } else { "inet6" };
            text += &format!("iface {name} {family} static\n    address {}\n", network.address);
        }
        None => text += &format!("iface {name} inet dhcp\n"),
    }
    text.extend(network.gateway.iter().map(|gateway| format!("    gateway {gateway}\n")));
    if !network.dns.is_empty() {
        text += &format!("    dns-nameservers {}\n", network.dns.join(" "));
    }
    text
}

/// Only resolvconf(8) heeds those of the stanza. Where the guest does without it, they stand in the file itself.
fn name_servers(servers: &[&String], view: View<'_>, findings: &mut Findings) -> Result<()> {
    let path = Path::new("/etc/resolv.conf");
    for program in ["/sbin/resolvconf", "/usr/sbin/resolvconf", "/usr/bin/resolvconf"] {
        if view.root.is_file(program)? {
            return Ok(());
        }
    }
    if view.root.read_link(path)?.is_some() {
        findings.note(path.to_path_buf(), "whoever writes this file chooses the name servers of clones");
        return Ok(());
    }
    let old = view.root.read_text("/etc/resolv.conf")?;
    let others: String =
        old.split_inclusive('\n').filter(|line| words(line).first() != Some(&"nameserver")).collect();
    let servers: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let gap = if others.is_empty() || others.ends_with('\n') { "" } else { "\n" };
    findings.changes.extend(put(
        path,
        format!("{others}{gap}{servers}").into_bytes(),
        NewFile::root(0o644),
        view,
    )?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n\n# the card\nallow-hotplug eth0\niface eth0 inet static\n    address 10.0.0.1/24 \\\n      broadcast +\n    # a word\n    up echo eth0\n\niface eth0 inet6 auto\n\niface eth01 inet dhcp\n  metric 5\n";

    #[test]
    fn only_what_is_said_of_the_interface_goes() {
        assert_eq!(
            without(FILE, "eth0"),
            "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n\n# the card\nallow-hotplug eth0\n    # a word\n\n\niface eth01 inet dhcp\n  metric 5\n"
        );
        assert_eq!(without(FILE, "eth9"), FILE);
        assert_eq!(known(&[(PathBuf::new(), FILE.to_owned())]), ["eth0", "eth01"]);
        assert!(
            FILE.lines().any(|line| starts(line, "eth0")) && !FILE.lines().any(|line| starts(line, "eth01"))
        );
    }

    proptest! {
        #[test]
        fn nothing_is_left_of_the_interface_and_all_of_others(text in "((iface|auto|source|address|#)? ?(eth0|eth1)? ?(inet|\\\\)?\\n?){0,12}") {
            let left = without(&text, "eth0");
            prop_assert_eq!(without(&left, "eth0"), left.clone());
            if !text.contains('\\') {
                let stanzas = |text: &str, name| text.lines().filter(|line| words(line).starts_with(&["iface", name])).count();
                prop_assert_eq!(stanzas(&left, "eth0"), 0);
                prop_assert_eq!(stanzas(&left, "eth1"), stanzas(&text, "eth1"));
            }
        }
    }
}
