use super::super::nbd_testing::{self, Script};
use super::*;
use proptest::prelude::*;

fn greeting(flags: u16) -> Vec<u8> {
    [b"NBDMAGICIHAVEOPT".as_slice(), &flags.to_be_bytes()].concat()
}

/// The answer to the option that ends the handshake.
fn reply(kind: u32, data: &[u8]) -> Vec<u8> {
    nbd_testing::reply(7, kind, data)
}

fn export_info(size: u64, flags: u16) -> Vec<u8> {
    reply(3, &[&0u16.to_be_bytes()[..], &size.to_be_bytes(), &flags.to_be_bytes()].concat())
}

fn block_info(minimum: u32, preferred: u32, maximum: u32) -> Vec<u8> {
    let sizes = [minimum, preferred, maximum].map(u32::to_be_bytes).concat();
    reply(3, &[&3u16.to_be_bytes()[..], &sizes].concat())
}

fn talk(speech: &[Vec<u8>]) -> (Result<Negotiated>, Vec<u8>) {
    let mut script = Script::new(speech.concat());
    let result = negotiate(&mut script, "disk");
    (result, script.heard)
}

fn complaint(speech: &[Vec<u8>]) -> String {
    talk(speech).0.unwrap_err().to_string()
}

#[test]
fn a_good_server_is_understood_and_spoken_to_by_the_letter() {
    let unknown = reply(3, &[0, 9, 1, 2, 3]);
    let speech =
        [greeting(3), block_info(1, 4096, 1 << 25), unknown, export_info(1 << 30, 0x6d), reply(1, b"")];
    let (result, heard) = talk(&speech);
    let block_sizes = Some(BlockSizes { minimum: 1, preferred: 4096, maximum: 1 << 25 });
    assert_eq!(result.unwrap(), Negotiated { size_bytes: 1 << 30, transmission_flags: 0x6d, block_sizes });
    assert_eq!(heard, b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\0\0\x0c\0\0\0\x04disk\0\x01\0\x03");
}

#[test]
fn the_client_claims_no_flag_that_the_server_lacks() {
    let (result, heard) = talk(&[greeting(1), export_info(512, 1), reply(1, b"")]);
    assert_eq!(result.unwrap().block_sizes, None);
    assert_eq!(heard[..4], [0, 0, 0, 1]);
}

#[test]
fn old_and_foreign_servers_are_refused() {
    let old = [b"NBDMAGIC".as_slice(), &0x0000_4202_8186_1253_u64.to_be_bytes(), &[0; 140]].concat();
    for speech in [old, greeting(0), greeting(2)] {
        assert_eq!(complaint(&[speech]), "the server does not speak the fixed newstyle NBD protocol");
    }
    let foreign = b"SSH-2.0-OpenSSH_9.2 and more than that".to_vec();
    assert_eq!(complaint(&[foreign]), "the server breaks the NBD protocol: no NBD greeting");
}

#[test]
fn refusals_carry_the_servers_words_bounded_and_clean() {
    let text = complaint(&[greeting(3), reply(0x8000_0006, b"export 'x'\n\x1b[31m not present")]);
    assert_eq!(text, "the server refused the export: no such export: export 'x'[31m not present");
    let text = complaint(&[greeting(3), reply(0x8000_0002, &[b'a'; 8000])]);
    assert_eq!(text.len(), "the server refused the export: refused by policy: ".len() + ERROR_TEXT_LIMIT);
    let text = complaint(&[greeting(3), reply(0xffff_ffff, b"\xff\xfe")]);
    assert!(text.contains("unknown error"), "{text}");
}

#[test]
fn lies_about_lengths_and_numbers_are_found() {
    let huge = [&reply(3, b"")[..16], &u32::MAX.to_be_bytes()].concat();
    let mut other_option = reply(1, b"");
    other_option[11] = 6;
    let cases = [
        (vec![huge], "answer of 4294967295 bytes"),
        (vec![other_option], "answer to option 6, which was not sent"),
        (vec![reply(1, b"")], "export accepted without its size"),
        (vec![reply(2, b"")], "unexpected answer 0x2"),
        (vec![reply(3, &[0, 0, 1])], "export information of 1 bytes"),
        (vec![reply(3, &[0, 3, 1])], "block sizes of 1 bytes"),
        (vec![export_info(1 << 63, 1)], "export of 9223372036854775808 bytes"),
        (vec![export_info(512, 0)], "export without transmission flags"),
        (vec![reply(3, &[0, 9]); 100], "no end of answers to one option"),
    ];
    for (replies, why) in cases {
        let speech = [vec![greeting(3)], replies].concat();
        assert_eq!(complaint(&speech), format!("the server breaks the NBD protocol: {why}"));
    }
    for (minimum, preferred, maximum) in
        [(0, 4096, 4096), (3, 4096, 4096), (8192, 4096, 8192), (1, 256, 512), (512, 512, 1)]
    {
        let text = complaint(&[greeting(3), block_info(minimum, preferred, maximum)]);
        assert!(text.contains("block sizes BlockSizes"), "{text}");
    }
}

#[test]
fn a_server_that_hangs_up_anywhere_is_a_broken_connection() {
    let whole = [greeting(3), block_info(1, 512, 512), export_info(512, 1), reply(1, b"")].concat();
    for end in 0..whole.len() {
        assert_eq!(complaint(&[whole[..end].to_vec()]), "the connection broke", "after {end} bytes");
    }
}

proptest! {
    #[test]
    fn any_speech_is_answered_without_panic(tail in proptest::collection::vec(any::<u8>(), 0..200), known in 0usize..3) {
        let head = match known {
            0 => Vec::new(),
            1 => greeting(3),
            _ => [greeting(3), export_info(512, 1)].concat(),
        };
        let _ = talk(&[head, tail]);
    }

    #[test]
    fn any_answer_is_taken_without_panic(kind in any::<u32>(), data in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = talk(&[greeting(3), reply(kind, &data), reply(1, b"")]);
    }
}
