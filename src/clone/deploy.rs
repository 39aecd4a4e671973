//! The machines of clones: a domain of libvirt for each, made of the template's definition.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use super::Cloned;
use crate::domain::deploy::{CloneDisk, CloneOf, for_clone, fresh_macs, own_disks, shared};
use crate::domain::virsh::Libvirt;
use crate::error::{Context, Error, Result, both};
use crate::image::format::Format;
use crate::template::Template;
use crate::uuids;

/// Where and how machines are defined.
#[derive(Debug)]
pub struct Deployment {
    libvirt: Libvirt,
    definition: String,
    /// The names of the disks that clones have images for.
    targets: Vec<String>,
    /// The addresses that some interface has.
    macs: BTreeSet<String>,
    names: Vec<String>,
    start: bool,
}

/// A machine that was defined.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Deployed {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// The addresses of its interfaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<String>,
    /// Whether it was started.
    pub started: bool,
}

impl Deployment {
    /// Finds out what libvirt has, and what the template's machine is.
    ///
    /// # Errors
    /// A usage error when the template has no definition; failed when libvirt does not answer.
    pub fn new(libvirt: Libvirt, template: &Template, start: bool) -> Result<Self> {
        let definition = template.definition()?.ok_or_else(|| {
            Error::usage(format!("the template {} has no definition of a machine", template.name))
                .hint("it was made of an image: make it of a domain (template create NAME -d DOMAIN), or leave out --define")
        })?;
        libvirt.connect()?;
        let targets: Vec<_> = own_disks(&definition)?.into_iter().map(|(target, _)| target).collect();
        if targets.len() != template.images.len() {
            let (has, wants) = (template.images.len(), targets.len());
            return Err(Error::failed(format!(
                "the template has {has} images, and its machine {wants} disks"
            )));
        }
        let macs = libvirt.definitions()?.into_iter().flat_map(|known| known.macs).collect();
        let names = libvirt.names()?;
        Ok(Self { libvirt, definition, targets, macs, names, start })
    }

    /// What of the machine all clones would share, a sentence each.
    ///
    /// # Errors
    /// When the definition cannot be understood.
    pub fn notes(&self) -> Result<Vec<String>> {
        shared(&self.definition)
    }

    /// Refuses a name that a domain has, before anything is made.
    ///
    /// # Errors
    /// A usage error.
    pub fn refuse_taken(&self, name: &str) -> Result<()> {
        if self.names.iter().any(|taken| taken == name) {
            return Err(Error::usage(format!("there is a domain {name:?} already"))
                .hint("choose another name; `virsh list --all` shows those that are taken"));
        }
        Ok(())
    }

    /// Defines the machine of a clone, and starts it when that was asked for.
    ///
    /// # Errors
    /// When libvirt refuses; neither the domain nor the clone is left then.
    pub fn deploy(&mut self, name: &str, clone: &Cloned, format: Format) -> Result<Deployed> {
        self.define(name, clone, format).or_else(|error| {
            let error = error.within(format!("cannot deploy {name}, so nothing of it is kept"));
            both(Err(error), clone.remove())
        })
    }

    fn define(&mut self, name: &str, clone: &Cloned, format: Format) -> Result<Deployed> {
        let paths = std::iter::once(&clone.image).chain(&clone.others);
        let disk = |(target, path): (&String, &PathBuf)| {
            let path = path.canonicalize().context(|| format!("cannot find {}", path.display()))?;
            Ok(CloneDisk { target: target.clone(), path, format })
        };
        let of = CloneOf {
            name: name.to_owned(),
            uuid: uuids::random()?,
            macs: fresh_macs(&self.definition, &mut self.macs)?,
            disks: self.targets.iter().zip(paths).map(disk).collect::<Result<_>>()?,
            nvram: None,
        };
        self.libvirt.define(&for_clone(&self.definition, &of)?)?;
        if self.start
            && let Err(error) = self.libvirt.start(&of.uuid)
        {
            return both(Err(error), self.libvirt.undefine(&of.uuid));
        }
        Ok(Deployed { name: of.name, uuid: of.uuid, macs: of.macs, started: self.start })
    }
}
