//! Partition tables as sfdisk writes them, and filesystems inside them.

use std::io::{Read, Seek};

use guestseal::disk::{Content, DiskLayout, PartitionTable, TableKind, read_disk};
use serde_json::Value;

use crate::tools::{Image, has, run};

const MIB: u64 = 1 << 20;

fn layout(image: &Image) -> DiskLayout {
    read_disk(&mut image.open(), image.bytes).unwrap()
}

/// Writes a table by a script of sfdisk(8). For sectors of 4096 that takes fdisk, which reads the same scripts: sfdisk
/// learnt --sector-size only lately.
fn partition(image: Image, sector_size: u64, script: &str) -> Image {
    if sector_size == 512 {
        return image.make("sfdisk", &["-q", "{}"], script);
    }
    let file = image.tree().join("script");
    std::fs::write(&file, script).unwrap();
    let commands = format!("I\n{}\nw\n", file.display());
    image.make("fdisk", &["-w", "never", "-b", &sector_size.to_string(), "{}"], &commands)
}

/// What `sfdisk --json` says, or what fdisk dumps, brought into the same form.
fn expected(image: &Image, sector_size: u64) -> Value {
    let path = image.path().display().to_string();
    if sector_size == 512 {
        let json: Value = serde_json::from_str(&run("sfdisk", &["--json", &path], "")).unwrap();
        return json["partitiontable"].clone();
    }
    let file = image.tree().join("dump");
    let commands = format!("O\n{}\nq\n", file.display());
    run("fdisk", &["-b", &sector_size.to_string(), &path], &commands);
    from_dump(&std::fs::read_to_string(file).unwrap())
}

fn from_dump(dump: &str) -> Value {
    let mut table = serde_json::Map::new();
    let mut partitions = Vec::new();
    for line in dump.lines() {
        match line.split_once(": ") {
            Some((node, fields)) if fields.contains("start=") => {
                let mut partition = serde_json::Map::from_iter([("node".to_owned(), node.trim().into())]);
                for field in fields.split(", ") {
                    let (key, value) = field.split_once('=').unwrap_or((field, "true"));
                    let value =
                        value.trim().trim_matches('"').replace("\\xc3\\xb6", "ö").replace("\\xc3\\x9f", "ß");
                    let parsed = value.parse::<u64>().map_or_else(|_| value.clone().into(), Value::from);
                    let parsed = if key == "type" { value.clone().into() } else { parsed };
                    let parsed = if value == "true" { true.into() } else { parsed };
                    partition.insert(key.to_owned(), parsed);
                }
                partitions.push(Value::Object(partition));
            }
            Some((key, value)) => {
                table.insert(key.trim_start_matches("label-").to_owned(), value.into());
            }
            None => {}
        }
    }
    table.insert("partitions".to_owned(), partitions.into());
    table.into()
}

/// Compares every field that both programs have.
fn compare(image: &Image, sector: u64) -> PartitionTable {
    let table = layout(image).table.expect("no table");
    let expected = expected(image, sector);
    let text = |value: &Value| value.as_str().map(str::to_lowercase);
    let label = if table.kind == TableKind::Gpt { "gpt" } else { "dos" };
    assert_eq!(expected["label"], label);
    assert_eq!(u64::from(table.sector_size), sector);
    assert_eq!(
        Some(table.id.clone()),
        text(&expected["id"]).map(|id| id.trim_start_matches("0x").to_owned())
    );
    let partitions = expected["partitions"].as_array().unwrap();
    assert_eq!(table.partitions.len(), partitions.len(), "{table:?}\n{partitions:?}");
    for (found, wanted) in table.partitions.iter().zip(partitions) {
        let node = wanted["node"].as_str().unwrap();
        assert!(node.ends_with(&format!("image{}", found.number)), "{node}: {found:?}");
        assert_eq!(Some(found.start), wanted["start"].as_u64().map(|start| start * sector));
        assert_eq!(Some(found.length), wanted["size"].as_u64().map(|size| size * sector));
        assert_eq!(found.type_id.trim_start_matches("0x"), text(&wanted["type"]).unwrap());
        assert_eq!(found.part_label.as_deref(), wanted["name"].as_str());
        let attributes = wanted["attrs"].as_str().unwrap_or_default();
        let bootable = wanted["bootable"] == true || attributes.contains("LegacyBIOSBootable");
        assert_eq!(found.bootable, bootable, "{wanted}");
        if table.kind == TableKind::Gpt {
            assert_eq!(found.part_uuid, text(&wanted["uuid"]));
        }
    }
    assert_eq!(table.warnings, [""; 0]);
    table
}

const GPT: &str = "label: gpt
size=1MiB, type=21686148-6449-6E6F-744E-656564454649, name=bios
size=20MiB, type=U, name=\"EFI System\", attrs=LegacyBIOSBootable
size=30MiB, type=L, name=Größe, uuid=11111111-2222-3333-4444-ABCDEF012345
";

#[test]
fn gpt_with_sectors_of_512_and_4096() {
    if !has(&["sfdisk", "fdisk"]) {
        return;
    }
    for sector_size in [512, 4096] {
        let image = partition(Image::new(64 * MIB), sector_size, GPT);
        let table = compare(&image, sector_size);
        assert_eq!(table.partitions.len(), 3);
        assert_eq!(table.partitions[2].part_label.as_deref(), Some("Größe"));
    }
}

#[test]
fn gpt_with_gaps_in_its_numbers() {
    if !has(&["sfdisk", "fdisk"]) {
        return;
    }
    let script = "label: gpt\n15 : start=40000, size=100, type=U\n1 : start=60000, size=200, type=L\n";
    let image = partition(Image::new(64 * MIB), 512, script);
    let numbers: Vec<_> = compare(&image, 512).partitions.iter().map(|partition| partition.number).collect();
    assert_eq!(numbers, [1, 15]);
}

const LOGICAL: &str = "label: dos
label-id: 0x1a2b3c4d
size=10MiB, type=83, bootable
size=50MiB, type=5
size=4MiB, type=82
size=5MiB, type=83
size=6MiB, type=83
size=7MiB, type=83
size=8MiB, type=c
";

#[test]
fn mbr_with_logical_partitions() {
    if !has(&["sfdisk", "fdisk", "blkid"]) {
        return;
    }
    let image = partition(Image::new(100 * MIB), 512, LOGICAL);
    let table = compare(&image, 512);
    let numbers: Vec<_> = table.partitions.iter().map(|partition| partition.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
    assert!(table.partitions[1].is_extended());
    assert_eq!(table.partitions[4].part_uuid.as_deref(), Some("1a2b3c4d-05"));
    let image = layout(&image);
    assert_eq!(image.volumes.len(), 6, "the extended partition is no volume");
}

/// The chain of a table that was edited: the records are no longer in the order of the disk.
#[test]
fn mbr_chain_out_of_order() {
    if !has(&["sfdisk", "fdisk"]) {
        return;
    }
    let image = partition(Image::new(100 * MIB), 512, LOGICAL);
    let path = image.path().display().to_string();
    run("sfdisk", &["-q", "--delete", &path, "6"], "");
    run("sfdisk", &["-q", "--append", &path], "size=3MiB, type=83\n");
    compare(&image, 512);
}

/// The sector size of an MBR is in no field: the filesystems tell it.
#[test]
fn mbr_with_sectors_of_4096() {
    if !has(&["sfdisk", "fdisk", "mke2fs"]) {
        return;
    }
    let root = Image::new(20 * MIB).make("mke2fs", &["-qFt", "ext4", "-L", "root", "{}"], "");
    let script = "label: dos\nsize=20MiB, type=83\nsize=60MiB, type=5\n5 : size=25MiB, type=83\n6 : size=20MiB, type=83\n";
    let image = partition(Image::new(100 * MIB), 4096, script);
    let listed = expected(&image, 4096)["partitions"].as_array().unwrap().clone();
    let starts: Vec<_> = listed.iter().map(|partition| partition["start"].as_u64().unwrap() * 4096).collect();
    image.embed(starts[2], &root.path());
    compare(&image, 4096);
    image.embed(starts[0], &root.path());
    let found = layout(&image);
    let volumes: Vec<_> = found
        .volumes
        .iter()
        .map(|volume| (volume.offset, volume.superblock.as_ref().map(|known| known.content)))
        .collect();
    let ext4 = Some(Content::Ext4);
    assert_eq!(volumes, [(starts[0], ext4), (starts[2], ext4), (starts[3], None)]);
}

#[test]
fn filesystems_in_partitions() {
    if !has(&["sfdisk", "fdisk", "mke2fs", "mkfs.vfat", "mkfs.btrfs"]) {
        return;
    }
    let script = "label: gpt\nsize=20MiB, type=U\nsize=30MiB\nsize=130MiB\nsize=10MiB, type=S\n";
    let image = partition(Image::new(256 * MIB), 512, script);
    let starts: Vec<_> = compare(&image, 512).partitions.iter().map(|partition| partition.start).collect();
    let parts = [
        Image::new(20 * MIB).make("mkfs.vfat", &["-n", "EFI", "{}"], ""),
        Image::new(30 * MIB).make("mke2fs", &["-qFt", "ext4", "{}"], ""),
        Image::new(130 * MIB).make("mkfs.btrfs", &["-qf", "{}"], ""),
    ];
    for (start, part) in starts.iter().zip(&parts) {
        image.embed(*start, &part.path());
    }
    let found = layout(&image);
    let contents: Vec<_> =
        found.volumes.iter().map(|volume| volume.superblock.as_ref().map(|known| known.content)).collect();
    assert_eq!(contents, [Some(Content::Vfat), Some(Content::Ext4), Some(Content::Btrfs), None]);
    assert_eq!(found.warnings, [""; 0]);
}

/// What was on the disk before the table: a btrfs superblock stands in the gap before the first partition.
#[test]
fn remains_of_a_whole_disk_filesystem() {
    if !has(&["sfdisk", "fdisk", "mkfs.btrfs", "mke2fs"]) {
        return;
    }
    let root = Image::new(20 * MIB).make("mke2fs", &["-qFt", "ext4", "{}"], "");
    for (script, start) in [(GPT, 2 * MIB), ("label: dos\nsize=30MiB\n", MIB)] {
        let image = Image::new(128 * MIB).make("mkfs.btrfs", &["-qf", "{}"], "");
        let image = image.make("sfdisk", &["-q", "--wipe", "never", "{}"], script);
        image.embed(start, &root.path());
        let found = layout(&image);
        assert!(found.table.is_some());
        assert!(found.warnings[0].contains("as a whole has a superblock of btrfs"), "{:?}", found.warnings);
        assert!(found.volumes.iter().any(|volume| volume.superblock.is_some()));
    }
}

#[test]
fn a_filesystem_on_the_whole_disk() {
    for (tool, args, content) in [
        ("mkfs.vfat", &["-F", "32", "--mbr=y", "{}"][..], Content::Vfat),
        ("mkfs.vfat", &["-F", "16", "{}"], Content::Vfat),
        ("mke2fs", &["-qFt", "ext4", "{}"], Content::Ext4),
        ("mkfs.xfs", &["-qf", "{}"], Content::Xfs),
        ("mkfs.btrfs", &["-qf", "{}"], Content::Btrfs),
    ] {
        if !has(&[tool]) {
            return;
        }
        let image = Image::new(512 * MIB).make(tool, args, "");
        if content == Content::Btrfs || content == Content::Ext4 {
            // A boot loader leaves a boot sector with a signature and an empty table.
            image.write(510, &[0x55, 0xaa]);
        }
        let found = layout(&image);
        assert!(found.table.is_none(), "{tool}: {:?}", found.table);
        let [volume] = &found.volumes[..] else { panic!("{found:?}") };
        assert_eq!((volume.offset, volume.length, volume.partition.is_none()), (0, image.bytes, true));
        assert_eq!(volume.superblock.as_ref().unwrap().content, content);
    }
}

#[test]
fn damaged_gpts() {
    if !has(&["sfdisk", "fdisk"]) {
        return;
    }
    for sector in [512, 4096] {
        let image = partition(Image::new(64 * MIB), sector, GPT);
        let sound = compare(&image, sector);
        // One bit in the disk's GUID of the primary header.
        image.write(sector + 56, &[0xff; 4]);
        let found = layout(&image).table.unwrap();
        assert_eq!(found.partitions, sound.partitions);
        assert!(found.warnings[0].contains("primary GPT is damaged"), "{:?}", found.warnings);
        // The primary header gone altogether.
        image.write(sector, &[0; 512]);
        assert_eq!(layout(&image).table.unwrap().partitions, sound.partitions);
        // Entries of the backup as well.
        let mut backup = vec![0; 16];
        let mut file = image.open();
        file.seek(std::io::SeekFrom::Start(image.bytes - sector - 16384)).unwrap();
        file.read_exact(&mut backup).unwrap();
        backup[3] ^= 1;
        image.write(image.bytes - sector - 16384, &backup);
        let error = read_disk(&mut image.open(), image.bytes).unwrap_err();
        assert_eq!(error.kind(), guestseal::ErrorKind::Unsupported);
        assert!(error.to_string().contains("wrong checksum of the entries"), "{error}");
    }
}

#[test]
fn resized_disks() {
    if !has(&["sfdisk", "fdisk"]) {
        return;
    }
    let image = partition(Image::new(64 * MIB), 512, GPT);
    let file = std::fs::File::options().write(true).open(image.path()).unwrap();
    file.set_len(80 * MIB).unwrap();
    let grown = read_disk(&mut image.open(), 80 * MIB).unwrap().table.unwrap();
    assert_eq!(grown.partitions.len(), 3);
    assert!(grown.warnings[0].contains("resized"), "{:?}", grown.warnings);
    file.set_len(60 * MIB).unwrap();
    let error = read_disk(&mut image.open(), 60 * MIB).unwrap_err();
    assert!(error.to_string().contains("made for a larger disk"), "{error}");
    // An MBR whose image was cut.
    let image = partition(Image::new(100 * MIB), 512, LOGICAL);
    let error = read_disk(&mut image.open(), 40 * MIB).unwrap_err();
    assert!(error.to_string().contains("but the disk has only"), "{error}");
}
