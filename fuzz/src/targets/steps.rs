//! Steps as options write them, and the expressions of `--edit`.

use guestseal::operation::perl::Program;
use guestseal::operation::step_text::{StepOption, commands};

use crate::targets::check_error;

/// What expressions are tried on.
const CONTENT: &[u8] = b"# a line\nkey = \"value\"\r\n\n\xff end";

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(program) = Program::parse(text) {
        let _ = program.run(CONTENT);
    }
    for (_, name, value) in commands(text) {
        if let Some(Err(error)) = StepOption::named(&name).map(|option| option.actions(&value)) {
            check_error(&error);
        }
    }
}
