//! What clones of a template would have to share.

use roxmltree::Node;

use super::super::definition::devices;
use super::super::xml::{NODES, attribute, child, document, domain};
use crate::error::Result;

/// What stays in a template although only one machine at a time can have it, for people to decide on: devices of the host,
/// sockets and ports that have a fixed name, and words for qemu itself, which nobody here understands.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] when it is no definition.
pub fn shared(xml: &str) -> Result<Vec<String>> {
    let document = document(xml, NODES)?;
    let domain = domain(&document)?;
    let mut notes = Vec::new();
    for device in devices(domain)?.into_iter().flat_map(|devices| devices.children()).filter(Node::is_element)
    {
        notes.extend(of_device(device)?);
    }
    if domain
        .children()
        .any(|node| node.tag_name().name() == "commandline" && node.tag_name().namespace().is_some())
    {
        notes.push("words for the hypervisor itself (commandline) are kept as they are: see to it that clones can share them".into());
    }
    Ok(notes)
}

fn of_device(device: Node<'_, '_>) -> Result<Option<String>> {
    let kind = attribute(device, "type").unwrap_or_default();
    let source = child(device, "source")?;
    let socket =
        || source.and_then(|source| attribute(source, "path").or_else(|| attribute(source, "service")));
    Ok(match device.tag_name().name() {
        "hostdev" => Some(
            "a device of the host (hostdev) is kept: only one clone at a time can run with it".to_owned(),
        ),
        "interface" if kind == "hostdev" => {
            Some("a network device of the host is kept: only one clone at a time can run with it".to_owned())
        }
        "tpm"
            if child(device, "backend")?.and_then(|backend| attribute(backend, "type"))
                == Some("passthrough") =>
        {
            Some("the TPM of the host is kept: only one clone at a time can run with it".to_owned())
        }
        name @ ("interface" | "serial" | "console" | "parallel" | "channel")
            if matches!(kind, "unix" | "tcp" | "udp" | "vhostuser") =>
        {
            socket().map(|socket| {
                format!("a {name} keeps its socket {socket}: only one clone at a time can have it")
            })
        }
        _ => None,
    })
}
