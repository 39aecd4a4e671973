//! Less than everything: what the policies and options leave, and that the record says so.

use crate::cells::{Sealed, Way};
use crate::common::guestseal;
use crate::disk::Planted;
use crate::scan::Counts;
use crate::variants::{CONTENT, EXT4, planted, possible};

/// Kinds that are bytes of files or of places that are free as a whole, not of metadata.
#[test]
fn policies() {
    if possible() {
        let planted = planted(EXT4, &[]);
        nothing_is_erased(&planted);
        only_free_space_is_erased(&planted);
        gaps_are_kept(&planted);
    }
}

fn nothing_is_erased(planted: &Planted) {
    let sealed = Sealed::make(planted, "qcow2", Way::Overlay, "--erase none");
    let (disk, file) = sealed.left(&[]);
    for kind in CONTENT.iter().chain(&["name", "slowlink", "xattr", "slackname"]) {
        assert!(disk.contains_key(*kind) && file.contains_key(*kind), "{kind} is gone: {disk:?} {file:?}");
    }
    let erasure = sealed.erasure();
    assert_eq!(erasure["policy"], "none");
    assert!(erasure["notes"][0].as_str().unwrap().contains("can be read back"), "{erasure:#}");
    // It holds what its record says, and that is not enough for those who ask.
    guestseal("verify", &[&sealed.image]).expect(0);
    guestseal("verify --residue", &[&sealed.image]).expect(5);
}

fn only_free_space_is_erased(planted: &Planted) {
    let sealed = Sealed::make(planted, "qcow2", Way::Overlay, "--erase free");
    assert_eq!(sealed.erasure()["policy"], "free");
    let (disk, file) = sealed.left(&[]);
    let content =
        |counts: Counts| counts.into_iter().filter(|(kind, _)| CONTENT.contains(&kind.as_str())).collect();
    assert_eq!((content(disk.clone()), content(file)), (Counts::new(), Counts::new()));
    assert!(disk.contains_key("slackname"), "this test shows no difference between the policies: {disk:?}");
    guestseal("verify", &[&sealed.image]).expect(0);
}

fn gaps_are_kept(planted: &Planted) {
    let sealed = Sealed::make(planted, "raw", Way::InPlace, "--keep-gaps");
    let (disk, _) = sealed.left(&["boot"]);
    let kinds = |kinds: &[&str]| {
        kinds.iter().map(|kind| ((*kind).to_owned(), planted.counts[*kind])).collect::<Counts>()
    };
    assert_eq!(disk, kinds(&["gap", "tail"]));
    assert_eq!(sealed.erasure()["keep-gaps"], true);
    guestseal("verify", &[&sealed.image]).expect(0);
    guestseal("verify --residue", &[&sealed.image]).expect(5);
}
