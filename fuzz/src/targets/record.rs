//! The record of a sealing.

use guestseal::record::parse;

use crate::targets::check_error;

pub(crate) fn run(data: &[u8]) {
    let record = match parse(data) {
        Ok(record) => record,
        Err(error) => return check_error(&error),
    };
    let printed = serde_json::to_vec_pretty(&record).expect("a record can be written");
    let again = parse(&printed).unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!(serde_json::to_vec_pretty(&again).expect("a record can be written"), printed);
}
