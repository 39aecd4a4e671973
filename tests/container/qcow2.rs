//! Every place in which a qcow2 file keeps what its disk does not hold.

use crate::file::{Image, MARKER, ready};

/// Images of all kinds: options, and how long a cluster is.
const KINDS: [(&str, u64); 7] = [
    ("", 64 << 10),
    ("compat=0.10", 64 << 10),
    ("cluster_size=512", 512),
    ("cluster_size=4096,refcount_bits=2", 4096),
    ("cluster_size=2M", 2 << 20),
    ("cluster_size=2M,refcount_bits=64,lazy_refcounts=on", 2 << 20),
    ("extended_l2=on,cluster_size=128k", 128 << 10),
];

/// Does the same to images of all kinds.
fn each(work: impl Fn(&Image, u64)) {
    if !ready() {
        return;
    }
    for (options, cluster) in KINDS {
        let image = Image::new("qcow2", options, "24M");
        image.io(&["write {live} 0 1M", "write {marker} 4M 2M", "write {live} 20M 1M"]);
        work(&image, cluster);
        let done = image.comes_clean();
        assert_eq!(done.unexamined, None, "{options}");
        let (good, said) = image.check();
        assert!(good || said.contains("leaked"), "{options}: {said}");
    }
}

#[test]
fn freed_clusters() {
    each(|image, _| {
        image.io(&["discard 4M 2M"]);
    });
}

#[test]
fn clusters_that_read_as_zeros() {
    if !ready() {
        return;
    }
    // Without -u they keep their place in the file. Version 2 knows no such clusters.
    for (options, _) in KINDS.iter().filter(|(options, _)| !options.contains("0.10")) {
        let image = Image::new("qcow2", options, "24M");
        image.io(&["write {live} 0 1M", "write {marker} 4M 2M", "write -z 4M 2M"]);
        image.comes_clean();
        assert!(image.check().0, "{options}");
    }
}

#[test]
fn deleted_snapshots() {
    each(|image, _| {
        image.qemu_img(&["snapshot", "-c", "old"]).io(&["write {live} 4M 2M"]);
        // Left to itself, qemu-img gives back what it frees.
        let path = image.path().display().to_string();
        let options =
            format!("driver=qcow2,discard=ignore,file.driver=file,file.discard=ignore,file.filename={path}");
        crate::tools::run("qemu-img", &["snapshot", "--image-opts", "-d", "old", &options], "");
    });
}

/// An entry that is gone while its cluster still counts as used.
#[test]
fn lost_clusters() {
    each(|image, cluster| {
        let entry = if image.be64(72) & 16 != 0 { 16 } else { 8 };
        let covered = cluster / entry * cluster;
        let (l1, place) = (image.be64(40), 4 << 20);
        let l2 = image.be64(l1 + place / covered * 8) & 0x00ff_ffff_ffff_fe00;
        let at = l2 + place % covered / cluster * entry;
        assert_ne!(image.be64(at), 0);
        // The table of the first 4 MiB may hold fewer than the rest of them.
        image.io(&[&format!("discard {} {}", place + cluster, (2 << 20) - cluster)]);
        image.put(at, &[0; 16][..usize::try_from(entry).unwrap()]);
        assert!(!image.check().0);
    });
}

#[test]
fn what_a_larger_disk_left() {
    each(|image, _| {
        image.put(24, &(4u64 << 20).to_be_bytes());
    });
    each(|image, _| {
        // The last cluster, of whatever size, is in part behind the end.
        image.put(24, &((4u64 << 20) + 1024).to_be_bytes()).io(&["write {live} 4M 1k"]);
    });
}

#[test]
fn the_rest_of_the_header_and_the_l1_table_and_the_tail() {
    if !ready() {
        return;
    }
    for (options, cluster) in KINDS {
        let image = Image::new("qcow2", options, "24M");
        image.io(&["write {live} 0 1M"]);
        let (l1, end) = (image.be64(40), image.open().metadata().unwrap().len());
        let mut planted = 1;
        if cluster > 1024 {
            image.put(cluster - 16, MARKER).put(l1 + 24 / 2 * 1024 * 2 * 8 / 512, MARKER);
            planted += 2;
        }
        image.put(end.next_multiple_of(cluster) + 100, MARKER);
        assert_eq!(image.markers(), planted, "{options}");
        image.comes_clean();
        assert!(image.check().0, "{options}");
    }
}

#[test]
fn parts_of_clusters() {
    if !ready() {
        return;
    }
    for options in ["extended_l2=on,cluster_size=16k", "extended_l2=on,cluster_size=2M"] {
        let image = Image::new("qcow2", options, "24M");
        image.io(&["write {live} 0 4M", "write {marker} 1M 64k", "write {marker} 3M 4k"]);
        image.io(&["write -z 1M 64k", "write -z 3M 4k"]);
        image.comes_clean();
        assert!(image.check().0, "{options}");
    }
}

#[test]
fn compressed_data_and_what_is_around_it() {
    if !ready() {
        return;
    }
    for options in ["", "cluster_size=2M", "compression_type=zstd", "extended_l2=on,cluster_size=128k"] {
        let image = Image::new("qcow2", options, "24M");
        let cluster = if options.contains("2M") { 2 << 20 } else { 128 << 10 };
        for index in 0..6 {
            image.io(&[&format!("write -c {{live}} {} {cluster}", index * cluster)]);
        }
        // A piece in the midst is written anew, uncompressed, and something stands behind them.
        image.io(&[&format!("write {{live}} {cluster} {cluster}")]);
        let host = compressed_at(&image, cluster);
        image.put(host + 8192, &MARKER.repeat(32));
        let content = image.content();
        let done = image.comes_clean();
        assert!(done.unexamined.unwrap().contains("511 bytes"));
        assert_eq!(image.content(), content);
        assert!(image.check().0, "{options}");
    }
}

/// The beginning of the cluster of the file with the compressed data of the first cluster of the disk.
fn compressed_at(image: &Image, cluster: u64) -> u64 {
    let l2 = image.be64(image.be64(40)) & 0x00ff_ffff_ffff_fe00;
    let mut header = [0; 4];
    std::os::unix::fs::FileExt::read_exact_at(&image.open(), &mut header, 20).unwrap();
    let bits = u32::from_be_bytes(header);
    assert!(cluster >= 1 << bits);
    let entry = image.be64(l2);
    assert!(entry >> 62 & 1 == 1, "not compressed");
    let at = entry & ((1 << (62 - (bits - 8))) - 1);
    at >> bits << bits
}

#[test]
fn backing_names_and_extensions_stay() {
    if !ready() {
        return;
    }
    let image = Image::new("qcow2", "", "24M");
    let base = image.beside("base");
    std::fs::rename(image.path(), &base).unwrap();
    let name = base.to_str().unwrap();
    for options in ["compat=1.1", "compat=0.10"] {
        let _ = std::fs::remove_file(image.path());
        image.qemu_img(&["create", "-q", "-f", "qcow2", "-o", options, "-F", "qcow2", "-b", name]);
        image.io(&["write {live} 2M 1M"]);
        if options == "compat=1.1" {
            image.io(&["write {marker} 0 1M", "discard 0 1M"]);
        }
        image.put(4096, MARKER);
        image.comes_clean();
        assert!(image.check().0);
        let info = crate::tools::run("qemu-img", &["info", image.path().to_str().unwrap()], "");
        assert!(info.contains(name) && info.contains("backing file format: qcow2"), "{info}");
    }
}

#[test]
fn an_image_that_was_never_used_costs_nothing() {
    if !ready() {
        return;
    }
    let image = Image::new("qcow2", "", "1T");
    let before = std::fs::read(image.path()).unwrap();
    let done = image.clean();
    assert_eq!((done.bytes_zeroed, done.bytes_nonzero, done.unexamined), (0, 0, None));
    assert_eq!(std::fs::read(image.path()).unwrap(), before);
}

/// There nothing has holes, and nothing can be given back.
#[test]
fn an_image_on_a_block_device() {
    if !ready() || !nix::unistd::geteuid().is_root() || !crate::tools::has(&["losetup"]) {
        return;
    }
    let image = Image::new("qcow2", "", "24M");
    image.io(&["write {live} 0 1M", "write {marker} 4M 2M", "discard 4M 2M"]);
    let content = image.content();
    let end = image.open().metadata().unwrap().len().next_multiple_of(1 << 20);
    image.put(end - MARKER.len() as u64, MARKER);
    let path = image.path();
    let device = crate::tools::run("losetup", &["-f", "--show", path.to_str().unwrap()], "");
    let open = std::fs::File::options().read(true).write(true).open(device.trim()).unwrap();
    let done = guestseal::image::container::clean(&open, guestseal::image::format::Format::Qcow2);
    let flushed = open.sync_all();
    drop(open);
    crate::tools::run("losetup", &["-d", device.trim()], "");
    flushed.unwrap();
    let done = done.unwrap();
    assert_eq!((done.bytes_nonzero, done.method.as_str()), (0, "overwritten with zeros"));
    assert!(done.bytes_zeroed >= 2 << 20, "{done:?}");
    assert_eq!((image.markers(), image.content()), (0, content));
}
