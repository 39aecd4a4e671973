//! Who uses which file: the disks of all domains, and the volumes of all pools.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::definition::{Disk, Source};
use super::virsh::Libvirt;
use crate::error::Result;

impl Libvirt {
    /// The disks of all domains that are files or devices of this host, each with the domain's name: those they have now, and
    /// those they have when they are started next. CDs and disks that are only read are among them.
    ///
    /// # Errors
    /// As [`Libvirt::definitions`]. A volume of a pool that does not run is left out, for nobody knows where it is.
    pub fn domain_disks(&self) -> Result<Vec<(String, PathBuf)>> {
        let mut found = Vec::new();
        for domain in self.definitions()? {
            for Disk { source, .. } in domain.disks {
                let path = match source {
                    Source::File(path) | Source::Block(path) => Some(path),
                    Source::Volume { pool, volume } => self.volume(&pool, &volume).ok(),
                    Source::Nothing | Source::Network { .. } | Source::Other(_) => None,
                };
                found.extend(path.filter(|path| path.is_absolute()).map(|path| (domain.name.clone(), path)));
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// The paths of all volumes of the pools that run, as far as they are on this host.
    ///
    /// # Errors
    /// As [`Libvirt::ask`].
    pub fn volumes(&self) -> Result<Vec<PathBuf>> {
        let pools = self.ask(&["pool-list", "--name"], &[])?;
        let mut found = Vec::new();
        for pool in pools.lines().map(str::trim_end).filter(|pool| !pool.is_empty()) {
            found.extend(volume_paths(&self.ask(&["vol-list"], &[pool])?));
        }
        Ok(found)
    }
}

/// The paths in what `virsh vol-list` prints: names, which have no slash, and behind some blanks the paths.
fn volume_paths(table: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let at = line.find('/')?;
        // On other hosts it is no path, and begins with a word.
        line[..at].ends_with(' ').then(|| PathBuf::from(line[at..].trim_end()))
    };
    table.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_found_by_their_paths() {
        let table = " a b.qcow2          /srv/images/a b.qcow2     \n ü.img   /srv/images/ü.img\n\
                      unit:0:0:1   /dev/disk/by-path/ip-10.0.0.1:3260-lun-1\n web   rbdpool/web\n\n";
        let paths =
            ["/srv/images/a b.qcow2", "/srv/images/ü.img", "/dev/disk/by-path/ip-10.0.0.1:3260-lun-1"];
        assert_eq!(volume_paths(table), paths.map(PathBuf::from));
        assert!(volume_paths("").is_empty());
    }
}
