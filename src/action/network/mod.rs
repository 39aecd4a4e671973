//! Addresses of interfaces, written for whatever service of the guest sets them up: which one that is is told by what is
//! installed and switched on, not by the distribution's name.

#![forbid(unsafe_code)]

mod ifcfg;
mod ifupdown;
mod keyfile;
mod netplan;
mod networkd;
mod wicked;

use super::{Findings, View, find, has_line, meets, put};
use crate::error::{Error, Result};
use crate::guest::change::NewFile;
use crate::operation::network::Network;
use crate::operation::schema::{Init, Lines};

/// Who sets up the guest's interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Netplan,
    Keyfile,
    Networkd,
    Ifcfg,
    Ifupdown,
    Wicked,
}

/// Those that were given.
pub(super) fn given(view: View<'_>) -> Result<Findings> {
    set_up(&Network::list(view.settings.required("networks")?).map_err(Error::usage)?, view)
}

/// What sets these interfaces up.
pub(super) fn set_up(networks: &[Network], view: View<'_>) -> Result<Findings> {
    let mut findings = Findings::default();
    // Where all interfaces stand in one file, it is written once.
    let (mut for_ifupdown, mut for_wicked) = (Vec::new(), Vec::new());
    for network in networks {
        if !meets(&network.when, view)? {
            continue;
        }
        let found = match style(network, view)? {
            Style::Netplan => netplan::set_up(network, view)?,
            Style::Keyfile => keyfile::set_up(network, view)?,
            Style::Networkd => networkd::set_up(network, view)?,
            Style::Ifcfg => ifcfg::set_up(network, view)?,
            Style::Ifupdown => {
                for_ifupdown.push(network);
                continue;
            }
            Style::Wicked => {
                for_wicked.push(network);
                continue;
            }
        };
        findings.add(found);
    }
    if !for_ifupdown.is_empty() {
        findings.add(ifupdown::set_up(&for_ifupdown, view)?);
    }
    if !for_wicked.is_empty() {
        findings.add(wicked::set_up(&for_wicked, view)?);
    }
    if !findings.changes.is_empty() && cloud_init_sets_networks_up(view)? {
        let message = "cloud-init may write a network configuration of its own when a clone starts";
        findings.note(None, message);
    }
    Ok(findings)
}

fn style(network: &Network, view: View<'_>) -> Result<Style> {
    let ifupdown = is_on("networking", view)? && view.root.is_folder("/etc/network")?;
    let named_there = ifupdown && ifupdown::names(network, view)?;
    Ok(if netplan::is_used(view)? && !named_there {
        Style::Netplan
    } else if named_there {
        // NetworkManager leaves alone what stands in ifupdown's file.
        Style::Ifupdown
    } else if is_on("NetworkManager", view)? || is_on("networkmanager", view)? {
        if ifcfg::is_used_by_network_manager(view)? { Style::Ifcfg } else { Style::Keyfile }
    } else if is_on("wicked", view)? {
        Style::Wicked
    } else if is_on("systemd-networkd", view)? {
        Style::Networkd
    } else if ifupdown {
        Style::Ifupdown
    } else if is_on("network", view)? && view.root.is_folder("/etc/sysconfig/network-scripts")? {
        Style::Ifcfg
    } else {
        let what = "no service that sets up the guest's network is switched on: netplan, NetworkManager, wicked, \
            systemd-networkd, ifupdown and Red Hat's network scripts were looked for";
        return Err(Error::unsupported(what)
            .hint("switch one on in the guest, or write what it uses instead by --write"));
    })
}

/// Whether the guest's init system starts this service.
fn is_on(service: &str, view: View<'_>) -> Result<bool> {
    let any = |globs: Vec<String>| Ok(!find(&globs, &[], view)?.is_empty());
    match view.guest.init {
        Some(Init::Systemd) | None => {
            let unit = format!("{service}.service");
            let masked = view.root.read_link(std::path::Path::new(&format!("/etc/systemd/system/{unit}")))?;
            if masked.is_some_and(|target| target.ends_with("dev/null")) {
                return Ok(false);
            }
            let folder = "/{etc,usr/lib,lib}/systemd/system/*.{wants,requires}";
            any(vec![format!("{folder}/{unit}")])
        }
        Some(Init::Openrc) => any(vec![format!("/etc/runlevels/{{boot,default}}/{service}")]),
        Some(Init::Runit) => {
            any(vec![format!("/etc/runit/runsvdir/*/{service}"), format!("/var/service/{service}")])
        }
        Some(Init::Sysvinit) => {
            let levels = ["/etc/rc[S2345].d", "/etc/rc.d/rc[2345].d", "/etc/init.d/rc[2345].d"];
            any(levels.iter().map(|folder| format!("{folder}/S[0-9][0-9]{service}")).collect())
        }
    }
}

/// The interface that is named, or the only one that the guest's own files name.
fn interface(network: &Network, known: &[String], view: View<'_>) -> Result<String> {
    if let Some(name) = &network.interface {
        return Ok(name.clone());
    }
    match known {
        [one] => Ok(one.clone()),
        // Without udev, names are the kernel's own.
        [] if view.guest.init == Some(Init::Openrc) => Ok("eth0".to_owned()),
        _ => {
            let names = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Err(Error::usage(format!("which interface of the guest is meant? Its files name {names}"))
                .hint("say it: --add network:…:interface=eth0"))
        }
    }
}

/// A file that sets up an interface, and nothing else.
fn file(path: &str, text: String, mode: u32, view: View<'_>) -> Result<Findings> {
    let path = std::path::Path::new(path);
    let mut changes = super::steps::folders(path.parent().unwrap_or(path), view)?;
    changes.extend(put(path, text.into_bytes(), NewFile::root(mode), view)?);
    Ok(changes.into())
}

/// `-eth0` for a file that is about one interface.
fn suffix(network: &Network) -> String {
    network.interface.as_ref().map(|name| format!("-{name}")).unwrap_or_default()
}

fn cloud_init_sets_networks_up(view: View<'_>) -> Result<bool> {
    let there =
        view.root.is_file("/usr/bin/cloud-init")? && !view.root.is_file("/etc/cloud/cloud-init.disabled")?;
    let off = Lines {
        files: vec!["/etc/cloud/cloud.cfg".into(), "/etc/cloud/cloud.cfg.d/*.cfg".into()],
        matches: "config[\"']?\\s*:\\s*[\"']?disabled".into(),
    };
    Ok(there && !has_line(&[off], view)?)
}
