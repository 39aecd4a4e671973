//! Asking a guest to shut down, and waiting until it has. Nobody pulls its plug.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use super::Domain;
use super::state::State;
use crate::error::{Error, ErrorKind, Result};
use crate::report::{Event, Observer};

/// The longest wait for one event. One that came just before virsh listened is made up for by asking after this.
const ONE_WAIT: Duration = Duration::from_secs(5);

impl Domain {
    /// Asks the guest to shut down and waits for its end, which libvirt tells as an event.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when it does not end within `patience`; [`ErrorKind::Unsupported`] for a domain that would be
    /// gone then.
    pub(super) fn shut_down(
        &self,
        state: &State,
        patience: Duration,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let (name, uuid) = (&self.identity.name, self.identity.uuid.as_str());
        if !state.persistent {
            let what = format!("the domain {name} is transient: it would be gone when it is shut down");
            return Err(Error::unsupported(what)
                .hint(format!("keep its definition first: virsh dumpxml {name} >FILE, virsh define FILE")));
        }
        let seconds = patience.as_secs();
        let started = Instant::now();
        self.libvirt.ask(&["shutdown"], &[uuid])?;
        observer
            .event(Event::Told(&format!("asked the domain {name} to shut down; waiting up to {seconds} s")));
        while self.state()?.can_shut_down() {
            let left = patience.saturating_sub(started.elapsed());
            if left.is_zero() {
                let what = format!("the domain {name} did not shut down within {seconds} s");
                return Err(Error::new(ErrorKind::Busy, what).hint(
                    "shut it down from inside, or give it longer: --shutdown-timeout SECONDS; nothing was changed",
                ));
            }
            self.libvirt.event(uuid, "lifecycle", left.min(ONE_WAIT))?;
        }
        observer.event(Event::Told(&format!(
            "the domain {name} has shut down after {:.1} s",
            started.elapsed().as_secs_f64()
        )));
        Ok(())
    }
}
