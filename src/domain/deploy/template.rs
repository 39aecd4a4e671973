//! The copy of a definition that machines are deployed by.

use std::path::PathBuf;

use roxmltree::Node;

use super::super::definition::devices;
use super::super::xml::{Edits, NODES, attribute, child, children, document, domain, is};
use crate::error::Result;

/// What libvirt's own names for devices do not begin with: those are the user's.
const USER_ALIAS: &str = "ua-";

/// A definition without what only one machine can have, or what only this run of it had: number, UUID and title, MAC
/// addresses and other identities of interfaces, names of tap devices, paths that libvirt makes, the file of the NVRAM, fixed ports
/// and passwords of the console, dynamic labels, chains of backing files. libvirt makes each of them anew. The name, the
/// disks and all else stay; [`super::shared()`] tells what clones would have to share.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] when it is no definition, or contradicts itself.
pub fn template(xml: &str) -> Result<String> {
    let document = document(xml, NODES)?;
    let domain = domain(&document)?;
    let mut edits = Edits::new(xml);
    edits.without(domain, "id");
    for gone in ["uuid", "title"].into_iter().filter_map(|name| child(domain, name).transpose()) {
        edits.remove(gone?);
    }
    // libvirt makes a new one where the value is missing.
    if let Some(genid) = child(domain, "genid")? {
        edits.replace(genid, "<genid/>".into());
    }
    children(domain, "seclabel").for_each(|label| security(label, &mut edits));
    system_uuid(domain, &mut edits)?;
    if let Some(os) = child(domain, "os")? {
        firmware(os, &mut edits)?;
    }
    for device in devices(domain)?.into_iter().flat_map(|devices| devices.children()) {
        if device.is_element() && device.tag_name().namespace().is_none() {
            clean(device, &mut edits)?;
        }
    }
    Ok(edits.apply())
}

/// The file with the variables of a machine's firmware (UEFI), among them how it boots, where the definition names one: a clone
/// needs a copy of it.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] when it is no definition.
pub fn nvram(xml: &str) -> Result<Option<PathBuf>> {
    let document = document(xml, NODES)?;
    let Some(os) = child(domain(&document)?, "os")? else { return Ok(None) };
    let Some(nvram) = child(os, "nvram")? else { return Ok(None) };
    let source = child(nvram, "source")?.and_then(|source| attribute(source, "file"));
    let path = source.or(nvram.text()).unwrap_or_default().trim();
    Ok((!path.is_empty()).then(|| path.into()))
}

/// Each machine has its own file of the firmware's variables; where they come from at first stays.
fn firmware(os: Node<'_, '_>, edits: &mut Edits<'_>) -> Result<()> {
    if let Some(nvram) = child(os, "nvram")? {
        edits.replace(nvram, empty_nvram(nvram, "/>")?);
    }
    if let Some(store) = child(os, "varstore")? {
        edits.without(store, "path");
    }
    Ok(())
}

/// An element of an NVRAM that has only what is true of its file in every machine, ended as `end` says.
pub(super) fn empty_nvram(nvram: Node<'_, '_>, end: &str) -> Result<String> {
    let mut element = String::from("<nvram");
    for name in ["template", "templateFormat", "format"] {
        if let Some(value) = attribute(nvram, name) {
            element += &format!(" {name}='{}'", super::super::xml::escaped(value)?);
        }
    }
    Ok(element + end)
}

/// The UUID that the guest reads from its firmware's tables must be that of the domain.
fn system_uuid(domain: Node<'_, '_>, edits: &mut Edits<'_>) -> Result<()> {
    for sysinfo in children(domain, "sysinfo") {
        let Some(system) = child(sysinfo, "system")? else { continue };
        let uuids = children(system, "entry").filter(|entry| attribute(*entry, "name") == Some("uuid"));
        uuids.for_each(|entry| edits.remove(entry));
    }
    Ok(())
}

/// A label that libvirt makes at each start; one that says nothing but that may be for another host's driver.
fn security(label: Node<'_, '_>, edits: &mut Edits<'_>) {
    if attribute(label, "type").is_some_and(|kind| kind != "dynamic") {
        return;
    }
    let plain = children(label, "baselabel").next().is_none() && attribute(label, "relabel") != Some("no");
    if plain {
        return edits.remove(label);
    }
    ["label", "imagelabel"]
        .into_iter()
        .flat_map(|name| children(label, name))
        .for_each(|made| edits.remove(made));
}

fn clean(device: Node<'_, '_>, edits: &mut Edits<'_>) -> Result<()> {
    let made = |alias: &Node<'_, '_>| !attribute(*alias, "name").unwrap_or_default().starts_with(USER_ALIAS);
    children(device, "alias").filter(made).for_each(|alias| edits.remove(alias));
    match device.tag_name().name() {
        "disk" => disk(device, edits),
        "interface" => interface(device, edits),
        "graphics" => graphics(device, edits),
        "console" | "serial" | "parallel" | "channel" => characters(device, edits),
        "vsock" => vsock(device, edits),
        _ => Ok(()),
    }
}

fn disk(disk: Node<'_, '_>, edits: &mut Edits<'_>) -> Result<()> {
    // The image's own header says what is below it; a copy in progress ends with the run.
    ["backingStore", "mirror"]
        .into_iter()
        .flat_map(|name| children(disk, name))
        .for_each(|node| edits.remove(node));
    if let Some(source) = child(disk, "source")? {
        edits.without(source, "index");
        // A CD that is not there any more may stay away; a disk of a clone may not.
        if !matches!(attribute(disk, "device"), Some("cdrom" | "floppy")) {
            edits.without(source, "startupPolicy");
        }
    }
    Ok(())
}

fn interface(interface: Node<'_, '_>, edits: &mut Edits<'_>) -> Result<()> {
    child(interface, "mac")?.into_iter().for_each(|mac| edits.remove(mac));
    if let Some(source) = child(interface, "source")? {
        edits.without(source, "portid");
    }
    if let Some(target) =
        child(interface, "target")?.filter(|target| attribute(*target, "managed") != Some("no"))
    {
        // A device that somebody else makes has its name from them; all others get theirs from libvirt.
        if target.attributes().len() == 1 && attribute(target, "dev").is_some() {
            edits.remove(target);
        } else {
            edits.without(target, "dev");
        }
    }
    let port = child(interface, "virtualport")?;
    // The port of a switch: of midonet it is named by whoever made it.
    if let Some(port) = port.filter(|port| attribute(*port, "type") != Some("midonet")) {
        for parameters in children(port, "parameters") {
            ["interfaceid", "instanceid"].iter().for_each(|id| edits.without(parameters, id));
        }
    }
    Ok(())
}

fn graphics(graphics: Node<'_, '_>, edits: &mut Edits<'_>) -> Result<()> {
    ["passwd", "passwdValidTo"].iter().for_each(|secret| edits.without(graphics, secret));
    let is_port = |name: &&str| attribute(graphics, name).is_some_and(|port| port != "-1" && port != "0");
    let fixed = ["port", "tlsPort"].iter().filter(|name| is_port(name)).count() > 0;
    if fixed {
        ["port", "tlsPort"].iter().for_each(|name| edits.without(graphics, name));
        edits.set(graphics, "autoport", "yes");
    }
    if is_port(&"websocket") {
        edits.set(graphics, "websocket", "-1");
    }
    for listen in children(graphics, "listen").filter(|listen| attribute(*listen, "type") == Some("socket")) {
        edits.without(graphics, "socket");
        edits.without(listen, "socket");
    }
    Ok(())
}

/// Terminals are made at each start; so is the socket of a channel, in a folder that has the domain's name.
fn characters(device: Node<'_, '_>, edits: &mut Edits<'_>) -> Result<()> {
    edits.without(device, "tty");
    let target = child(device, "target")?;
    target.into_iter().for_each(|target| edits.without(target, "state"));
    let Some(source) = child(device, "source")? else { return Ok(()) };
    let path = attribute(source, "path").unwrap_or_default();
    let made_by_libvirt = match attribute(device, "type") {
        Some("pty") => true,
        Some("unix") if is(device, "channel") => {
            let name = target.and_then(|target| attribute(target, "name")).unwrap_or_default();
            !name.is_empty() && path.ends_with(name)
        }
        _ => false,
    };
    if made_by_libvirt && source.attributes().len() == 1 && !path.is_empty() {
        edits.remove(source);
    } else if made_by_libvirt {
        edits.without(source, "path");
    }
    Ok(())
}

/// No two machines of a host have one number there.
fn vsock(vsock: Node<'_, '_>, edits: &mut Edits<'_>) -> Result<()> {
    if let Some(cid) = child(vsock, "cid")? {
        edits.replace(cid, "<cid auto='yes'/>".into());
    }
    Ok(())
}
