//! A domain's definition: what libvirt's XML says of its disks. Pure over text.
//! <https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms>

#![forbid(unsafe_code)]

use std::path::PathBuf;

use roxmltree::Node;

use super::xml::{NODES, attribute, child, children, document, domain, is, malformed};
use crate::error::{Error, Result};

/// What a definition says that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The domain's name.
    pub name: String,
    /// Its UUID, in small letters.
    pub uuid: String,
    /// Its disks, in libvirt's order.
    pub disks: Vec<Disk>,
    /// The addresses of its network interfaces, in small letters.
    pub macs: Vec<String>,
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
/// [`crate::ErrorKind::Unsupported`] when it is no such XML or contradicts itself.
pub fn parse(text: &str) -> Result<Definition> {
    of(domain(&document(text, NODES)?)?)
}

/// Reads the definitions of several domains, one behind the other.
///
/// # Errors
/// As [`parse`].
pub fn parse_all(texts: &str) -> Result<Vec<Definition>> {
    // As one document: no line of a definition can be taken for the begin of another.
    let all = format!("<all>{texts}</all>");
    let document = document(&all, u32::MAX)?;
    children(document.root_element(), "domain").map(of).collect()
}

fn of(domain: Node<'_, '_>) -> Result<Definition> {
    let name = text_of(domain, "name")?;
    let uuid = text_of(domain, "uuid")?.to_ascii_lowercase();
    if !is_uuid(&uuid) {
        return Err(malformed("its UUID is none"));
    }
    let devices = devices(domain)?;
    let of_type = |name| devices.into_iter().flat_map(move |devices| children(devices, name));
    let mac = |interface| Some(attribute(child(interface, "mac").ok()??, "address")?.to_ascii_lowercase());
    let macs = of_type("interface").filter_map(mac).collect();
    Ok(Definition { name, uuid, disks: of_type("disk").map(disk).collect::<Result<_>>()?, macs })
}

/// The name alone, which a definition that has no UUID yet has too.
///
/// # Errors
/// As [`parse`].
pub(super) fn name(text: &str) -> Result<String> {
    text_of(domain(&document(text, NODES)?)?, "name")
}

/// Whether a domain's firmware keeps variables in a file.
///
/// # Errors
/// As [`parse`].
pub(super) fn has_nvram(text: &str) -> Result<bool> {
    let document = document(text, NODES)?;
    let os = child(domain(&document)?, "os")?;
    Ok(os.is_some_and(|os| os.children().any(|node| is(node, "nvram") || is(node, "varstore"))))
}

/// The devices of a domain.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] when it has them twice.
pub(super) fn devices<'a, 'i>(domain: Node<'a, 'i>) -> Result<Option<Node<'a, 'i>>> {
    child(domain, "devices")
}

/// Whether this is a UUID as libvirt prints it.
pub(super) fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

/// What a `<disk>` says.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] when it contradicts itself.
pub(super) fn disk(node: Node<'_, '_>) -> Result<Disk> {
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

fn text_of(node: Node<'_, '_>, name: &'static str) -> Result<String> {
    let text = child(node, name)?.and_then(|child| child.text()).unwrap_or_default();
    if text.trim().is_empty() {
        return Err(malformed(&format!("it has no {name}")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
#[path = "definition_tests.rs"]
mod tests;
