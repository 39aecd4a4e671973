//! The handshake with a real server, which needs neither root nor a kernel with nbd.

use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use guestseal::attach::nbd_protocol::{FLAG_READ_ONLY, HandshakeError, Negotiated, negotiate};
use guestseal::attach::nbd_status::StatusClient;
use guestseal::sys::child::Spawn;

use crate::host::{Image, has, run};

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

#[test]
fn qemu_nbd_tells_where_there_is_data_and_ends_with_its_last_client() {
    if !has(&["qemu-nbd", "qemu-img", "qemu-io"]) {
        return;
    }
    const GIB: u64 = 1 << 30;
    let image = Image::new("100G");
    let path = image.path.display();
    // Data, and zeros: written as such, and by a cluster that is zero.
    let writes = "-c 'write -P 5 3G 64k' -c 'write -z 4G 1M' -c 'write -P 7 107374116864 64k'";
    run(&format!("qemu-io -f qcow2 {writes} {path} >/dev/null"));
    let socket = image.folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut first = UnixStream::connect(&socket).unwrap();
    let second = UnixStream::connect(&socket).unwrap();
    let server = Spawn::new("/usr/bin/qemu-nbd").args(["-f", "qcow2", "--shared=2"]).arg(&image.path);
    let server = server.listen_on(listener.into()).on_a_leash().spawn().unwrap();
    let offer = negotiate(&mut first, "").unwrap();
    let mut client = StatusClient::negotiate(second, "").unwrap().unwrap();
    let started = Instant::now();
    let (mut at, mut found) = (0, Vec::new());
    while let Some(data) = client.next_data(at, offer.size_bytes).unwrap() {
        at = data.end;
        found.push(data);
    }
    println!("100 GiB in {:?}", started.elapsed());
    assert_eq!(found, [3 * GIB..3 * GIB + 65536, 100 * GIB - 65536..100 * GIB]);
    assert!(started.elapsed() < Duration::from_secs(20), "the holes were read");
    client.leave().unwrap();
    assert!(!server.ends_within(Duration::from_millis(300)).unwrap(), "it ended before its last client");
    drop(first);
    assert!(server.ends_within(Duration::from_secs(10)).unwrap(), "it did not end with its last client");
}
