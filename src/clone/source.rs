//! The template of a clone, opened: locked against whoever would change it, and known to be what was sealed.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::How;
use crate::error::{Error, Result};
use crate::expand::{Expand, Growth};
use crate::image::format::Format;
use crate::image::info::Image;
use crate::image::lock::Use;
use crate::image::past::Past;
use crate::record::template::SeedPlace;
use crate::report::{Event, Observer};
use crate::seal::growth;
use crate::template::seed_place::is_there;
use crate::template::store::{Store, check_name};
use crate::template::{Template, disk_path};

/// A template that clones are made of.
#[derive(Debug)]
pub struct Source {
    /// It.
    pub template: Template,
    /// Its disks, locked for reading.
    pub images: Vec<Image>,
    /// Where clones get their seeds.
    pub(super) seed: Option<SeedPlace>,
    /// Whether clones are larger, and by how much.
    pub(super) grows: Option<(Expand, Growth)>,
}

impl Source {
    /// Finds a template by its name in the store or, when it has a slash or a dot in it and is no name there, by the path of
    /// its image; locks it, and sees to it that it is still sealed. With `force` one that is not is taken all the same.
    ///
    /// # Errors
    /// A usage error when there is none; [`crate::ErrorKind::Found`] when it is not sealed any more, busy when somebody
    /// writes to it.
    pub fn open(store: &Store, wanted: &Path, force: bool, observer: &mut dyn Observer) -> Result<Self> {
        let template = find(store, wanted)?;
        let open = |(disk, path): (usize, &PathBuf)| {
            Image::open(path, template.format(disk), Use::Read, Past::default())
        };
        let images = template.images.iter().enumerate().map(open).collect::<Result<Vec<_>>>()?;
        let files: Vec<_> = images.iter().map(|image| image.lock.file()).collect();
        match template.must_be_sealed(&files, observer) {
            Err(error) if force => {
                observer.event(Event::Warning(&format!("{error}: cloned all the same")));
            }
            judged => judged?,
        }
        let recorded = template.facts().and_then(|facts| facts.seed);
        let seed = recorded.map_or(Ok(None), |seed| is_there(&images, seed))?;
        Ok(Self { template, images, seed, grows: None })
    }

    /// Makes clones larger than the template.
    ///
    /// # Errors
    /// A usage error when they would be smaller; [`crate::ErrorKind::Unsupported`] when they cannot be larger.
    pub fn grow(&mut self, expand: Expand) -> Result<()> {
        self.grows = growth(Some(&expand), &mut self.images)?.map(|growth| (expand, growth));
        Ok(())
    }

    /// The format of a clone.
    pub fn format_of(&self, how: How) -> Format {
        match how {
            How::Thin { .. } => Format::Qcow2,
            How::Full { format, .. } => {
                format.or_else(|| self.images.first().map(|image| image.format)).unwrap_or(Format::Qcow2)
            }
        }
    }

    /// The images of a clone whose first has this path: NAME.qcow2, NAME-1.qcow2, and so on.
    pub(super) fn paths_of_clone(&self, first: &Path) -> Vec<PathBuf> {
        (0..self.images.len()).map(|disk| disk_path(first, disk)).collect()
    }
}

fn find(store: &Store, wanted: &Path) -> Result<Template> {
    let name = wanted.to_str().filter(|name| check_name(name).is_ok());
    if let Some(name) = name {
        let found = store.find(name);
        if found.is_ok() || !wanted.is_file() {
            return found;
        }
    }
    if !wanted.exists() {
        return Err(Error::usage(format!("there is neither a template nor an image {}", wanted.display()))
            .hint("guestseal template list shows the templates"));
    }
    Template::of_image(wanted)
}
