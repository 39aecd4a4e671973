//! Machines that do what they shall.

use std::fs;

use guestseal::vm::initramfs::Contents;
use guestseal::vm::trial::Ask;

use crate::common::{has_tool, is_root, require};
use crate::rig::{PATIENCE, ask, disk, kernel, spec, start, status};

#[test]
fn a_machine_has_its_disks_in_order_writes_to_them_and_powers_off() {
    let Some(kernel) = kernel() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (first, first_spec) = disk(folder.path(), "first", 1 << 20, b"the first disk..");
    let (second, _) = disk(folder.path(), "second", 3 << 20, b"the second disk.");
    let mut machine = start(&kernel, &[first_spec, spec(&second, true)], Contents::Plain).unwrap();

    let long = "x".repeat(3 << 20);
    assert_eq!(ask(&mut machine, &Ask::Echo(long.clone())), long);
    let hexadecimal = |text: &[u8]| text.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(ask(&mut machine, &Ask::Look(0)), hexadecimal(b"the first disk.."));
    assert_eq!(ask(&mut machine, &Ask::Look(1)), hexadecimal(b"the second disk."));
    ask(&mut machine, &Ask::Fill(0, 7));
    machine.say(&Ask::Fill(1, 7), PATIENCE).unwrap();
    let refused: Result<String, String> = machine.hear(PATIENCE).unwrap();
    assert!(refused.unwrap_err().contains("cannot write to the disk"));

    // The kernel asks guestseal for what a filesystem needs; a machine that was kept has it already.
    let has = |machine: &mut _, name| ask(machine, &Ask::Read("/proc/modules".into())).contains(name);
    assert_eq!(has(&mut machine, "ext4"), machine.is_thawed());
    ask(&mut machine, &Ask::Load(vec!["fs-ext4".into()]));
    assert!(ask(&mut machine, &Ask::Read("/proc/filesystems".into())).contains("ext4"));
    assert_eq!(
        ask(&mut machine, &Ask::Read("/proc/sys/kernel/modprobe".into())).trim(),
        guestseal::vm::init::MODPROBE
    );

    let pid = machine.pid();
    assert_eq!(status(pid, "Seccomp"), "2");
    assert_eq!(status(pid, "CapEff"), "0000000000000000");
    if is_root() {
        let user: u32 = status(pid, "Uid").split(' ').next().unwrap().parse().unwrap();
        assert!((61_184..=65_534).contains(&user), "{user}");
    }
    machine.close().unwrap();
    assert_eq!(fs::read(&first).unwrap()[..8192], [[7; 4096], [0; 4096]].concat());
}

#[test]
fn the_larger_machine_has_tools_and_drivers_for_what_lies_below_filesystems() {
    let Some(kernel) = kernel() else { return };
    let tools: [(&str, &[&str], &str); 5] = [
        ("lvm", &["version"], "LVM version"),
        ("cryptsetup", &["--version"], "cryptsetup"),
        ("dmsetup", &["version"], "Driver version"),
        ("thin_check", &["--version"], "."),
        ("mdadm", &["--help"], "mdadm"),
    ];
    if !tools.iter().all(|(name, _, _)| require(has_tool(name), &format!("no {name}"))) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (_, first) = disk(folder.path(), "first", 64 << 20, b"");
    let mut machine = start(&kernel, &[first], Contents::Stack).unwrap();
    let drivers = ["dm_thin_pool", "dm_crypt", "raid1", "xts", "algif_skcipher"];
    ask(&mut machine, &Ask::Load(drivers.map(str::to_owned).into()));
    for (name, arguments, told) in tools {
        let printed = ask(
            &mut machine,
            &Ask::Run(name.into(), arguments.iter().map(|word| (*word).to_owned()).collect()),
        );
        assert!(printed.contains(told), "{name}: {printed}");
    }
    // A volume group from nothing: programs, drivers and their settings go together.
    let mut lvm =
        |line: &str| ask(&mut machine, &Ask::Run("lvm".into(), line.split(' ').map(str::to_owned).collect()));
    lvm("pvcreate /dev/vda");
    lvm("vgcreate group /dev/vda");
    lvm("lvcreate -y --type thin-pool -L 16M -n pool group");
    lvm("lvcreate -y -V 32M -T group/pool -n thin");
    assert!(lvm("lvs --noheadings -o lv_name group").contains("thin"));
    machine.close().unwrap();
}
