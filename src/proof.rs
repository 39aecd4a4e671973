//! The proof that nothing deleted is left in what a run made, before any of it is committed.

#![forbid(unsafe_code)]

use std::panic::resume_unwind;
use std::thread;

use crate::attach::{AttachedDisk, ImageSpec, Way};
use crate::erase::copies::{self, Copies};
use crate::erase::fingerprint::Fingerprints;
use crate::erase::policy::ErasePlan;
use crate::erase::report::Erasure;
use crate::erase::{SwapFile, judge, prove};
use crate::error::{Result, both_values};
use crate::fault::{self, Point};
use crate::image::info::Image;
use crate::image::live::{Live, live};
use crate::image::overlay::Overlay;
use crate::report::{Event, Observer, Stage};
use crate::session::Attachment;

/// What the proof of the erasure needs to know.
#[derive(Debug)]
pub struct Proof<'a> {
    /// What was to be erased.
    pub plan: ErasePlan,
    /// The images of the guest's disks.
    pub images: &'a [Image],
    /// The overlays with the work, one for each; none with `--in-place`.
    pub overlays: &'a [&'a Overlay],
    /// How to attach them again; none where the erasure is proven already and only the files are to be searched.
    pub way: Option<Way>,
    /// Where the guest's swap files are.
    pub swap_files: &'a [SwapFile],
    /// What was deleted.
    pub prints: &'a Fingerprints,
}

impl Proof<'_> {
    /// Proves the erasure on a fresh attachment, and meanwhile searches the files themselves.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Found`] when something is left or unproven; when the disk or a file cannot be read.
    pub fn make(
        &self,
        specs: &[ImageSpec],
        erasure: Erasure,
        observer: &mut dyn Observer,
    ) -> Result<Erasure> {
        observer.event(Event::Stage(Stage::SearchingCopies));
        let disks = self.images.iter().enumerate();
        let lives = disks.map(|(index, image)| live(image, self.overlays.get(index).copied()));
        // All by their files, or all by their disks.
        let live: Option<Vec<Live>> = lives.collect::<Result<Option<_>>>()?;
        let (proven, copies) = thread::scope(|scope| {
            let searched = live.as_ref().map(|live| scope.spawn(|| self.search(live)));
            let proven = self.prove(specs, live.is_none(), erasure, observer);
            let copies = searched.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            (proven, copies.transpose())
        });
        let (mut erasure, copies) = both_values(proven, copies)?;
        erasure.copies = copies.or(erasure.copies);
        judge(&erasure, self.plan)?;
        fault::point(Point::Proven).map(|()| erasure)
    }

    fn search(&self, live: &[Live]) -> Result<Copies> {
        let images = self.images.iter().zip(live).map(|(image, live)| (image.lock.file(), &live.image));
        let overlays = self.overlays.iter().zip(live).map(|(overlay, live)| (overlay.file(), &live.overlay));
        let places: Vec<_> = images.chain(overlays).collect();
        copies::search(self.prints, &places)
    }

    /// `search`: whether the search goes through the attached disk, since nobody else can read the files.
    fn prove(
        &self,
        specs: &[ImageSpec],
        search: bool,
        erasure: Erasure,
        observer: &mut dyn Observer,
    ) -> Result<Erasure> {
        let Some(way) = self.way else { return Ok(erasure) };
        let attachment = Attachment::open(specs, way)?;
        let probe = attachment.probe();
        let proof = probe.and_then(|probe| {
            let mut erasure =
                prove(attachment.disks(), &probe, self.plan, self.swap_files, erasure, observer)?;
            if search {
                let open = |disk: &AttachedDisk| Ok((disk.open()?, disk.all_data()?));
                let opened = attachment.disks().iter().map(open).collect::<Result<Vec<_>>>()?;
                let places: Vec<_> = opened.iter().map(|(file, data)| (file, data)).collect();
                erasure.copies = Some(copies::search(self.prints, &places)?);
            }
            Ok(erasure)
        });
        attachment.close_after(proof)
    }
}
