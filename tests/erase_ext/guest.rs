//! A real guest: what was deleted in it is gone, its files are as they were, and how long the walk takes.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use guestseal::erase::metadata::Act;
use nix::sys::resource::{UsageWho, getrusage};
use sha2::{Digest, Sha256};

use crate::clean::{walk, zero_free};
use crate::common::require;
use crate::image::{Image, possible, run};

/// The digests of files, and the targets of links.
fn digests(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = walkdir::WalkDir::new(root).into_iter().map(Result::unwrap);
    let content = |path: &Path, kind: std::fs::FileType| match kind {
        kind if kind.is_file() => Sha256::digest(std::fs::read(path).unwrap()).to_vec(),
        kind if kind.is_symlink() => std::fs::read_link(path).unwrap().into_os_string().into_encoded_bytes(),
        _ => Vec::new(),
    };
    entries
        .map(|entry| {
            let path = entry.path().strip_prefix(root).unwrap().to_owned();
            (path, content(entry.path(), entry.file_type()))
        })
        .collect()
}

/// What this thread had of the processor so far, in milliseconds.
fn processor() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let all = usage.user_time() + usage.system_time();
    all.tv_sec() * 1000 + all.tv_usec() / 1000
}

/// Says so past the capture of the test harness.
fn say(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

#[test]
fn a_debian_guest_keeps_its_files_and_nothing_else() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/make-guest");
    if !possible() || !require(crate::common::has_tool("qemu-img"), "qemu-img") {
        return;
    }
    let guest = run(script.to_str().unwrap(), &["debian12"]);
    let image = Image::copy(guest.trim());
    let mounted = image.mount("rw");
    for folder in ["etc/GONE-folder", "usr/share/doc/GONE-folder"] {
        std::fs::create_dir(mounted.path().join(folder)).unwrap();
        for index in 0..300 {
            let path = mounted.path().join(folder).join(format!("GONE-{index}"));
            std::fs::write(path, format!("GONE-content-{index}")).unwrap();
        }
    }
    nix::unistd::sync();
    std::fs::remove_dir_all(mounted.path().join("etc/GONE-folder")).unwrap();
    std::fs::remove_dir_all(mounted.path().join("usr/share/doc/GONE-folder")).unwrap();
    let before = digests(mounted.path());
    drop(mounted);

    assert!(image.has("GONE-content") && image.has("CANARY-deleted"));
    for act in [Act::Count, Act::Zero, Act::Count] {
        let (start, used) = (Instant::now(), processor());
        let found = walk(&image, act);
        say(&format!("{act:?}: {} ms, {} of the processor", start.elapsed().as_millis(), processor() - used));
        for place in &found {
            say(&format!("  {}: {} bytes, {} not zero", place.kind, place.bytes, place.nonzero));
        }
    }
    assert!(walk(&image, Act::Count).iter().all(|place| place.nonzero == 0));
    zero_free(&image);
    let found = image.search("GONE-(content|folder|[0-9])|CANARY-deleted");
    assert!(found.is_empty(), "{found:?}");
    image.check();
    let mounted = image.mount("rw");
    assert!(digests(mounted.path()) == before, "files of the guest changed");
}
