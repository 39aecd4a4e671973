use super::super::nbd_testing::{Script, reply};
use super::*;
use proptest::prelude::*;

const SIZE: u64 = 1 << 20;

fn handshake() -> Vec<u8> {
    let context = [&9u32.to_be_bytes()[..], b"base:allocation"].concat();
    let export = [&0u16.to_be_bytes()[..], &SIZE.to_be_bytes(), &1u16.to_be_bytes()].concat();
    let sizes = [&3u16.to_be_bytes()[..], &[512u32, 4096, 1 << 25].map(u32::to_be_bytes).concat()].concat();
    let replies = [
        reply(8, 1, b""),
        reply(10, 4, &context),
        reply(10, 1, b""),
        reply(7, 3, &sizes),
        reply(7, 3, &export),
        reply(7, 1, b""),
    ];
    [b"NBDMAGICIHAVEOPT\0\x03".to_vec(), replies.concat()].concat()
}

fn chunk(flags: u16, kind: u16, cookie: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let head = [&CHUNK.to_be_bytes()[..], &flags.to_be_bytes(), &kind.to_be_bytes(), &cookie.to_be_bytes()];
    [&head.concat()[..], &length.to_be_bytes(), payload].concat()
}

fn status(cookie: u64, context: u32, extents: &[(u32, u32)]) -> Vec<u8> {
    let extents =
        extents.iter().flat_map(|(length, state)| [length.to_be_bytes(), state.to_be_bytes()].concat());
    chunk(1, 5, cookie, &context.to_be_bytes().into_iter().chain(extents).collect::<Vec<u8>>())
}

fn client(speech: &[Vec<u8>]) -> StatusClient<Script> {
    let speech = [handshake(), speech.concat()].concat();
    let script = Script::new(speech);
    StatusClient::negotiate(script, "disk").unwrap().unwrap()
}

fn complaint(speech: &[Vec<u8>]) -> String {
    client(speech).next_data(0, SIZE).unwrap_err().to_string()
}

#[test]
fn a_good_server_is_understood_and_spoken_to_by_the_letter() {
    // A hole may have data below it: only what reads as zero is none.
    let extents = [(4096, 3), (512, 0), (512, 1), (8192, 2), (4096, 0), (1 << 25, 3)];
    let mut client = client(&[status(1, 9, &extents)]);
    let heard = client.stream.heard.split_off(0);
    let wanted = b"\0\0\0\x03IHAVEOPT\0\0\0\x08\0\0\0\0\
        IHAVEOPT\0\0\0\x0a\0\0\0\x1f\0\0\0\x04disk\0\0\0\x01\0\0\0\x0fbase:allocation\
        IHAVEOPT\0\0\0\x07\0\0\0\x0c\0\0\0\x04disk\0\x01\0\x03";
    assert_eq!(heard, wanted);
    assert_eq!(client.next_data(100, SIZE).unwrap(), Some(4096..5120));
    // On the block below, and no more than there is.
    assert_eq!(
        client.stream.heard,
        b"\x25\x60\x95\x13\0\0\0\x07\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\x10\0\0"
    );
    assert_eq!(client.next_data(4100, 4200).unwrap(), Some(4100..4200));
    assert_eq!(client.next_data(5120, SIZE).unwrap(), Some(13_312..17_408));
    assert_eq!(client.next_data(17_408, u64::MAX).unwrap(), None);
    assert_eq!(client.next_data(SIZE, SIZE + 1).unwrap(), None);
    assert_eq!(client.requests, 1, "one answer was enough");
    client.leave().unwrap();
}

#[test]
fn answers_in_parts_are_put_together() {
    let none = chunk(1, 0, 2, b"");
    let open = |mut chunk: Vec<u8>| {
        chunk[5] = 0;
        chunk
    };
    let speech = [
        status(1, 9, &[(4096, 0)]),
        [open(status(2, 7, &[(512, 0)])), open(status(2, 9, &[(4096, 0)])), none].concat(),
        status(3, 9, &[(4096, 2)]),
    ];
    assert_eq!(client(&speech).next_data(0, SIZE).unwrap(), Some(0..8192));
}

#[test]
fn a_server_without_block_status_is_no_error() {
    let greeting = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
    for replies in [
        vec![reply(8, 0x8000_0001, b"")],
        vec![reply(8, 1, b""), reply(10, 1, b"")],
        vec![reply(8, 1, b""), reply(10, 0x8000_0001, b"no")],
    ] {
        let speech = [greeting.clone(), replies.concat()].concat();
        let script = Script::new(speech);
        assert!(StatusClient::negotiate(script, "").unwrap().is_none());
    }
}

#[test]
fn lies_are_found() {
    let simple = [&SIMPLE.to_be_bytes()[..], &22u32.to_be_bytes(), &1u64.to_be_bytes()].concat();
    let error = chunk(1, 0x8001, 1, b"\0\0\0\x05\0\0");
    let mut huge = chunk(1, 5, 1, b"");
    huge[16..].copy_from_slice(&u32::MAX.to_be_bytes());
    let open = chunk(0, 5, 1, &[0, 0, 0, 9, 0, 0, 2, 0, 0, 0, 0, 0]);
    for (speech, why) in [
        (simple, "no block status (error 22)"),
        (error, "no block status (error 5)"),
        (huge, "a chunk of 4294967295 bytes"),
        (b"SSH-2.0-".to_vec(), "bad magic of a reply"),
        (status(2, 9, &[(512, 0)]), "a reply to a request that was not sent"),
        (status(1, 8, &[(512, 0)]), "no block status in the reply"),
        (status(1, 9, &[]), "a block status of 0 bytes"),
        (status(1, 9, &[(512, 0), (0, 0)]), "a block status of nothing"),
        (chunk(1, 5, 1, &[0, 0, 0, 9, 0]), "a block status of 1 bytes"),
        (chunk(1, 1, 1, b""), "an unexpected chunk of kind 1"),
        (chunk(0, 0, 1, b"").repeat(100), "no end of chunks"),
        (open.repeat(2), "two block states of the same"),
        (open, "the connection broke"),
    ] {
        let text = complaint(&[speech]);
        assert!(text.ends_with(why), "{text}, not {why}");
    }
    // It says nothing of the place that was asked for.
    let mut short = client(&[status(1, 9, &[(100, 0)])]);
    assert!(short.next_data(200, SIZE).is_err());
}

#[test]
fn a_server_that_hangs_up_anywhere_is_a_broken_connection() {
    let whole = handshake();
    for end in 0..whole.len() {
        let script = Script::new(whole[..end].to_vec());
        assert!(StatusClient::negotiate(script, "disk").is_err(), "after {end} bytes");
    }
    let whole = status(1, 9, &[(512, 0)]);
    for end in 0..whole.len() {
        assert_eq!(complaint(&[whole[..end].to_vec()]), "the connection broke", "after {end} bytes");
    }
}

proptest! {
    #[test]
    fn any_speech_is_answered_without_panic_and_ends(
        tail in prop::collection::vec(any::<u8>(), 0..300), shaken: bool, from in 0..SIZE, end: u64,
    ) {
        let speech = if shaken { [handshake(), tail].concat() } else { tail };
        let script = Script::new(speech);
        if let Ok(Some(mut client)) = StatusClient::negotiate(script, "disk") {
            let _ = client.next_data(from, end);
        }
    }

    #[test]
    fn any_extents_are_told_as_they_are(
        extents in prop::collection::vec((1u32..40, 0u32..4), 1..40), from in 0u64..50_000, length in 0u64..50_000,
    ) {
        // Those of the server are multiples of its blocks; the last one may be longer than the disk.
        let mut extents: Vec<_> = extents.into_iter().map(|(length, state)| (length * 512, state)).collect();
        extents.push((1 << 21, 3));
        let mut data = Vec::new();
        let mut at = 0u64;
        for (length, state) in &extents {
            data.push((at..at + u64::from(*length), state & 2 == 0));
            at += u64::from(*length);
        }
        let end = from + length;
        let is_data = |place: u64| data.iter().any(|(range, data)| *data && range.contains(&place));
        let mut client = client(&[status(1, 9, &extents)]);
        // As if it had been asked from the start.
        client.known = client.ask(0, SIZE).unwrap();
        let mut at = from;
        while let Some(found) = client.next_data(at, end).unwrap() {
            prop_assert!(found.start >= at && found.end <= end && found.start < found.end);
            prop_assert!((at..found.start).all(|place| !is_data(place)));
            prop_assert!(found.clone().all(is_data));
            at = found.end;
        }
        prop_assert!((at..end).all(|place| !is_data(place)));
    }
}
