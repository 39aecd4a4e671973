//! Thin clones: a qcow2 over the template, written here to the byte, which takes less time than to start a program for it.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::Made;
use super::source::Source;
use crate::action::random_seed::seed;
use crate::error::{Context, Error, Result};
use crate::image::info::Image;
use crate::image::nameless::{NamelessFile, folder_of};
use crate::image::qcow2::CLUSTER;
use crate::image::qcow2_write::Thin;

/// Readable for its owner only: a clone holds what its guest will.
pub(super) const MODE: u32 = 0o600;

pub(super) fn make(source: &Source, paths: &[PathBuf], relative: bool, wants_seed: bool) -> Result<Made> {
    let mut seeded = false;
    let mut files = Vec::new();
    for (disk, (image, path)) in source.images.iter().zip(paths).enumerate() {
        let mut clusters = BTreeMap::new();
        if let Some(place) = source.seed.filter(|place| wants_seed && place.disk == disk)
            && let Some((number, cluster)) = seed_cluster(image, place.offset)?
        {
            clusters.insert(number, cluster);
            seeded = true;
        }
        let below = if relative { relative_to(folder_of(path), &image.path)? } else { image.path.clone() };
        let below = below.to_str().ok_or_else(|| {
            Error::unsupported(format!("the path {} is no UTF-8, which qemu cannot take", below.display()))
        })?;
        let file = NamelessFile::make(folder_of(path), MODE)?;
        let thin = Thin {
            virtual_bytes: image.bytes_after(),
            backing_file: below,
            backing_format: image.format.driver(),
            mark: None,
            template: source.template.digest(),
        };
        thin.write(&mut file.file(), &clusters)?;
        files.push(file);
    }
    Ok(Made { files, seeded, reflinked: false })
}

/// The cluster with the place for the seed, as it is in the template but for a new seed. None where it cannot be read
/// without qemu.
fn seed_cluster(image: &Image, offset: u64) -> Result<Option<(u64, Vec<u8>)>> {
    let number = offset / CLUSTER;
    let length = CLUSTER.min(image.virtual_bytes - number * CLUSTER);
    let Some(mut cluster) = image.peek(number * CLUSTER, length)? else { return Ok(None) };
    cluster.resize(usize::try_from(CLUSTER).context(|| "a cluster is too large")?, 0);
    let (at, seed) = (usize::try_from(offset % CLUSTER).unwrap_or_default(), seed()?);
    let Some(place) = cluster.get_mut(at..at + seed.len()) else { return Ok(None) };
    place.copy_from_slice(&seed);
    Ok(Some((number, cluster)))
}

/// The path of a file as seen from a folder.
fn relative_to(folder: &Path, file: &Path) -> Result<PathBuf> {
    let folder = folder.canonicalize().context(|| format!("cannot find the folder {}", folder.display()))?;
    let parts = |path: &Path| path.components().map(|part| part.as_os_str().to_owned()).collect::<Vec<_>>();
    let (from, to) = (parts(&folder), parts(file));
    let same = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
    let up = from[same..].iter().map(|_| Component::ParentDir.as_os_str().to_owned());
    let name: PathBuf = up.chain(to[same..].iter().cloned()).collect();
    // qemu takes what stands before a colon for a protocol.
    let is_protocol =
        name.components().next().is_some_and(|part| part.as_os_str().as_encoded_bytes().contains(&b':'));
    Ok(if is_protocol { Path::new(".").join(name) } else { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_names_lead_from_the_folder_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("clones/deep")).unwrap();
        let file = root.join("templates/a.qcow2");
        let from = |folder: &str| relative_to(&root.join(folder), &file).unwrap();
        assert_eq!(from("clones/deep"), Path::new("../../templates/a.qcow2"));
        assert_eq!(from("."), Path::new("templates/a.qcow2"));
        let odd = relative_to(&root, &root.join("a:b/c.qcow2")).unwrap();
        assert_eq!(odd.to_str(), Some("./a:b/c.qcow2"));
    }
}
