//! systemd-networkd: systemd.network(5).

#![forbid(unsafe_code)]

use super::{file, suffix};
use crate::action::{Findings, View};
use crate::error::Result;
use crate::operation::network::Network;

/// Of several files for an interface the first one by name counts, so it goes before all others.
pub(super) fn set_up(network: &Network, view: View<'_>) -> Result<Findings> {
    let path = format!("/etc/systemd/network/00-guestseal{}.network", suffix(network));
    file(&path, text(network), 0o644, view)
}

fn text(network: &Network) -> String {
    let name = network.interface.as_deref().unwrap_or("en* eth*");
    let mut text = format!("[Match]\nName={name}\n\n[Network]\n");
    text += &match network.fixed() {
        Some(_) => format!("Address={}\n", network.address),
        None => "DHCP=yes\n".to_owned(),
    };
    text.extend(network.gateway.iter().map(|gateway| format!("Gateway={gateway}\n")));
    text.extend(network.dns.iter().map(|server| format!("DNS={server}\n")));
    text
}
