//! netplan(5). All its files are merged, so what others say of the same interface must go.

#![forbid(unsafe_code)]

use std::path::Path;

use super::{file, find, suffix};
use crate::action::{Findings, View};
use crate::error::{Error, Result};
use crate::guest::change::Change;
use crate::operation::network::Network;

const GENERATORS: [&str; 4] =
    ["/usr/sbin/netplan", "/usr/bin/netplan", "/usr/libexec/netplan/generate", "/lib/netplan/generate"];

/// Whether the guest has it, with something for it to read or nothing else that would set up interfaces.
pub(super) fn is_used(view: View<'_>) -> Result<bool> {
    let mut there = false;
    for path in GENERATORS {
        there |= view.root.is_file(path)?;
    }
    Ok(there && (!find(&globs(), &[], view)?.is_empty() || !super::is_on("networking", view)?))
}

fn globs() -> [String; 1] {
    ["/etc/netplan/*.yaml".to_owned()]
}

pub(super) fn set_up(network: &Network, view: View<'_>) -> Result<Findings> {
    let path = format!("/etc/netplan/90-guestseal{}.yaml", suffix(network));
    let mut findings = Findings::default();
    for entry in find(&globs(), &[], view)?.into_iter().filter(|entry| entry.path != Path::new(&path)) {
        let text = view.root.read(&entry.path)?.unwrap_or_default();
        match about(&String::from_utf8_lossy(&text), network) {
            About::Others => {}
            About::This => {
                findings.changes.push(Change::Remove {
                    path: entry.path,
                    kind: entry.kind,
                    bytes: entry.bytes,
                });
            }
            About::Both => {
                let what = format!("{} in the guest is about other interfaces as well", entry.path.display());
                return Err(Error::unsupported(what).hint(
                    "change it yourself, by --upload, or remove all of netplan's configuration: --operations …,net-netplan",
                ));
            }
        }
    }
    // Passwords of others stand there, so netplan complains about files that all may read.
    findings.changes.extend(file(&path, text(network), 0o600, view)?.changes);
    Ok(findings)
}

fn text(network: &Network) -> String {
    let mut text = "network:\n  version: 2\n  ethernets:\n".to_owned();
    text += &match &network.interface {
        Some(name) => format!("    {name}:\n"),
        None => "    guestseal:\n      match:\n        name: \"e*\"\n".to_owned(),
    };
    match network.fixed() {
        Some((address, _)) => {
            text += &format!(
                "      dhcp4: false\n      dhcp6: false\n      addresses: [\"{}\"]\n",
                network.address
            );
            let default = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            if let Some(gateway) = &network.gateway {
                text +=
                    &format!("      routes:\n        - to: \"{default}\"\n          via: \"{gateway}\"\n");
            }
        }
        None => text += "      dhcp4: true\n",
    }
    if !network.dns.is_empty() {
        let servers: Vec<String> = network.dns.iter().map(|server| format!("\"{server}\"")).collect();
        text += &format!("      nameservers:\n        addresses: [{}]\n", servers.join(", "));
    }
    text
}

/// What a file of netplan is about.
#[derive(Debug, PartialEq, Eq)]
enum About {
    /// Nothing, or other interfaces only.
    Others,
    /// The interface in question only.
    This,
    /// That one and others, or it cannot be told.
    Both,
}

fn about(text: &str, network: &Network) -> About {
    let Some(devices) = devices(text) else { return About::Both };
    let ours = |(kind, name, block): &(String, String, String)| {
        let named =
            |interface: &String| name == interface || block.lines().any(|line| mentions(line, interface));
        kind == "ethernets" && network.interface.as_ref().is_none_or(named)
    };
    // A pattern may mean the interface too.
    let unclear =
        |(kind, _, block): &(String, String, String)| kind == "ethernets" && block.contains("match:");
    let (matching, all) = (devices.iter().filter(|device| ours(device)).count(), devices.len());
    match (matching, devices.iter().filter(|device| !ours(device)).any(unclear)) {
        (_, true) => About::Both,
        (0, _) if network.interface.is_some() || all == 0 => About::Others,
        (matching, _) if matching == all => About::This,
        _ => About::Both,
    }
}

/// Whether a line says that a device is, or becomes, this interface.
fn mentions(line: &str, interface: &str) -> bool {
    let Some((key, value)) = line.trim().split_once(':') else { return false };
    matches!(key, "set-name" | "name") && value.trim().trim_matches(['"', '\'']) == interface
}

/// The devices of a file: kind, name, and what is said of each; none when it is written in another style than netplan's
/// documentation and cloud-init write it.
fn devices(text: &str) -> Option<Vec<(String, String, String)>> {
    let mut devices: Vec<(String, String, String)> = Vec::new();
    let (mut kind, mut kind_at, mut name_at) = (None, None, None);
    for line in text.lines().map(|line| line.split(" #").next().unwrap_or_default()) {
        let body = line.trim();
        let indent = line.len() - line.trim_start().len();
        if body.is_empty() || body.starts_with('#') || body == "---" {
            continue;
        }
        let key = body.split_once(':').map(|(key, rest)| (key.trim_matches(['"', '\'']), rest.trim()));
        if indent == 0 {
            if key != Some(("network", "")) {
                return None;
            }
            (kind, kind_at, name_at) = (None, None, None);
        } else if kind_at.is_none_or(|at| indent <= at) {
            let (key, rest) = key?;
            if rest.contains('{') {
                return None;
            }
            kind = rest.is_empty().then(|| key.to_owned());
            (kind_at, name_at) = (Some(indent), None);
        } else if let Some(kind) = &kind {
            if name_at.is_none_or(|at| indent <= at) {
                let (name, rest) = key?;
                if rest.contains('*') || rest.contains('&') {
                    return None;
                }
                name_at = Some(indent);
                devices.push((kind.clone(), name.to_owned(), rest.to_owned()));
            } else {
                let (_, _, block) = devices.last_mut()?;
                *block += &format!("\n{body}");
            }
        }
    }
    Some(devices)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> Network {
        Network::parse(text).unwrap()
    }

    #[test]
    fn what_files_are_about_is_told_from_their_devices() {
        let cloud = "# by cloud-init\nnetwork:\n    ethernets:\n        enp1s0:\n            dhcp4: true\n            match:\n                macaddress: 52:54:00:00:00:01\n            set-name: eth0\n    version: 2\n";
        let two =
            "network:\n  version: 2\n  ethernets:\n    eth0: {dhcp4: true}\n    eth1:\n      dhcp4: true\n";
        let bond = "network:\n  bonds:\n    bond0:\n      interfaces: [eth1, eth2]\n";
        let any = "network:\n  ethernets:\n    all:\n      match: {name: \"e*\"}\n      dhcp4: true\n";
        for (text, about_eth0, about_all) in [
            (cloud, About::This, About::This),
            (two, About::Both, About::This),
            (bond, About::Others, About::Both),
            (any, About::Both, About::This),
            ("network:\n  version: 2\n  renderer: networkd\n", About::Others, About::Others),
            ("network: {version: 2, ethernets: {eth0: {dhcp4: true}}}\n", About::Both, About::Both),
            ("", About::Others, About::Others),
        ] {
            assert_eq!(about(text, &network("dhcp:interface=eth0")), about_eth0, "{text}");
            assert_eq!(about(text, &network("dhcp")), about_all, "{text}");
        }
        assert_eq!(about(cloud, &network("dhcp:interface=eth7")), About::Both);
        assert_eq!(about(two, &network("dhcp:interface=eth7")), About::Others);
    }

    proptest! {
        #[test]
        fn any_text_does_no_harm(text in "((network|ethernets|bonds|eth0|dhcp4)?:?[ {}*&\"#-]{0,5}\\n? {0,4}){0,12}") {
            let _ = about(&text, &network("dhcp:interface=eth0"));
        }
    }
}
