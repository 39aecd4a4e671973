//! New addresses for the interfaces of a clone.

use std::collections::BTreeSet;

use super::super::definition::devices;
use super::super::xml::{NODES, attribute, children, document, domain};
use crate::error::{Error, Result};
use crate::uuids::random_bytes;

/// The tries for an address that nobody has: of 16 million, some thousands are taken where there are many machines.
const TRIES: usize = 100;

/// A new address for each interface of a template, none of which is among `taken`, where they are added. The first half is
/// that of the hypervisor, as libvirt itself has it: 00:16:3e for Xen, 52:54:00 (of the locally administered ones) for all
/// others; the second is random.
///
/// # Errors
/// When there are no random numbers, or none that is free; [`crate::ErrorKind::Unsupported`] when it is no definition.
pub fn fresh_macs(template: &str, taken: &mut BTreeSet<String>) -> Result<Vec<String>> {
    let document = document(template, NODES)?;
    let domain = domain(&document)?;
    let first = if attribute(domain, "type") == Some("xen") { "00:16:3e" } else { "52:54:00" };
    let interfaces = devices(domain)?.into_iter().flat_map(|devices| children(devices, "interface"));
    interfaces.map(|_| fresh(first, taken)).collect()
}

fn fresh(first: &str, taken: &mut BTreeSet<String>) -> Result<String> {
    for _ in 0..TRIES {
        let [a, b, c] = random_bytes()?;
        let mac = format!("{first}:{a:02x}:{b:02x}:{c:02x}");
        if taken.insert(mac.clone()) {
            return Ok(mac);
        }
    }
    Err(Error::failed(format!("there is no free address that begins with {first}")))
}
