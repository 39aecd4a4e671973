//! SUSE's files for wicked(8): ifcfg(5), ifroute(5) and the name servers of netconfig(8).

#![forbid(unsafe_code)]

use std::path::Path;

use super::{file, find, interface, put};
use crate::action::hostname::with_setting;
use crate::action::{Findings, View};
use crate::error::Result;
use crate::guest::change::{Change, NewFile};
use crate::operation::network::Network;

const FOLDER: &str = "/etc/sysconfig/network";

pub(super) fn set_up(networks: &[&Network], view: View<'_>) -> Result<Findings> {
    let mut findings = Findings::default();
    for network in networks {
        findings.changes.extend(files_of(network, view)?.changes);
    }
    let servers: Vec<&str> = networks.iter().flat_map(|network| &network.dns).map(String::as_str).collect();
    if !servers.is_empty() {
        let path = Path::new("/etc/sysconfig/network/config");
        let old = view.root.read(path)?.unwrap_or_default();
        let servers = format!("\"{}\"", servers.join(" "));
        let new = with_setting(&old, "NETCONFIG_DNS_STATIC_SERVERS", &servers)?;
        findings.changes.extend(put(path, new, NewFile::root(0o644), view)?);
    }
    Ok(findings)
}

fn files_of(network: &Network, view: View<'_>) -> Result<Findings> {
    let there = find(&[format!("{FOLDER}/ifcfg-*")], &[format!("{FOLDER}/ifcfg-lo")], view)?;
    let names = there.iter().map(|entry| entry.path.to_string_lossy().into_owned());
    let known: Vec<String> = names
        .filter_map(|path| path.strip_prefix(&format!("{FOLDER}/ifcfg-")).map(str::to_owned))
        .filter(|name| !name.contains(['.', '~']) || network.interface.as_ref() == Some(name))
        .collect();
    let name = interface(network, &known, view)?;
    let mut findings = file(&format!("{FOLDER}/ifcfg-{name}"), text(network), 0o644, view)?;

    let routes = format!("{FOLDER}/ifroute-{name}");
    match (&network.gateway, view.root.lookup(Path::new(&routes))?) {
        (Some(gateway), _) => {
            findings
                .changes
                .extend(file(&routes, format!("default {gateway} - {name}\n"), 0o644, view)?.changes);
        }
        (None, Some(old)) => {
            findings.changes.push(Change::Remove { path: old.path, kind: old.kind, bytes: old.bytes });
        }
        (None, None) => {}
    }
    Ok(findings)
}

fn text(network: &Network) -> String {
    match network.fixed() {
        Some(_) => format!("BOOTPROTO='static'\nSTARTMODE='auto'\nIPADDR='{}'\n", network.address),
        None => "BOOTPROTO='dhcp'\nSTARTMODE='auto'\n".to_owned(),
    }
}
