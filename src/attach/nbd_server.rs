//! qemu-nbd as our direct child, serving one image to two clients: us, then the kernel in our place; and us once more, to
//! ask where there is data. It gets a listening socket that both are connected to already, so nobody else can be
//! first, and the first byte of its greeting says that the image is open. Without --persistent it ends when its last
//! client leaves.

#![forbid(unsafe_code)]

use std::error::Error as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::ImageSpec;
use super::nbd_protocol::{HandshakeError, Negotiated, negotiate};
use super::nbd_status::StatusClient;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::child::{Child, Spawn};
use crate::sys::tool::Tool;

/// How long opening the image may take.
const OPEN_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may think about one question.
const ANSWER_PATIENCE: Duration = Duration::from_secs(120);
/// How long a server that has hung up may take to end.
const EXIT_PATIENCE: Duration = Duration::from_secs(10);
/// Block drivers that read a `backing` file from the image's header unless told which one to take.
const WITH_BACKING: [&str; 4] = ["qcow2", "qcow", "qed", "vmdk"];

/// A server that has shaken hands.
#[derive(Debug)]
pub(super) struct Server {
    pub child: Child,
    /// The connection, where requests may be sent.
    pub socket: UnixStream,
    pub offer: Negotiated,
    /// The connection for questions; none when it cannot answer them.
    pub status: Option<StatusClient<UnixStream>>,
}

impl Server {
    /// Starts `program`, qemu-nbd, on the image and waits until it has opened it.
    pub(super) fn start(program: &Tool, image: &ImageSpec, folder: &Path) -> Result<Self> {
        check_layers(&image.layers)?;
        let (listener, [mut socket, second]) =
            connected_listener(folder).context(|| "cannot make a private socket for qemu-nbd")?;
        // In a mount namespace of its own, or it would keep the guest's mounts alive that keep it alive.
        let child = command(program, image).listen_on(listener.into()).on_a_leash().with_own_mounts();
        let child = child.spawn().map_err(unprivileged)?;
        let patience = |socket: &UnixStream, patience| {
            socket.set_read_timeout(patience).context(|| "cannot set up the connection to qemu-nbd")
        };
        patience(&socket, Some(OPEN_PATIENCE))?;
        patience(&second, Some(ANSWER_PATIENCE))?;
        let both =
            negotiate(&mut socket, "").and_then(|offer| Ok((offer, StatusClient::negotiate(second, "")?)));
        let (offer, status) = match both {
            Ok(both) => both,
            Err(error) => return Err(no_handshake(child, error)),
        };
        // The kernel waits for the server as long as it must; a time-out of ours would break its connection.
        patience(&socket, None)?;
        Ok(Self { child, socket, offer, status })
    }
}

fn command(program: &Tool, image: &ImageSpec) -> Spawn {
    let spawn = program.spawn().args(["--shared=2", "--discard=unmap", "--detect-zeroes=unmap"]);
    let spawn = if image.read_only { spawn.arg("--read-only") } else { spawn };
    spawn.arg("--").arg(format!("json:{}", image.layers))
}

/// A spawn that the kernel does not permit lacks the privilege for a mount namespace.
fn unprivileged(error: Error) -> Error {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    if cause.is_none_or(|cause| cause.kind() != std::io::ErrorKind::PermissionDenied) {
        return error;
    }
    Error::host_lacks("attaching by nbd needs root (CAP_SYS_ADMIN)")
        .caused_by(error)
        .hint("run guestseal as root; in a container give it --privileged or CAP_SYS_ADMIN")
}

/// A listening socket with two clients in its queue: those returned, in their order. Its name is gone before anybody
/// serves it.
fn connected_listener(folder: &Path) -> std::io::Result<(UnixListener, [UnixStream; 2])> {
    let path = folder.join("nbd");
    let listener = UnixListener::bind(&path)?;
    let sockets = [UnixStream::connect(&path)?, UnixStream::connect(&path)?];
    std::fs::remove_file(&path)?;
    Ok((listener, sockets))
}

/// Refuses a tree that leaves a format or a backing file to be guessed from the image, which may be hostile.
fn check_layers(layers: &Value) -> Result<()> {
    let Some(node) = layers.as_object() else {
        return Err(Error::failed("a block node is not described by an object"));
    };
    let Some(driver) = node.get("driver").and_then(Value::as_str) else {
        return Err(Error::failed("a block node has no driver: the format is never guessed"));
    };
    if WITH_BACKING.contains(&driver) && !node.contains_key("backing") {
        return Err(Error::failed(format!(
            "a node of driver {driver} leaves its backing file to the image's header"
        )));
    }
    ["file", "backing", "data-file"]
        .iter()
        .filter_map(|name| node.get(*name))
        .filter(|child| !child.is_null())
        .try_for_each(check_layers)
}

const DAMAGED: &str = "the image itself may be damaged: qemu-img check IMAGE tells more";

/// Finds out why a server did not shake hands; one that hung up says so on its stderr.
fn no_handshake(child: Child, error: HandshakeError) -> Error {
    let HandshakeError::Io(cause) = &error else {
        return Error::failed("qemu-nbd does not serve the image").caused_by(error).hint(DAMAGED);
    };
    if matches!(cause.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) {
        let seconds = OPEN_PATIENCE.as_secs();
        return Error::failed(format!("qemu-nbd did not open the image within {seconds} s"));
    }
    match child.wait_within(EXIT_PATIENCE) {
        Ok(exit) if is_locked(&exit.stderr) => Error::new(ErrorKind::Busy, "somebody else uses the image")
            .caused_by(exit.stderr)
            .hint("shut the guest down, or wait until the other program is done"),
        Ok(exit) if exit.status.success() => {
            Error::failed("qemu-nbd does not serve the image").caused_by(error)
        }
        Ok(exit) => exit.success().err().unwrap_or_else(|| Error::failed("qemu-nbd ended")).hint(DAMAGED),
        Err(other) => other,
    }
}

/// What qemu says when another process holds a lock on the image (qemu's image locking, block/file-posix.c).
fn is_locked(stderr: &str) -> bool {
    stderr.contains("Failed to get") && stderr.contains(" lock")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_is_left_to_be_guessed() {
        let file = json!({"driver": "file", "filename": "/a"});
        let raw = json!({"driver": "raw", "file": file});
        let good = json!({"driver": "qcow2", "file": file, "backing": {"driver": "qcow2", "file": file, "backing": null}});
        check_layers(&good).unwrap();
        check_layers(&raw).unwrap();
        let cases = [
            (json!("/a.qcow2"), "not described by an object"),
            (json!({"file": file}), "no driver"),
            (json!({"driver": "qcow2", "file": file}), "leaves its backing file"),
            (json!({"driver": "raw", "file": {"filename": "/a"}}), "no driver"),
            (
                json!({"driver": "qcow2", "file": file, "backing": {"driver": "vmdk", "file": file}}),
                "driver vmdk leaves",
            ),
            (json!({"driver": "qcow2", "file": file, "backing": "/b"}), "not described by an object"),
        ];
        for (layers, why) in cases {
            let error = check_layers(&layers).unwrap_err();
            assert!(error.to_string().contains(why), "{error:?} for {layers}");
        }
    }

    #[test]
    fn the_socket_has_no_name_left() {
        let folder = tempfile::tempdir().unwrap();
        let (listener, [socket, _second]) = connected_listener(folder.path()).unwrap();
        let path = listener.local_addr().unwrap().as_pathname().unwrap().to_path_buf();
        assert!(!path.exists());
        let (mut accepted, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut accepted, b"x").unwrap();
        let mut byte = [0];
        std::io::Read::read_exact(&mut &socket, &mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }
}
