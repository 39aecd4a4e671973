//! The handshake with a real server, which needs neither root nor a kernel with nbd.

use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use guestseal::attach::nbd_protocol::{FLAG_READ_ONLY, HandshakeError, Negotiated, negotiate};
use guestseal::sys::child::Spawn;

use crate::host::{Image, has};

fn talk(image: &Image, argument: &str, export: &str) -> Result<Negotiated, HandshakeError> {
    let path = image.folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut socket = UnixStream::connect(&path).unwrap();
    let started = Instant::now();
    let server = Spawn::new("/usr/bin/qemu-nbd").args(["-f", "qcow2", argument]).arg(&image.path);
    let server = server.listen_on(listener.into()).on_a_leash().spawn().unwrap();
    let answer = negotiate(&mut socket, export);
    println!("{:?} to the end of the handshake", started.elapsed());
    drop((socket, server));
    std::fs::remove_file(path).unwrap();
    answer
}

#[test]
fn qemu_nbd_shakes_hands() {
    if !has(&["qemu-nbd", "qemu-img"]) {
        return;
    }
    let image = Image::new("7M");
    let offer = talk(&image, "--discard=unmap", "").unwrap();
    assert_eq!((offer.size_bytes, offer.transmission_flags & FLAG_READ_ONLY), (7 << 20, 0));
    let sizes = offer.block_sizes.unwrap();
    assert!(sizes.minimum <= 512 && sizes.maximum >= 1 << 20, "{sizes:?}");
    let offer = talk(&image, "--read-only", "").unwrap();
    assert_ne!(offer.transmission_flags & FLAG_READ_ONLY, 0);
    let error = talk(&image, "--read-only", "no such export").unwrap_err();
    assert!(matches!(error, HandshakeError::Refused(_)), "{error}");
}
