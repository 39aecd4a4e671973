//! A domain's definition: what libvirt's XML says of its disks. Pure over text. A document type, and with it every entity of
//! its own, is refused; elements and attributes of other namespaces are other programs' own and not looked at.
//! <https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms>

#![forbid(unsafe_code)]

use std::path::PathBuf;

use roxmltree::{Document, Node, ParsingOptions};

use crate::error::{Context, Error, ErrorKind, Result};

/// The most elements, texts and comments that a definition has: a large one has some thousands.
const NODES: u32 = 200_000;

/// What a definition says that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The domain's name.
    pub name: String,
    /// Its UUID, in small letters.
    pub uuid: String,
    /// Its disks, in libvirt's order.
    pub disks: Vec<Disk>,
}

/// One `<disk>`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disk {
    /// Its name in the guest, such as `vda`.
    pub target: String,
    /// `disk`, `lun`, `cdrom` or `floppy`.
    pub device: String,
    /// Where its bytes are.
    pub source: Source,
    /// Format of the image; libvirt takes one that it does not say for raw.
    pub format: Option<String>,
    /// What keeps it from being an ordinary disk of this domain.
    pub traits: Traits,
}

/// What a disk may be besides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traits {
    /// The guest cannot write to it.
    pub read_only: bool,
    /// Other guests have it too.
    pub shareable: bool,
    /// The guest can be told that it was taken out.
    pub removable: bool,
    /// What the guest writes to it is thrown away.
    pub transient: bool,
    /// libvirt decrypts it for the guest.
    pub encrypted: bool,
    /// It is a part of its source.
    pub sliced: bool,
}

/// Where the bytes of a disk are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Source {
    /// Nowhere: no medium is in the drive.
    #[default]
    Nothing,
    /// In a file.
    File(PathBuf),
    /// On a block device of the host.
    Block(PathBuf),
    /// In a volume of one of libvirt's pools.
    Volume {
        /// The pool.
        pool: String,
        /// The volume.
        volume: String,
    },
    /// On a server.
    Network {
        /// Such as `nbd` or `rbd`.
        protocol: String,
    },
    /// Where only libvirt gets at them: the type, such as `nvme` or `vhostuser`.
    Other(String),
}

/// Reads what `virsh dumpxml` prints.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when it is no such XML or contradicts itself.
pub fn parse(text: &str) -> Result<Definition> {
    let options = ParsingOptions { nodes_limit: NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options)
        .context_kind(ErrorKind::Unsupported, || "the domain's definition is no XML that can be read")?;
    let domain = document.root_element();
    if !is(domain, "domain") {
        return Err(malformed("it does not begin with <domain>"));
    }
    let name = text_of(domain, "name")?;
    let uuid = text_of(domain, "uuid")?.to_ascii_lowercase();
    if !is_uuid(&uuid) {
        return Err(malformed("its UUID is none"));
    }
    let devices = child(domain, "devices")?;
    let disks = devices.into_iter().flat_map(|devices| devices.children()).filter(|node| is(*node, "disk"));
    Ok(Definition { name, uuid, disks: disks.map(disk).collect::<Result<_>>()? })
}

/// Whether this is a UUID as libvirt prints it.
pub(super) fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

fn disk(node: Node<'_, '_>) -> Result<Disk> {
    let target = child(node, "target")?;
    let name = target.and_then(|target| attribute(target, "dev")).unwrap_or_default();
    let about = |error: Error| error.within(format!("cannot understand the disk {name:?}"));
    let has = |node: Node<'_, '_>, name| node.children().any(|child| is(child, name));
    let source = child(node, "source").map_err(about)?;
    let driver = child(node, "driver").map_err(about)?;
    let traits = Traits {
        read_only: has(node, "readonly"),
        shareable: has(node, "shareable"),
        removable: target.and_then(|target| attribute(target, "removable")) == Some("on"),
        transient: has(node, "transient"),
        encrypted: has(node, "encryption") || source.is_some_and(|source| has(source, "encryption")),
        sliced: source.is_some_and(|source| has(source, "slices")),
    };
    Ok(Disk {
        target: name.to_owned(),
        device: attribute(node, "device").unwrap_or("disk").to_owned(),
        source: place(node, source).map_err(about)?,
        format: driver.and_then(|driver| attribute(driver, "type")).map(str::to_owned),
        traits,
    })
}

fn place(disk: Node<'_, '_>, source: Option<Node<'_, '_>>) -> Result<Source> {
    let Some(source) = source else { return Ok(Source::Nothing) };
    let named = |name| attribute(source, name).filter(|value| !value.is_empty()).map(str::to_owned);
    let wanted = |name| named(name).ok_or_else(|| malformed(&format!("its source has no {name}")));
    Ok(match attribute(disk, "type").unwrap_or("file") {
        "file" => named("file").map_or(Source::Nothing, |path| Source::File(path.into())),
        "block" => named("dev").map_or(Source::Nothing, |path| Source::Block(path.into())),
        "volume" => Source::Volume { pool: wanted("pool")?, volume: wanted("volume")? },
        "network" => Source::Network { protocol: wanted("protocol")? },
        other => Source::Other(other.to_owned()),
    })
}

fn is(node: Node<'_, '_>, name: &str) -> bool {
    node.is_element() && node.tag_name().namespace().is_none() && node.tag_name().name() == name
}

/// The only child of this name.
fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Result<Option<Node<'a, 'i>>> {
    let mut found = node.children().filter(|child| is(*child, name));
    match (found.next(), found.next()) {
        (first, None) => Ok(first),
        _ => Err(malformed(&format!("it has more than one <{name}>"))),
    }
}

fn attribute<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    let own = |attribute: &roxmltree::Attribute<'a, '_>| {
        attribute.namespace().is_none() && attribute.name() == name
    };
    node.attributes().find(own).map(|attribute| attribute.value())
}

fn text_of(node: Node<'_, '_>, name: &str) -> Result<String> {
    let text = child(node, name)?.and_then(|child| child.text()).unwrap_or_default();
    if text.trim().is_empty() {
        return Err(malformed(&format!("it has no {name}")));
    }
    Ok(text.to_owned())
}

fn malformed(what: &str) -> Error {
    Error::unsupported(format!("the domain's definition is not understood: {what}"))
}

#[cfg(test)]
#[path = "definition_tests.rs"]
mod tests;
