//! Headers that lie: real images with some bytes changed. Each is refused by exit code and words, or handled, in seconds
//! and with little memory; the image stays as it was and no file of the host is opened.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use crate::bases::image;
use crate::common::{fingerprint, ready, tool};
use crate::host::Canary;
use crate::leftovers::nothing_of;
use crate::measured::guestseal;
use crate::stage::Stage;

/// What no run may take more of.
const MIB: u64 = 150;
const SECONDS: u64 = 100;

/// An image that is changed byte by byte.
pub(crate) struct Forgery {
    pub(crate) stage: Stage,
    pub(crate) canary: Canary,
    pub(crate) file: File,
}

impl Forgery {
    /// A guest on one ext4 filesystem or on a disk with a GPT, as an image of this format.
    pub(crate) fn new(kind: &str, format: &str, options: &[&str]) -> Self {
        let stage = Stage::new(&format!("guest.{format}"));
        image(kind, format, options, &stage.image);
        let file = File::options().read(true).write(true).open(&stage.image).unwrap();
        Self { stage, canary: Canary::new(), file }
    }

    /// An image of zeros.
    pub(crate) fn empty(mib: u64) -> Self {
        let stage = Stage::new("guest.raw");
        let file = File::options().read(true).write(true).create_new(true).open(&stage.image).unwrap();
        file.set_len(mib << 20).unwrap();
        Self { stage, canary: Canary::new(), file }
    }

    pub(crate) fn put(&self, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, at).unwrap();
    }

    pub(crate) fn be32(&self, at: u64, number: u32) {
        self.put(at, &number.to_be_bytes());
    }

    pub(crate) fn be64(&self, at: u64, number: u64) {
        self.put(at, &number.to_be_bytes());
    }

    pub(crate) fn le64(&self, at: u64, number: u64) {
        self.put(at, &number.to_le_bytes());
    }

    pub(crate) fn bytes(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    pub(crate) fn read_be64(&self, at: u64) -> u64 {
        u64::from_be_bytes(self.bytes(at, 8).try_into().unwrap())
    }

    /// Seals it: that ends with one of these codes, and with each of these words.
    #[track_caller]
    pub(crate) fn must_be_refused(self, what: &str, codes: &[i32], words: &[&str]) {
        self.refuses(&["seal"], what, codes, words);
    }

    /// The same for `inspect` too, where other files are named.
    #[track_caller]
    fn must_open_nothing(self, what: &str, codes: &[i32], words: &[&str]) {
        self.refuses(&["inspect", "seal"], what, codes, words);
    }

    #[track_caller]
    fn refuses(mut self, commands: &[&str], what: &str, codes: &[i32], words: &[&str]) {
        self.file.sync_all().unwrap();
        let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
        let before = fingerprint(&self.stage.image);
        self.canary.watch();
        for command in commands {
            // Here, where it could do harm: a host that may would put arrays into a machine.
            let here = [*command, "--isolate", "never"].map(Into::into);
            let run = guestseal(&here, &self.stage.image, SECONDS, scratch.path());
            assert!(codes.contains(&run.ran.code), "{what}: {command}: {run:#?}");
            run.ran.says(words);
            run.ran.says(&["error: ", "what to do: "]);
            assert!(run.mib <= MIB, "{what}: {command}: {} MiB", run.mib);
        }
        self.canary.is_untouched(what);
        assert_eq!(fingerprint(&self.stage.image), before, "{what}");
        nothing_of(self.stage.folder(), Duration::ZERO);
    }

    /// Seals it, which must go well.
    #[track_caller]
    pub(crate) fn must_be_sealed(mut self, what: &str) {
        let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
        self.canary.watch();
        for command in ["inspect", "seal", "verify"] {
            let run = guestseal(&[command.into()], &self.stage.image, SECONDS, scratch.path());
            assert_eq!(run.ran.code, 0, "{what}: {command}: {run:#?}");
        }
        self.canary.is_untouched(what);
        nothing_of(self.stage.folder(), Duration::ZERO);
    }

    /// The path of a file of the host.
    pub(crate) fn host(&self, name: &str) -> String {
        self.canary.path().join(name).to_str().unwrap().to_owned()
    }
}

/// A qcow2 with a backing file of this name.
fn backed(name: impl Fn(&Forgery) -> String) -> Forgery {
    let forged = qcow2();
    let name = name(&forged);
    forged.be64(8, 4096);
    forged.be32(16, u32::try_from(name.len()).unwrap());
    forged.put(4096, name.as_bytes());
    forged
}

fn qcow2() -> Forgery {
    Forgery::new("ext4", "qcow2", &[])
}

fn qcow2_with(change: impl Fn(&Forgery)) -> Forgery {
    let forged = qcow2();
    change(&forged);
    forged
}

#[test]
fn qcow2_that_names_other_files() {
    if !ready() {
        return;
    }
    let words = ["backing file", "--flatten"];
    backed(|_| "other.qcow2".into()).must_open_nothing("relative", &[6], &words);
    backed(|forged| forged.host("etc/shadow")).must_open_nothing("absolute", &[6], &words);
    backed(|forged| format!("json:{{\"driver\":\"raw\",\"file.filename\":\"{}\"}}", forged.host("secret")))
        .must_open_nothing("json", &[6], &words);
    backed(|_| "nbd://127.0.0.1:10809/x".into()).must_open_nothing("network", &[6], &words);
    backed(|forged| forged.host("fifo")).must_open_nothing("a FIFO", &[6], &words);
    backed(|forged| forged.stage.image.to_str().unwrap().to_owned()).must_open_nothing(
        "itself",
        &[6],
        &words,
    );
    let chain = qcow2();
    tool(
        "qemu-img",
        [
            "create",
            "-q",
            "-f",
            "qcow2",
            "-F",
            "raw",
            "-b",
            &chain.host("etc/shadow"),
            chain.stage.path("two").to_str().unwrap(),
            "1M",
        ],
    );
    let two = chain.stage.path("two").to_str().unwrap().to_owned();
    chain.be64(8, 4096);
    chain.be32(16, u32::try_from(two.len()).unwrap());
    chain.put(4096, two.as_bytes());
    chain.must_open_nothing("a chain of two", &[6], &words);
    qcow2_with(|forged| {
        forged.be64(72, 4);
        let name = forged.host("secret");
        // The extension that names a data file is where other extensions were.
        forged.be32(112, 0x4441_5441);
        forged.be32(116, u32::try_from(name.len()).unwrap());
        forged.put(120, name.as_bytes());
    })
    .must_open_nothing("a data file", &[6], &["external data file"]);
    let lies = backed(|forged| forged.host("secret"));
    lies.be32(16, 0xffff_ffff);
    lies.must_open_nothing("a name out of range", &[1], &["backing file's name is out of range"]);
}

#[test]
fn qcow2_with_features_that_are_refused() {
    if !ready() {
        return;
    }
    qcow2_with(|forged| forged.be32(32, 1)).must_be_refused("AES", &[6], &["encrypted"]);
    qcow2_with(|forged| forged.be32(32, 2)).must_be_refused("LUKS", &[6], &["encrypted"]);
    qcow2_with(|forged| forged.be64(72, 1)).must_be_refused(
        "dirty",
        &[6],
        &["not closed properly", "qemu-img check"],
    );
    qcow2_with(|forged| forged.be64(72, 2)).must_be_refused("corrupt", &[6], &["corrupt", "qemu-img check"]);
    qcow2_with(|forged| forged.be64(72, 1 << 40)).must_be_refused("unknown", &[6], &["features"]);
    qcow2_with(|forged| forged.be64(72, 8)).must_be_refused("a type of compression", &[1], &["qcow2"]);
    qcow2_with(|forged| forged.be32(60, 3)).must_be_refused("snapshots", &[6], &["3 internal snapshots"]);
    qcow2_with(|forged| forged.be32(4, 1)).must_be_refused("version 1", &[6], &["unknown version"]);
    qcow2_with(|forged| forged.be32(4, 4)).must_be_refused("version 4", &[6], &["unknown version"]);
}

#[test]
fn qcow2_with_numbers_that_lie() {
    if !ready() {
        return;
    }
    for bits in [0, 8, 22, 63, u32::MAX] {
        qcow2_with(|forged| forged.be32(20, bits)).must_be_refused(
            &format!("cluster bits {bits}"),
            &[1],
            &["cluster size"],
        );
    }
    qcow2_with(|forged| forged.be64(24, 0)).must_be_refused(
        "no length",
        &[6],
        &["neither a partition table"],
    );
    for length in [1 << 63, u64::MAX, 1 << 51, 1 << 40] {
        qcow2_with(|forged| forged.be64(24, length)).must_be_refused(
            &format!("length {length}"),
            &[6],
            &["too small for its disk"],
        );
    }
    qcow2_with(|forged| {
        forged.be64(24, 1 << 50);
        forged.be32(36, u32::MAX);
    })
    .must_be_refused("an L1 table of 32 GiB", &[6], &["larger than qemu takes"]);
    for length in [0, 4, 103, 1 << 20, u32::MAX] {
        qcow2_with(|forged| forged.be32(100, length)).must_be_refused(
            &format!("header of {length}"),
            &[1],
            &[],
        );
    }
    qcow2_with(|forged| forged.be32(116, u32::MAX)).must_be_refused("a long extension", &[1], &[]);
    qcow2_with(|forged| forged.be32(96, 7)).must_be_refused("wide counts", &[6], &["larger than qemu takes"]);
    qcow2_with(|forged| forged.be32(56, u32::MAX)).must_be_refused(
        "many counts",
        &[6],
        &["larger than qemu takes"],
    );
    qcow2_with(|forged| forged.be32(56, 0)).must_be_refused("no counts", &[6], &["counted nowhere"]);
}

#[test]
fn qcow2_with_tables_that_lie() {
    if !ready() {
        return;
    }
    const CLUSTER: u64 = 65536;
    qcow2_with(|forged| forged.be64(40, 1 << 50)).must_be_refused("L1 out of the file", &[1], &["cut off"]);
    qcow2_with(|forged| forged.be64(40, u64::MAX - 7)).must_be_refused(
        "L1 beyond all numbers",
        &[1],
        &["cut off"],
    );
    qcow2_with(|forged| forged.be64(40, 0)).must_be_refused("L1 in the header", &[6], &["on one another"]);
    qcow2_with(|forged| forged.be64(40, forged.read_be64(40) + 512)).must_be_refused(
        "L1 within a cluster",
        &[6],
        &["damaged"],
    );
    qcow2_with(|forged| forged.be64(48, 1 << 50)).must_be_refused(
        "counts out of the file",
        &[1],
        &["cut off"],
    );
    qcow2_with(|forged| forged.be64(48, forged.read_be64(40))).must_be_refused(
        "counts on the L1",
        &[6],
        &["on one another"],
    );
    let l1 = |forged: &Forgery| forged.read_be64(40);
    let l2 = |forged: &Forgery| forged.read_be64(l1(forged)) & 0x00ff_ffff_ffff_fe00;
    let data = |forged: &Forgery| {
        (0..8192).map(|index| l2(forged) + index * 8).find(|at| forged.read_be64(*at) != 0).unwrap()
    };
    qcow2_with(|forged| forged.be64(l1(forged), 1 << 63)).must_be_refused(
        "no L2 at all",
        &[6],
        &["neither a partition table"],
    );
    qcow2_with(|forged| forged.be64(l1(forged), 1 << 63 | 1 << 50)).must_be_refused(
        "L2 out of the file",
        &[1],
        &["cut off"],
    );
    qcow2_with(|forged| forged.be64(l1(forged), 1 << 63 | l1(forged))).must_be_refused(
        "L2 on the L1",
        &[6],
        &["on one another"],
    );
    qcow2_with(|forged| forged.be64(l1(forged), l2(forged) + 512)).must_be_refused(
        "L2 within a cluster",
        &[6],
        &["damaged"],
    );
    qcow2_with(|forged| forged.be64(data(forged), 1 << 63 | 1 << 50)).must_be_refused(
        "data out of the file",
        &[1],
        &["cut off"],
    );
    qcow2_with(|forged| forged.be64(data(forged), 1 << 63)).must_be_refused(
        "data at 0, which is none",
        &[1, 6],
        &[],
    );
    qcow2_with(|forged| forged.be64(data(forged), 1 << 63 | l1(forged))).must_be_refused(
        "data on the L1",
        &[6],
        &["on one another"],
    );
    qcow2_with(|forged| forged.be64(data(forged), 1 << 63 | l2(forged))).must_be_refused(
        "data on its L2",
        &[6],
        &["on one another"],
    );
    qcow2_with(|forged| {
        let first = forged.read_be64(data(forged));
        forged.be64(data(forged) + 8, first);
    })
    .must_be_refused("one cluster twice", &[6], &["on one another"]);
    qcow2_with(|forged| {
        let counts = forged.read_be64(forged.read_be64(48));
        let cluster = (forged.read_be64(data(forged)) & 0x00ff_ffff_ffff_fe00) / CLUSTER;
        forged.put(counts + cluster * 2, &[0, 0]);
    })
    .must_be_refused("data that counts as free", &[6], &["counts as free"]);
    // Bit 62 says compressed; then the offset is in bytes.
    qcow2_with(|forged| forged.be64(data(forged), 1 << 62 | 1 << 45)).must_be_refused(
        "compressed data out of the file",
        &[1],
        &["cut off"],
    );
    qcow2_with(|forged| forged.be64(data(forged), 1 << 62 | l1(forged))).must_be_refused(
        "compressed data on the L1",
        &[6],
        &["compressed"],
    );
    Forgery::new("ext4", "qcow2", &["-c"]).must_be_sealed("a compressed image");
    Forgery::new("ext4", "qcow2", &["-o", "compat=0.10"]).must_be_sealed("a qcow2 of version 2");
    Forgery::new("ext4", "qcow2", &["-o", "extended_l2=on,cluster_size=16k,refcount_bits=1"])
        .must_be_sealed("extended tables");
    Forgery::new("ext4", "qcow2", &["-o", "cluster_size=512,refcount_bits=64"])
        .must_be_sealed("small clusters");
    Forgery::new("ext4", "qcow2", &["-o", "cluster_size=2M,lazy_refcounts=on"])
        .must_be_sealed("large clusters");
}

/// Where a vmdk's description is, and a new one for it.
fn describe(forged: &Forgery, text: &str) {
    forged.put(512, &[0; 20 * 512]);
    forged.put(512, text.as_bytes());
}

#[test]
fn vmdk_that_names_other_files() {
    if !ready() {
        return;
    }
    let vmdk = || Forgery::new("ext4", "vmdk", &[]);
    let sparse = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\n";
    vmdk().must_be_sealed("a vmdk");
    let forged = vmdk();
    let flat = format!("RW 524288 FLAT \"{}\" 0\n", forged.host("secret"));
    // qemu takes the first createType, in a comment too, and without a capacity it opens what the description names.
    describe(&forged, &sparse.replace("CID=1", &format!("#createType=\"monolithicFlat\"\n{flat}CID=1")));
    forged.le64(12, 0);
    forged.must_open_nothing("no capacity and two types", &[6], &["vmdk", "other files"]);
    let forged = vmdk();
    describe(&forged, &sparse.replace("CID=1", &format!("#createType=\"monolithicFlat\"\n{flat}CID=1")));
    forged.must_open_nothing("two types", &[6], &["createType"]);
    let forged = vmdk();
    describe(&forged, &sparse.replace("monolithicSparse", "monolithicFlat"));
    forged.must_open_nothing("flat", &[6], &["monolithicFlat"]);
    let forged = vmdk();
    let parent = forged.host("etc/shadow");
    describe(&forged, &sparse.replace("ffffffff", &format!("00000001\nparentFileNameHint=\"{parent}\"")));
    forged.must_open_nothing("a parent", &[6], &["parent"]);
    let forged = vmdk();
    forged.le64(28, u64::MAX);
    forged.must_open_nothing("a description out of the file", &[1, 6], &["vmdk"]);
    for (at, number) in
        [(12, u64::MAX), (12, 1 << 50), (20, 0), (20, u64::MAX), (48, u64::MAX - 1), (56, 1 << 50)]
    {
        let forged = vmdk();
        forged.le64(at, number);
        forged.must_open_nothing(&format!("{number} at {at}"), &[1, 6, 7], &[]);
    }
    let forged = Forgery::empty(1);
    let flat = format!("RW 524288 FLAT \"{}\" 0\n", forged.host("etc/shadow"));
    forged.put(0, format!("{sparse}{flat}").as_bytes());
    forged.must_open_nothing("a description alone", &[6], &["only describes other files"]);
}

#[test]
fn vdi_and_vhdx_that_lie() {
    if !ready() {
        return;
    }
    let vdi = || Forgery::new("ext4", "vdi", &[]);
    vdi().must_be_sealed("a vdi");
    // Offsets of VDI_HEADER: kind, blocks' table, data, size of the disk, of a block, blocks, blocks in use, ids of parent.
    let words: [(u64, &[u8]); 7] = [
        (0x154, &[0xff; 4]),
        (0x158, &[0xff; 4]),
        (0x170, &[0xff; 8]),
        (0x178, &[0; 4]),
        (0x180, &[0xff; 4]),
        (0x1a8, &[0x11; 16]),
        (0x1b8, &[0x22; 16]),
    ];
    for (at, bytes) in words {
        let forged = vdi();
        forged.put(at, bytes);
        forged.must_be_refused(&format!("vdi at {at:#x}"), &[1, 6], &[]);
    }
    let vhdx = || Forgery::new("ext4", "vhdx", &[]);
    vhdx().must_be_sealed("a vhdx");
    // The head of the table of regions, both headers, the region of metadata.
    for at in [64 << 10, 192 << 10, 2 << 20] {
        let forged = vhdx();
        forged.put(at, &[0xff; 4096]);
        if at == 64 << 10 {
            forged.put(128 << 10, &[0xff; 4096]);
        } else if at == 192 << 10 {
            forged.put(256 << 10, &[0xff; 4096]);
        }
        forged.must_be_refused(&format!("vhdx at {at}"), &[1, 6], &[]);
    }
}

/// A raw disk whose guest wrote the head of a qcow2 into it stays raw only when the user says so; never does it get a
/// backing file.
#[test]
fn raw_disks_that_pretend() {
    if !ready() {
        return;
    }
    let forged = Forgery::new("ext4", "raw", &[]);
    let name = forged.host("etc/shadow");
    let overlay = forged.stage.path("overlay");
    tool(
        "qemu-img",
        ["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", &name, overlay.to_str().unwrap(), "64M"],
    );
    let head = std::fs::read(&overlay).unwrap();
    forged.put(0, &head[..1024]);
    std::fs::remove_file(Path::new(&overlay)).unwrap();
    forged.must_open_nothing("a raw disk with the head of a qcow2", &[6], &["backing file"]);
}
