//! Servers for a test, on this host's loopback interface or a socket: each ends with the test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{command, shell};
use crate::device::Rig;

/// How long one may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server that listens.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[expect(clippy::disallowed_methods, reason = "that a server listens has no event")]
fn wait(is_there: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_there() {
        assert!(Instant::now() < deadline, "a server does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn listening(mut server: Command, port: u16) -> Server {
    let server = Server { child: server.spawn().unwrap(), port };
    wait(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
    server
}

/// qemu-nbd with one export on a port.
pub(crate) fn nbd(file: &Path, export: &str) -> Server {
    let port = free_port();
    let mut server = command("qemu-nbd");
    server.args([
        "-r",
        "-t",
        "-e",
        "8",
        "-f",
        "raw",
        "-b",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-x",
        export,
    ]);
    server.arg(file);
    listening(server, port)
}

/// The same on a socket.
pub(crate) fn nbd_socket(file: &Path, socket: &Path) -> Server {
    let mut server = command("qemu-nbd");
    server.args(["-r", "-t", "-e", "8", "-f", "raw", "-k"]).arg(socket).arg(file);
    let server = Server { child: server.spawn().unwrap(), port: 0 };
    wait(|| UnixStream::connect(socket).is_ok());
    server
}

/// A web server; with a certificate and its key by https.
pub(crate) fn web(folder: &Path, certificate: Option<(&Path, &Path)>) -> Server {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/remote/serve.py");
    let mut server = command("/usr/bin/python3");
    server.arg(script).arg(folder).stdout(Stdio::piped());
    if let Some((certificate, key)) = certificate {
        server.arg(certificate).arg(key);
    }
    let mut child = server.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    Server { child, port: line.trim().parse().unwrap() }
}

/// A throw-away certificate for 127.0.0.1, and its key.
pub(crate) fn certificate(rig: &Rig) -> (PathBuf, PathBuf) {
    let (certificate, key) = (rig.path("certificate"), rig.path("key"));
    shell(&format!(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
         -keyout {} -out {} 2>&1",
        key.display(),
        certificate.display()
    ));
    (certificate, key)
}

/// An ssh server that lets in who has the key in the folder `home`, which is to stand in the place of root's own.
pub(crate) fn ssh(rig: &Rig) -> (Server, PathBuf) {
    let (home, port) = (rig.path("home"), free_port());
    let (at, config, host) = (home.display(), rig.path("sshd.conf"), rig.path("host"));
    shell(&format!(
        "mkdir -p {at}/.ssh; chmod 700 {at}/.ssh; ssh-keygen -q -t ed25519 -N '' -f {at}/.ssh/id_ed25519; \
         ssh-keygen -q -t ed25519 -N '' -f {}",
        host.display()
    ));
    let lines = [
        format!("Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile none", host.display()),
        format!("AuthorizedKeysFile {at}/.ssh/id_ed25519.pub\nStrictModes no\nUsePAM no"),
        "PermitRootLogin yes\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n".into(),
    ];
    fs::write(&config, lines.join("\n")).unwrap();
    // It wants a folder in /run.
    let mut server = command("unshare");
    server.args([
        "-m",
        "bash",
        "-c",
        "mount -t tmpfs sshd /run; mkdir /run/sshd; exec /usr/sbin/sshd -D -f $0",
    ]);
    server.arg(config).stderr(Stdio::null());
    (listening(server, port), home)
}

/// Makes the server known, by the key in this file.
pub(crate) fn know(home: &Path, port: u16, key: &Path) {
    let key = fs::read_to_string(key.with_extension("pub")).unwrap();
    let words: Vec<&str> = key.split(' ').take(2).collect();
    fs::write(home.join(".ssh/known_hosts"), format!("[127.0.0.1]:{port} {}\n", words.join(" "))).unwrap();
}
