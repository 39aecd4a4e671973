//! What is refused, before a byte of any disk is changed.

use crate::common::{GUESTSEAL, run};
use crate::rig::{Daemon, Disks, NAME, guestseal, state, virsh};
use crate::{ready_with_daemon, ready_with_virsh};

#[test]
fn names_and_connections_that_are_wrong() {
    if !ready_with_virsh() {
        return;
    }
    let disks = Disks::new();
    let uri = disks.off(&disks.both());
    let before = disks.print();
    let root = disks.root.to_str().unwrap().to_owned();
    let nowhere = "qemu+unix:///session?socket=/nonexistent/socket";
    let elsewhere = "qemu+ssh://elsewhere.invalid/system";
    let cases: [(&[&str], i32, &str); 15] = [
        (&["-c", &uri, "-d", "wep"], 2, "did you mean `web`?"),
        (&["-c", &uri, "--domain=--version"], 2, "there is no domain"),
        (&["-c", &uri, "-d", ""], 2, "-d needs the name"),
        (&["-c", &uri, "-d", NAME, "-d", "other"], 2, "one domain at a time"),
        (&["-c", &uri, "-d", NAME, "-a", &root], 2, "either by -d or by its images"),
        (&["-c", &uri, "-d", NAME, &root], 2, "either by -d or by its images"),
        (&["-c", &uri, "-d", NAME, "--format", "raw"], 2, "--format does not go with -d"),
        (&["-c", &uri, "-d", NAME, "--tree", "/nowhere"], 2, "cannot be used with"),
        (&["-c", nowhere, "-d", NAME], 1, "cannot connect to libvirt"),
        (&["-c", elsewhere, "-d", NAME], 6, "runs on the host elsewhere.invalid"),
        (&["-c", "esx://root:hunter2@host/", "-d", NAME], 2, "has a password in it"),
        (&["--shutdown", "-a", &root], 2, "--shutdown is about a domain"),
        (&["--no-shutdown", "-a", &root, "--output", "/nowhere/x"], 2, "--no-shutdown is about a domain"),
        (&["-c", &uri, "-d", NAME, "--no-shutdown"], 2, "--output NEW"),
        (
            &["-c", &uri, "-d", NAME, "--no-shutdown", "--shutdown", "--output", "/nowhere/x"],
            2,
            "cannot be used with",
        ),
    ];
    for (words, code, says) in cases {
        let ran = run(GUESTSEAL, ["seal"].into_iter().chain(words.iter().copied())).expect(code);
        ran.says(&[says]);
        assert!(!ran.stderr.contains("hunter2"), "{ran:#?}");
    }
    assert_eq!(disks.print(), before);
}

#[test]
fn disks_that_cannot_be_worked_on() {
    if !ready_with_virsh() {
        return;
    }
    let disks = Disks::new();
    let root = disks.root();
    let before = |disks: &Disks| (disks.print().0, disks.print().1);
    let print = before(&disks);
    let network = "<disk type='network' device='disk'><driver name='qemu' type='raw'/>\
        <source protocol='nbd' name='web'><host name='h' port='10809'/></source><target dev='vdc' bus='virtio'/></disk>";
    let cases = [
        ("".to_owned(), "has no disk of its own"),
        (root.replace("<target ", "<readonly/><target "), "has no disk of its own"),
        (format!("{root}{network}"), "is on a network (nbd)"),
        (root.replace("<target ", "<transient/><target "), "transient"),
    ];
    for (definition, says) in cases {
        let uri = disks.off(&definition);
        for command in ["seal", "inspect"] {
            guestseal(&uri, command, &[]).expect(6).says(&[says, "what to do"]);
        }
    }
    // As with -a: what lies below it is not this guest's alone.
    let thin = disks.path("thin.qcow2");
    let words = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"];
    run("qemu-img", words.iter().map(std::path::PathBuf::from).chain([disks.root.clone(), thin.clone()]))
        .expect(0);
    let uri = disks.off(&root.replace("root.qcow2", "thin.qcow2"));
    guestseal(&uri, "seal", &[]).expect(6).says(&["backing file"]);
    assert_eq!(before(&disks), print);
    guestseal(&uri, "seal --allow-backing", &[]).expect(0);
    assert_eq!(before(&disks), print);
}

#[test]
fn domains_that_have_not_ended() {
    if !ready_with_daemon() {
        return;
    }
    let disks = Disks::new();
    let daemon = Daemon::start();
    let uri = daemon.test();
    daemon.define(&uri, NAME, &disks.both());
    let before = disks.print();
    let steps: [(&[&str], &str, &str); 4] = [
        (&["start", NAME], "is running", "--shutdown"),
        (&["suspend", NAME], "is paused", "virsh resume web"),
        (&["resume", NAME], "is running", "--shutdown"),
        (&["managedsave", NAME], "is saved", "virsh managedsave-remove web"),
    ];
    for (step, doing, remedy) in steps {
        virsh(&uri, step);
        let is = state(&uri);
        for command in ["seal", "seal --in-place", "seal --rehearse", "seal --rehearse --shutdown"] {
            guestseal(&uri, command, &[]).expect(3).says(&[doing, remedy]);
        }
        if !doing.ends_with("running") {
            guestseal(&uri, "seal --shutdown", &[]).expect(3).says(&[doing]);
        }
        assert_eq!(state(&uri), is);
        // Looking goes on, and says so.
        guestseal(&uri, "inspect", &[]).expect(0).says(&[doing, "may be moving"]);
        assert_eq!(disks.print(), before);
    }
    // What is both a domain's number and the name of another.
    virsh(&uri, &["managedsave-remove", NAME]);
    virsh(&uri, &["start", NAME]);
    let number = virsh(&uri, &["domid", NAME]);
    run(GUESTSEAL, ["inspect", "-c", &uri, "-d", &number]).expect(0);
    daemon.define(&uri, &number, &disks.root());
    run(GUESTSEAL, ["inspect", "-c", &uri, "-d", &number])
        .expect(2)
        .says(&["the name of a domain, and the number"]);
}
