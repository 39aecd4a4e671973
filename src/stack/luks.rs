//! Encrypted volumes, opened by cryptsetup(8). The key goes through a pipe and nowhere else.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::sysinfo::sysinfo;

use super::{Below, Device, Layer, cost, name, run};
use crate::disk::{Content, Made, Volume};
use crate::error::{Context, Error, Result};
use crate::report::{Event, Stage};
use crate::sys::tool::Tool;

/// cryptsetup(8): no key fits.
const NO_KEY: i32 = 2;
/// How long one key may be tried: the derivation may take a gigabyte of memory, under emulation, for each key slot.
const PATIENCE: Duration = Duration::from_secs(540);
/// Without the kernel's keyring a volume that is open can be resized without its key.
const WORDS: [&str; 7] = ["open", "--type", "luks", "--key-file", "-", "--batch-mode", "--disable-keyring"];

pub(super) fn open(below: &mut Below<'_>) -> Result<Vec<Device>> {
    let is_luks = |volume: &Volume| {
        let content = volume.superblock.as_ref().map(|superblock| superblock.content);
        matches!(content, Some(Content::Luks1 | Content::Luks2))
    };
    let found = below.unopened(is_luks).into_iter().map(|(index, _)| index);
    let found: Vec<usize> = found.filter(|index| !below.stack.shut.contains(index)).collect();
    let mut devices = Vec::new();
    for index in found {
        devices.extend(open_one(below, index)?);
    }
    Ok(devices)
}

/// Refuses a volume of which one try of a key would take more memory than there is, or hours.
fn affordable(volume: &Volume, node: &Path) -> Result<()> {
    if volume.superblock.as_ref().is_none_or(|superblock| superblock.content != Content::Luks2) {
        return Ok(());
    }
    let cannot = |why: String| Error::unsupported(format!("{} cannot be opened: {why}", name(volume)));
    let words = ["luksDump", "--dump-json-metadata", &node.to_string_lossy()];
    let metadata = run("cryptsetup", &words)
        .map_err(|error| cannot("its header is not understood".into()).caused_by(error))?;
    let memory = sysinfo().context(|| "cannot tell how much memory there is")?.ram_total() / 1024;
    let costs = cost::too_much(&metadata, memory).context(|| "cannot tell what a key costs")?;
    costs.map_or(Ok(()), |why| {
        Err(cannot(why)
            .hint("make it cheaper in the guest: cryptsetup luksConvertKey --pbkdf-memory, --iter-time"))
    })
}

/// None when there is no key for it: it stays shut.
fn open_one(below: &mut Below<'_>, index: usize) -> Result<Option<Device>> {
    let volume = &below.storage.volumes[index];
    // Each volume has its time: the host waits for the next word.
    below.observer.event(Event::Stage(Stage::OpeningVolumes));
    let keys: Vec<_> = below.opening.keys.iter().filter(|key| key.fits(below.storage, volume)).collect();
    let uuid = volume.superblock.as_ref().and_then(|superblock| superblock.uuid.clone());
    let mapper = format!("luks-{}", uuid.unwrap_or_else(|| index.to_string()));
    let node = below.node(volume)?;
    if !keys.is_empty() {
        affordable(volume, &node)?;
    }
    let readings = keys.iter().flat_map(|key| key.bytes.readings());
    let mut tried = 0;
    for reading in readings {
        tried += 1;
        let mut words: Vec<&str> = WORDS.to_vec();
        if below.opening.read_only {
            words.push("--readonly");
        } else {
            words.push("--allow-discards");
        }
        let mut child = Tool::find("cryptsetup")?
            .spawn()
            .env("DM_DISABLE_UDEV", "1")
            .args(words)
            .arg(&node)
            .arg(&mapper)
            .stdin(Stdio::piped())
            .spawn()?;
        if let Some(mut pipe) = child.take_stdin() {
            // One that ends without reading it says why by its exit.
            let _ = pipe.write_all(reading);
        }
        let exit = child.wait_within(PATIENCE)?;
        if exit.status.code() == Some(NO_KEY) {
            continue;
        }
        exit.success().map_err(|error| error.within(format!("cannot open {}", name(volume))))?;
        below.stack.layers.push(Layer::Encrypted(mapper.clone()));
        let path = Path::new("/dev/mapper").join(&mapper);
        let names = vec![path.display().to_string(), format!("/dev/disk/by-id/dm-name-{mapper}")];
        let copies = below.copies(&mapper)?;
        return Ok(Some(Device { path, made: Made { names, copies, of: vec![index], ..Made::default() } }));
    }
    let why = if tried == 0 { "no key was given for it" } else { "no key that was given fits" };
    let text = format!("{} is encrypted and stays shut: {why} (--key)", name(volume));
    below.warn(&text);
    below.stack.shut.push(index);
    Ok(None)
}
