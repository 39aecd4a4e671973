//! libvirt for a test: its test driver by a file, without a daemon; and a daemon of the test's own, as an ordinary user,
//! with its test driver and its qemu. Nothing of it is the host's libvirt.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};

use tempfile::TempDir;

use crate::common::{GUESTSEAL, Ran, command, fingerprint, run, shell, tool};
use crate::guests::guest;

/// Whom the daemon belongs to: nobody.
const USER: u32 = 65534;
/// The guest's domain.
pub(crate) const NAME: &str = "web";
pub(crate) const UUID: &str = "6695eb01-f6a4-8304-79aa-97f2502e1931";
const OTHER: &str = "6695eb01-f6a4-8304-79aa-97f2502e1932";

/// A guest's disks in a folder that the daemon's user may use too.
#[derive(Debug)]
pub(crate) struct Disks {
    folder: TempDir,
    pub(crate) root: PathBuf,
    pub(crate) data: PathBuf,
}

impl Disks {
    /// A real guest's root as qcow2, and an ext4 with a deleted secret as a raw disk.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("guestseal-domains-").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711)).unwrap();
        let (root, data) = (folder.path().join("root.qcow2"), folder.path().join("data.img"));
        let (from, to) = (guest("alpine").image, root.clone());
        tool("qemu-img", [Path::new("convert"), Path::new("-fraw"), Path::new("-Oqcow2"), &from, &to]);
        fs::File::create(&data).unwrap().set_len(32 << 20).unwrap();
        tool("mkfs.ext4", [Path::new("-q"), &data]);
        // In a block that is free.
        shell(&format!(
            "printf PLANTED-SECRET | dd of={} bs=1M seek=20 conv=notrunc status=none",
            data.display()
        ));
        for disk in [&root, &data] {
            chown(disk, Some(USER), Some(USER)).unwrap();
        }
        Self { folder, root, data }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What may not change.
    pub(crate) fn print(&self) -> (String, String, Vec<PathBuf>) {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        names.sort();
        (fingerprint(&self.root), fingerprint(&self.data), names)
    }

    /// Both disks, and a CD.
    pub(crate) fn both(&self) -> String {
        let (root, data) = (self.root.display(), self.data.display());
        format!(
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{root}'/>\
             <target dev='vda' bus='virtio'/></disk>\
             <disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='{data}'/>\
             <target dev='vdb' bus='virtio'/></disk>\
             <disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='/nowhere.iso'/>\
             <target dev='hdc' bus='ide'/><readonly/></disk>"
        )
    }

    /// The root alone.
    pub(crate) fn root(&self) -> String {
        let both = self.both();
        both.split_inclusive("</disk>").next().unwrap().to_owned()
    }

    /// The URI of libvirt's test driver with this guest's domain alone, shut off: each connection has its own.
    pub(crate) fn off(&self, disks: &str) -> String {
        let file = self.path("node.xml");
        let domain =
            domain("test", NAME, UUID, disks).replace("<domain ", &format!("<domain {TEST_NAMESPACE} "));
        let off = domain.replace("</domain>", "<t:runstate>5</t:runstate></domain>");
        fs::write(&file, format!("<node>{off}</node>")).unwrap();
        format!("test://{}", file.display())
    }
}

const TEST_NAMESPACE: &str = "xmlns:t='http://libvirt.org/schemas/domain/test/1.0'";

/// A domain's definition.
fn domain(kind: &str, name: &str, uuid: &str, disks: &str) -> String {
    format!(
        "<domain type='{kind}'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>128</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64'>hvm</type></os><features><acpi/></features><devices>{disks}</devices></domain>"
    )
}

/// Runs guestseal on the domain at this URI.
#[track_caller]
pub(crate) fn guestseal(uri: &str, words: &str, more: &[&str]) -> Ran {
    let words = words.split_whitespace().chain(["-c", uri, "-d", NAME]).chain(more.iter().copied());
    run(GUESTSEAL, words)
}

/// A daemon of libvirt, with its folder, and a connection that keeps what is defined in its test driver.
#[derive(Debug)]
pub(crate) struct Daemon {
    folder: TempDir,
    daemon: Child,
    keeper: Child,
    _keeps: ChildStdin,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("guestseal-libvirt-").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o711)).unwrap();
        let at = |name: &str| folder.path().join(name);
        let settings = format!(
            "unix_sock_dir = \"{}\"\nauth_unix_rw = \"none\"\nunix_sock_rw_perms = \"0777\"\n",
            at("run").display()
        );
        fs::write(at("libvirtd.conf"), settings).unwrap();
        for name in ["home", "run"] {
            fs::create_dir(at(name)).unwrap();
            chown(at(name), Some(USER), Some(USER)).unwrap();
        }
        let mut daemon = command("setpriv");
        daemon.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--pdeathsig=TERM",
            "libvirtd",
            "-f",
        ]);
        daemon.arg(at("libvirtd.conf")).arg("-p").arg(at("run/pid"));
        daemon.env("HOME", at("home")).env("XDG_RUNTIME_DIR", at("run"));
        let log = fs::File::create(at("log")).unwrap();
        let daemon = daemon.stderr(log.try_clone().unwrap()).stdout(log).spawn().unwrap();
        let socket = at("run/libvirt-sock");
        shell(&format!("timeout 60 bash -c 'until [ -S {0} ]; do sleep 0.02; done'", socket.display()));
        let mut keeper = command("virsh");
        keeper
            .args(["-q", "-c", &uri(&socket, "test", "default")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut keeper = keeper.spawn().unwrap();
        let mut keeps = keeper.stdin.take().unwrap();
        keeps.write_all(b"list --name\n").unwrap();
        let (mut said, mut byte) = (Vec::new(), [0]);
        // The driver's own domain: virsh is connected.
        while !said.ends_with(b"test\n") {
            assert_eq!(keeper.stdout.as_mut().unwrap().read(&mut byte).unwrap(), 1, "virsh ended");
            said.push(byte[0]);
        }
        Self { folder, daemon, keeper, _keeps: keeps }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("run/libvirt-sock")
    }

    /// Of the test driver, whose domains are all of them made up.
    pub(crate) fn test(&self) -> String {
        uri(&self.socket(), "test", "default")
    }

    /// Of the daemon's own qemu.
    pub(crate) fn qemu(&self) -> String {
        uri(&self.socket(), "qemu", "session")
    }

    /// Defines the guest's domain, or another one.
    pub(crate) fn define(&self, uri: &str, name: &str, disks: &str) {
        virsh(uri, &["define", self.xml(uri, name, disks).to_str().unwrap()]);
    }

    /// A file with the definition of the guest's domain, or another one.
    pub(crate) fn xml(&self, uri: &str, name: &str, disks: &str) -> PathBuf {
        let kind = if uri.starts_with("qemu") { "qemu" } else { "test" };
        let file = self.folder.path().join("domain.xml");
        fs::write(&file, domain(kind, name, if name == NAME { UUID } else { OTHER }, disks)).unwrap();
        file
    }

    /// A path in the daemon's folder.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn uri(socket: &Path, driver: &str, path: &str) -> String {
    format!("{driver}+unix:///{path}?socket={}", socket.display())
}

/// Runs virsh, which must succeed, and returns what it prints.
#[track_caller]
pub(crate) fn virsh(uri: &str, words: &[&str]) -> String {
    let all = ["-q", "-c", uri].into_iter().chain(words.iter().copied());
    tool("virsh", all).trim().to_owned()
}

/// What the domain is doing.
#[track_caller]
pub(crate) fn state(uri: &str) -> String {
    virsh(uri, &["domstate", NAME])
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that runs in qemu would outlive the daemon.
        let _ = command("virsh").args(["-q", "-c", &self.qemu(), "destroy", NAME]).output();
        for child in [&mut self.keeper, &mut self.daemon] {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = child.wait();
        }
    }
}
