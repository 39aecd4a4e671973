//! The log alone: what of it stays, and what makes a walk refuse it.

use std::io::Read;
use std::os::unix::fs::FileExt;

use guestseal::erase::metadata::Act;

use crate::image::{Image, nothing_in, of, ready, tool};

const BLOCK: usize = 512;
const MAGIC: [u8; 4] = [0xfe, 0xed, 0xba, 0xbe];

/// All of the log.
fn log(image: &Image) -> Vec<u8> {
    let said = tool(
        "xfs_db",
        &[
            "-r",
            "-c",
            "sb 0",
            "-c",
            "p logstart logblocks blocksize agblocks",
            image.path().to_str().unwrap(),
        ],
    );
    let numbers: Vec<u64> =
        said.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    let [start, blocks, size, group] = numbers[..] else { panic!("{said}") };
    let bits = u64::from(group.next_power_of_two().trailing_zeros());
    let at = ((start >> bits) * group + (start & ((1 << bits) - 1))) * size;
    let mut bytes = vec![0; usize::try_from(blocks * size).unwrap()];
    image.open().read_exact_at(&mut bytes, at).unwrap();
    bytes
}

fn cycle(block: &[u8]) -> &[u8] {
    if block[..4] == MAGIC { &block[4..8] } else { &block[..4] }
}

/// Heads of records that have operations in them.
fn records(log: &[u8]) -> Vec<&[u8]> {
    log.chunks(BLOCK).filter(|block| block[..4] == MAGIC && block[40..44] != [0; 4]).collect()
}

#[test]
fn the_record_of_the_kernel_stays_as_it_is() {
    if !ready() {
        return;
    }
    for options in ["-l size=6m", "-l size=6m,su=32768"] {
        let image = Image::new(64, options);
        image.mounted("rw", |root| std::fs::create_dir(root.join("one")).unwrap());
        let before = log(&image);
        image.walk(Act::Zero);
        let after = log(&image);
        // Nothing was in the kernel's buffer yet that could have got into the padding: even the checksum stays.
        let [record] = records(&after)[..] else { panic!("{options}: {} records", records(&after).len()) };
        assert_ne!(record[32..36], [0; 4], "{options}: no checksum");
        assert!(records(&before).contains(&record), "{options}");
        // Each block is of the round that it was of.
        assert!(before.chunks(BLOCK).map(cycle).eq(after.chunks(BLOCK).map(cycle)), "{options}");
        image.is_sound();
    }
}

#[test]
fn the_log_goes_round_and_is_found_again_each_time() {
    if !ready() {
        return;
    }
    let image = Image::new(64, "-l size=6m");
    let mut rounds = 0;
    for turn in 0..10 {
        image.mounted("rw", |root| {
            for group in 0..10 {
                let names =
                    (0..150).map(|index| format!("GONE-turn-{turn}-{group}-{index}-{}", "x".repeat(200)));
                let paths: Vec<_> = names.map(|name| root.join(name)).collect();
                paths.iter().for_each(|path| std::fs::write(path, "").unwrap());
                rustix::fs::syncfs(std::fs::File::open(root).unwrap()).unwrap();
                paths.iter().for_each(|path| std::fs::remove_file(path).unwrap());
                rustix::fs::syncfs(std::fs::File::open(root).unwrap()).unwrap();
            }
        });
        assert!(of(&image.walk(Act::Zero), "log").nonzero > 0);
        nothing_in(&image.walk(Act::Count));
        image.is_sound();
        let bytes = log(&image);
        rounds = rounds.max(u32::from_be_bytes(cycle(&bytes).try_into().unwrap()));
    }
    assert!(rounds > 1, "the log never went round");
    image.zero_free_space();
    assert_eq!(image.traces(), Vec::<String>::new());
}

#[test]
fn a_log_that_is_not_empty_is_refused() {
    if !ready() {
        return;
    }
    let image = Image::new(64, "-l size=6m");
    let copy = Image::new(64, "-l size=6m");
    image.mounted("rw", |root| {
        std::fs::File::create(root.join("new")).unwrap().sync_all().unwrap();
        let mut bytes = Vec::new();
        image.open().read_to_end(&mut bytes).unwrap();
        copy.write(0, &bytes);
    });
    let before = log(&copy);
    let said = copy.try_walk(Act::Zero).unwrap_err().chain();
    assert!(said.contains("not as an unmount leaves it"), "{said}");
    assert!(log(&copy) == before, "nothing is written to a log that is not empty");
}
