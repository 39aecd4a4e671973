//! NetworkManager's own files: nm-settings-keyfile(5).

#![forbid(unsafe_code)]

use super::{file, suffix};
use crate::action::{Findings, View};
use crate::error::Result;
use crate::operation::network::Network;

/// Of several connections for an interface that with the highest priority counts, and 999 is the highest. Without a uuid
/// NetworkManager makes one of the file's name. It reads no file that others may read.
pub(super) fn set_up(network: &Network, view: View<'_>) -> Result<Findings> {
    let name = format!("guestseal{}", suffix(network));
    let path = format!("/etc/NetworkManager/system-connections/{name}.nmconnection");
    file(&path, text(&name, network), 0o600, view)
}

fn text(name: &str, network: &Network) -> String {
    let mut text = format!("[connection]\nid={name}\ntype=ethernet\nautoconnect-priority=999\n");
    text.extend(network.interface.iter().map(|interface| format!("interface-name={interface}\n")));
    let old = |address: &str| !address.contains(':');
    for is_old in [true, false] {
        let fixed = network.fixed().filter(|(address, _)| address.is_ipv4() == is_old);
        text += if is_old { "\n[ipv4]\n" } else { "\n[ipv6]\n" };
        text += &match (fixed, network.fixed()) {
            (Some(_), _) => {
                let gateway = network.gateway.iter().map(|gateway| format!(",{gateway}"));
                format!("method=manual\naddress1={}{}\n", network.address, gateway.collect::<String>())
            }
            (None, Some(_)) if is_old => "method=disabled\n".to_owned(),
            (None, _) => "method=auto\n".to_owned(),
        };
        let servers: Vec<&str> =
            network.dns.iter().map(String::as_str).filter(|one| old(one) == is_old).collect();
        if !servers.is_empty() {
            text += &format!("dns={};\n", servers.join(";"));
        }
    }
    text
}
