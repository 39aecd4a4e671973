//! Disks by URI: read for a new file, looked at, and refused.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{GUESTSEAL, Ran, command, fingerprint, on_path, ready, require, run, tool};
use crate::device::Rig;
use crate::mounts::in_private_mounts;
use crate::servers::{certificate, free_port, know, nbd, nbd_socket, ssh, web};

/// Where Debian has qemu's drivers that are modules.
const MODULES: &str = "/usr/lib/x86_64-linux-gnu/qemu";

fn has(driver: &str) -> bool {
    require(module(driver).exists(), "needs qemu-block-extra")
}

fn module(driver: &str) -> PathBuf {
    Path::new(MODULES).join(format!("block-{driver}.so"))
}

fn guestseal(words: &str, uri: &str) -> Ran {
    run(GUESTSEAL, words.split_whitespace().chain([uri]))
}

/// The disk is looked at, and sealed into a new file that is whole; it stays as it was.
fn is_read_only(rig: &Rig, uri: &str) {
    let before = fingerprint(&rig.file);
    let new = rig.path("new.qcow2");
    let seen = guestseal("inspect --json", uri).expect(0).result();
    assert_eq!(seen["inspection"]["guest"]["os"]["id"], "arch");
    let words = format!("seal --json --output-format qcow2 --output {} -a", new.display());
    let sealed = guestseal(&words, uri).expect(0).result();
    assert_eq!(sealed["image"], new.to_str().unwrap());
    tool("qemu-img", [Path::new("check"), Path::new("-q"), &new]);
    guestseal("verify", new.to_str().unwrap()).expect(0);
    for words in ["seal", "seal --in-place"] {
        guestseal(words, uri).expect(6).says(&["not on this host", "--output NEW"]);
    }
    guestseal("recover", uri).expect(2).says(&["never written"]);
    guestseal("verify --residue", uri).expect(5);
    assert_eq!(fingerprint(&rig.file), before);
    assert!(!Path::new("/run/guestseal/remote").exists());
}

#[test]
fn nbd_by_a_port_and_by_a_socket() {
    if !ready() {
        return;
    }
    let rig = Rig::new();
    let server = nbd(&rig.file, "a disk");
    is_read_only(&rig, &format!("nbd://127.0.0.1:{}/a%20disk", server.port));
    let other = guestseal("inspect", &format!("nbd://127.0.0.1:{}/other", server.port));
    other.expect(1).says(&["cannot open nbd://127.0.0.1", "other"]);
    let socket = rig.path("socket");
    let _server = nbd_socket(&rig.file, &socket);
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    guestseal("inspect", &uri).expect(0);
    guestseal("seal --rehearse --work-dir /proc/nowhere", &uri).expect(0);
    guestseal("inspect", &format!("nbd://127.0.0.1:{}/x", free_port())).expect(1).says(&["refused"]);
}

/// What a guest wrote to its disk does not say what the disk is.
#[test]
fn the_format_of_a_served_disk_is_not_guessed() {
    if !ready() {
        return;
    }
    let rig = Rig::new();
    let qcow2 = rig.path("content.qcow2");
    tool("qemu-img", [Path::new("convert"), Path::new("-fraw"), Path::new("-Oqcow2"), &rig.file, &qcow2]);
    let server = nbd(&qcow2, "x");
    let uri = format!("nbd://127.0.0.1:{}/x", server.port);
    guestseal("inspect", &uri).expect(6);
    guestseal("inspect --format qcow2", &uri).expect(0);
}

#[test]
fn a_file_of_a_web_server() {
    if !ready() || !has("curl") || !require(Path::new("/usr/bin/python3").exists(), "needs python3") {
        return;
    }
    let rig = Rig::new();
    let folder = rig.path("web");
    fs::create_dir(&folder).unwrap();
    let image = folder.join("a b.qcow2");
    tool("qemu-img", [Path::new("convert"), Path::new("-fraw"), Path::new("-Oqcow2"), &rig.file, &image]);
    fs::rename(&image, folder.join("a%20b.qcow2")).unwrap();
    let plain = web(&folder, None);
    is_read_only(&rig, &format!("http://127.0.0.1:{}/a%20b.qcow2", plain.port));
    guestseal("inspect", &format!("http://127.0.0.1:{}/no", plain.port)).expect(1).says(&["404"]);
    // A server that nobody vouches for is not believed.
    let (certificate, key) = certificate(&rig);
    let secret = web(&folder, Some((&certificate, &key)));
    let uri = format!("https://127.0.0.1:{}/a%20b.qcow2", secret.port);
    guestseal("inspect", &uri).expect(1).says(&["certificate", "what to do"]);
    let trusted = Path::new("/etc/ssl/certs/ca-certificates.crt");
    if require(trusted.exists(), "needs ca-certificates") {
        in_private_mounts(|| {
            tool("mount", [Path::new("--bind"), &certificate, trusted]);
            guestseal("inspect", &uri).expect(0);
        });
    }
}

#[test]
fn a_file_by_ssh() {
    if !ready() || !has("ssh") || !require(on_path("sshd") && on_path("ssh-keygen"), "needs openssh-server") {
        return;
    }
    let rig = Rig::new();
    let (server, home) = ssh(&rig);
    let uri = format!("ssh://root@127.0.0.1:{}{}", server.port, rig.file.display());
    in_private_mounts(|| {
        let own = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(0)).unwrap().unwrap().dir;
        tool("mount", [Path::new("--bind"), &home, &own]);
        guestseal("inspect", &uri).expect(1).says(&["host key", "known_hosts"]);
        know(&home, server.port, &home.join(".ssh/id_ed25519"));
        guestseal("inspect", &uri).expect(1).says(&["does not match", "known_hosts"]);
        know(&home, server.port, &rig.path("host"));
        is_read_only(&rig, &uri);
        guestseal("inspect", &format!("{uri}.no")).expect(1).says(&["cannot open ssh://root@127.0.0.1"]);
        // Without a key of its own it asks the agent of whoever runs it.
        let key = rig.path("id_ed25519");
        fs::rename(home.join(".ssh/id_ed25519"), &key).unwrap();
        guestseal("inspect", &uri).expect(1).says(&["authenticat", "SSH_AUTH_SOCK"]);
        let line = "ssh-add -q \"$1\" && exec \"$2\" inspect \"$3\"";
        let words = ["ssh-agent", "bash", "-c", line, "bash", key.to_str().unwrap(), GUESTSEAL, &uri];
        run("env", words).expect(0);
    });
}

#[test]
fn a_driver_that_is_not_installed_is_named() {
    if !ready() || !has("rbd") || !has("ssh") {
        return;
    }
    in_private_mounts(|| {
        for driver in ["rbd", "ssh", "curl"] {
            tool("mount", [Path::new("--bind"), Path::new("/dev/null"), &module(driver)]);
        }
        for uri in ["rbd:pool/image", "ssh://127.0.0.1/x", "http://127.0.0.1/x", "https://127.0.0.1/x"] {
            let lacks = guestseal("inspect", uri).expect(7);
            lacks.says(&["is not installed", "install qemu-block-extra"]);
        }
    });
}

/// One that takes the connection and says nothing.
#[test]
fn a_server_that_does_not_answer_can_be_left() {
    if !ready() {
        return;
    }
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("nbd://127.0.0.1:{}/x", silent.local_addr().unwrap().port());
    let mut run = command(GUESTSEAL);
    let mut run = run.args(["inspect", &uri]).stderr(Stdio::piped()).spawn().unwrap();
    let _connection = silent.accept().unwrap();
    let began = Instant::now();
    kill(Pid::from_raw(run.id().cast_signed()), Signal::SIGINT).unwrap();
    let mut said = String::new();
    run.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!run.wait().unwrap().success());
    assert!(began.elapsed() < Duration::from_secs(20) && said.contains("SIGINT"), "{said}");
}

#[test]
fn what_is_wrong_is_said_without_a_password() {
    for (uri, code) in [
        ("ssh://bob:hunter2@127.0.0.1/x", 2),
        ("https://127.0.0.1/x?key=hunter2", 2),
        ("rbd:pool/image:key=hunter2", 2),
        ("ftp://bob:hunter2@127.0.0.1/x", 6),
        ("nbd://127.0.0.1:hunter2/x", 2),
    ] {
        for words in ["seal -a", "inspect", "verify", "recover", "seal --dry-run"] {
            let ran = guestseal(words, uri).expect(code);
            assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("hunter2"), "{ran:?}");
        }
    }
    let output = run(GUESTSEAL, ["seal", "--output", "nbd://h/x", "/dev/null"]);
    assert!(output.code != 0);
}
