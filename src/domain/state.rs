//! What a domain is doing, by what `virsh dominfo` prints in the C locale: pure.

#![forbid(unsafe_code)]

use crate::error::{Error, ErrorKind, Result};

/// What a domain is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// libvirt's word: `running`, `paused`, `shut off` …
    pub word: String,
    /// Whether its memory was saved, so that it goes on from there when it is started.
    pub saved: bool,
    /// Whether its definition stays when it is shut down.
    pub persistent: bool,
}

/// Reads what `virsh dominfo` prints.
///
/// # Errors
/// When it does not say what matters.
pub fn parse(text: &str) -> Result<State> {
    let value = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(key, _)| *key == name).map(|(_, value)| value.trim());
        values.next().filter(|value| !value.is_empty()).ok_or_else(|| {
            Error::failed(format!("virsh dominfo does not say what the domain is doing: {name} is missing"))
        })
    };
    Ok(State {
        word: value("State")?.to_owned(),
        saved: value("Managed save").is_ok_and(|word| word == "yes"),
        persistent: value("Persistent")? == "yes",
    })
}

impl State {
    /// Whether the guest has ended and nothing goes on from where it was.
    pub fn is_off(&self) -> bool {
        self.word == "shut off" && !self.saved
    }

    /// Whether it is in memory, whatever it is doing there.
    pub fn is_active(&self) -> bool {
        self.word != "shut off"
    }

    /// Whether it can be asked to shut down, or was asked already.
    pub fn can_shut_down(&self) -> bool {
        matches!(self.word.as_str(), "running" | "idle" | "in shutdown")
    }

    /// What it is doing, for people.
    pub fn describe(&self) -> &str {
        if self.saved && self.word == "shut off" { "saved in the middle of its work" } else { &self.word }
    }

    /// Refuses a domain that has not ended.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`], with what to do.
    pub fn must_be_off(&self, name: &str) -> Result<()> {
        if self.is_off() {
            return Ok(());
        }
        let hint = if self.saved && self.word == "shut off" {
            format!(
                "start it and shut it down (virsh start {name}), or throw away what it was doing: virsh managedsave-remove {name}"
            )
        } else if self.can_shut_down() {
            format!("have it shut down first: --shutdown, or virsh shutdown {name}")
        } else if self.word == "paused" {
            format!("let it go on, and shut it down: virsh resume {name}")
        } else {
            format!("shut it down first; virsh domstate --reason {name} tells more")
        };
        Err(Error::new(ErrorKind::Busy, format!("the domain {name} is {}", self.describe())).hint(hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(word: &str, saved: &str) -> State {
        parse(&format!(
            "Id:             1\nName:           web: State: paused\nState:          {word}\nCPU time:       17.2s\n\
             Persistent:     yes\nManaged save:   {saved}\n\n"
        ))
        .unwrap()
    }

    #[test]
    fn only_a_guest_that_has_ended_is_off() {
        state("shut off", "no").must_be_off("web").unwrap();
        for (word, saved, hint) in [
            ("running", "no", "--shutdown"),
            ("idle", "no", "--shutdown"),
            ("in shutdown", "no", "--shutdown"),
            ("paused", "no", "virsh resume web"),
            ("shut off", "yes", "virsh managedsave-remove web"),
            ("crashed", "no", "virsh domstate"),
            ("pmsuspended", "no", "virsh domstate"),
            ("running", "yes", "--shutdown"),
        ] {
            let error = state(word, saved).must_be_off("web").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Busy, "{word}");
            assert!(error.what_to_do().unwrap().contains(hint), "{word}: {error:?}");
        }
    }

    #[test]
    fn what_does_not_say_enough_is_no_state() {
        assert!(parse("").is_err());
        assert!(parse("State: \nPersistent: yes").is_err());
        assert!(parse("State: shut off").is_err());
        // Drivers that cannot save do not say whether they did.
        assert!(parse("State: shut off\nPersistent: yes").unwrap().is_off());
    }
}
