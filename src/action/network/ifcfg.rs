//! Red Hat's ifcfg files, for its network scripts and for NetworkManager with its plugin: nm-settings-ifcfg-rh(5).

#![forbid(unsafe_code)]

use super::{file, find, interface};
use crate::action::{Findings, View};
use crate::error::Result;
use crate::operation::network::Network;

const FOLDER: &str = "/etc/sysconfig/network-scripts";

/// The files by the interfaces that they are about.
fn files(view: View<'_>) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in find(&[format!("{FOLDER}/ifcfg-*")], &[], view)? {
        let path = entry.path.to_string_lossy().into_owned();
        let Some(suffix) = path.strip_prefix(&format!("{FOLDER}/ifcfg-")) else { continue };
        // Backups that ifup(8) leaves out too.
        if suffix == "lo"
            || [".bak", ".orig", ".rpmnew", ".rpmsave", "~"].iter().any(|end| suffix.ends_with(end))
        {
            continue;
        }
        let text = view.root.read_text(&path)?;
        let device = text.lines().find_map(|line| line.trim().strip_prefix("DEVICE="));
        let device = device.map_or(suffix, |device| device.trim_matches(['"', '\'']));
        files.push((device.to_owned(), path.clone()));
    }
    Ok(files)
}

/// Whether NetworkManager has such files, and what reads them.
pub(super) fn is_used_by_network_manager(view: View<'_>) -> Result<bool> {
    let plugin = ["/usr/lib64", "/usr/lib", "/usr/lib/*-linux-gnu*"]
        .map(|folder| format!("{folder}/NetworkManager/**/libnm-settings-plugin-ifcfg-rh.so"));
    Ok(!files(view)?.is_empty() && !find(&plugin, &[], view)?.is_empty())
}

pub(super) fn set_up(network: &Network, view: View<'_>) -> Result<Findings> {
    let files = files(view)?;
    let mut known: Vec<String> = files.iter().map(|(device, _)| device.clone()).collect();
    known.dedup();
    let name = interface(network, &known, view)?;
    let there = files.into_iter().find(|(device, _)| *device == name).map(|(_, path)| path);
    let path = there.unwrap_or_else(|| format!("{FOLDER}/ifcfg-{name}"));
    file(&path, text(&name, network), 0o644, view)
}

fn text(name: &str, network: &Network) -> String {
    let mut text = format!("DEVICE={name}\nTYPE=Ethernet\nONBOOT=yes\n");
    text += &match network.fixed() {
        None => "BOOTPROTO=dhcp\n".to_owned(),
        Some((address, prefix)) if address.is_ipv4() => {
            let gateway =
                network.gateway.iter().map(|gateway| format!("GATEWAY={gateway}\n")).collect::<String>();
            format!("BOOTPROTO=none\nIPADDR={address}\nPREFIX={prefix}\n{gateway}")
        }
        Some(_) => {
            let gateway = network
                .gateway
                .iter()
                .map(|gateway| format!("IPV6_DEFAULTGW={gateway}\n"))
                .collect::<String>();
            format!("BOOTPROTO=none\nIPV6INIT=yes\nIPV6_AUTOCONF=no\nIPV6ADDR={}\n{gateway}", network.address)
        }
    };
    text.extend(network.dns.iter().zip(1..).map(|(server, number)| format!("DNS{number}={server}\n")));
    text
}
