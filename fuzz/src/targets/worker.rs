//! What the confined worker may say to its parent once a guest has taken it over, and the parent's first message. The
//! first byte says who speaks and, with its second bit, whether the length before the message is as sent or made right.

use guestseal::worker::protocol::{
    Broken, FromWorker, MESSAGE_LIMIT, Start, ToWorker, read_message, write_message,
};

pub(crate) fn run(data: &[u8]) {
    let Some((which, data)) = data.split_first() else { return };
    let mut bytes = Vec::new();
    if which & 2 == 0 {
        let length = u32::try_from(data.len()).expect("inputs are small");
        bytes.extend(length.to_le_bytes());
    }
    bytes.extend(data);
    let mut input = &bytes[..];
    if which & 1 == 0 {
        while let Ok(message) = read_message::<FromWorker>(&mut input).inspect_err(check_broken) {
            said(message);
        }
    } else if let Ok(ToWorker::Start(start)) = read_message(&mut input).inspect_err(check_broken) {
        begun(&start);
    }
}

/// It may quote nothing of the message: that could be a password.
fn check_broken(broken: &Broken) {
    let shown = broken.to_string();
    assert!(shown.len() <= 200 && !shown.contains(char::is_control), "{shown:?}");
}

fn said(message: FromWorker) {
    let mut printed = Vec::new();
    write_message(&mut printed, &message).expect("it came as a message");
    assert!(printed.len() <= 4 + MESSAGE_LIMIT as usize);
    let again: FromWorker = read_message(&mut &printed[..]).expect("it was just written");
    assert_eq!(again, message);
    if let FromWorker::Failed(error) = message {
        let error = error.into_error();
        assert!(
            !matches!(error.kind(), guestseal::ErrorKind::Busy | guestseal::ErrorKind::Interrupted),
            "{error:?}"
        );
        let _ = error.chain();
    }
}

fn begun(start: &Start<'_>) {
    let mut printed = Vec::new();
    write_message(&mut printed, start).expect("it came as a message");
    let again: Start<'_> = read_message(&mut &printed[..]).expect("it was just written");
    let mut second = Vec::new();
    write_message(&mut second, &again).expect("it came as a message");
    assert_eq!(printed, second);
}
