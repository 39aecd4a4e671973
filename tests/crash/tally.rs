//! Trials side by side, and what they came to.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::check::State;

/// After so many trials that went wrong there is no use in going on.
const ENOUGH: usize = 5;

#[derive(Debug, Default)]
struct Row {
    tried: u32,
    states: BTreeMap<State, u32>,
    lost: u32,
    left: u32,
    slowest: Duration,
}

/// Counts by way and fault.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    rows: Mutex<BTreeMap<(String, String), Row>>,
    wrong: Mutex<Vec<String>>,
}

impl Tally {
    fn row(&self, way: &str, fault: &str, change: impl FnOnce(&mut Row)) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        change(rows.entry((way.into(), fault.into())).or_default());
    }

    /// One trial: first whether the host is clean, which says how long that took, then what the image is.
    pub(crate) fn trial(
        &self,
        (way, fault): (&str, &str),
        host: impl FnOnce() -> Duration,
        image: impl FnOnce() -> State,
    ) -> Option<State> {
        self.row(way, fault, |row| row.tried += 1);
        match catch_unwind(AssertUnwindSafe(host)) {
            Ok(took) => self.row(way, fault, |row| row.slowest = row.slowest.max(took)),
            Err(panic) => {
                self.row(way, fault, |row| row.left += 1);
                self.went_wrong(format!("{way}: {fault}: left behind: {}", message(&*panic)));
            }
        }
        match catch_unwind(AssertUnwindSafe(image)) {
            Ok(state) => {
                self.row(way, fault, |row| *row.states.entry(state).or_default() += 1);
                Some(state)
            }
            Err(panic) => {
                self.row(way, fault, |row| row.lost += 1);
                self.went_wrong(format!("{way}: {fault}: lost: {}", message(&*panic)));
                None
            }
        }
    }

    fn went_wrong(&self, what: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn is_enough(&self) -> bool {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).len() >= ENOUGH
    }

    /// How many ended in this state.
    pub(crate) fn count(&self, state: State) -> u32 {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.values().filter_map(|row| row.states.get(&state)).sum()
    }

    /// Prints the table and fails when anything went wrong.
    pub(crate) fn report(self) {
        println!(
            "| way | fault | tried | untouched | recovered | sealed | no record yet | in place | lost | left behind | last process gone after |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|");
        for ((way, fault), row) in self.rows.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let of = |state| row.states.get(&state).copied().unwrap_or_default();
            let states = [State::Untouched, State::Recovered, State::Sealed, State::Unrecorded, State::Open];
            let [untouched, recovered, sealed, unrecorded, open] = states.map(of);
            println!(
                "| {way} | {fault} | {} | {untouched} | {recovered} | {sealed} | {unrecorded} | {open} | {} | {} | {:.0?} |",
                row.tried, row.lost, row.left, row.slowest
            );
        }
        let wrong = self.wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
        assert!(wrong.is_empty(), "{} went wrong:\n{}", wrong.len(), wrong.join("\n\n"));
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Does the jobs on as many threads as there are processors; each thread has something of its own to work with.
pub(crate) fn share<J: Sync, T>(
    jobs: &[J],
    tally: &Tally,
    begin: impl Fn() -> T + Sync,
    work: impl Fn(&mut T, &J) + Sync,
) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().unwrap().get();
    std::thread::scope(|scope| {
        for _ in 0..threads.min(jobs.len()) {
            scope.spawn(|| {
                let mut own = begin();
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if tally.is_enough() {
                        break;
                    }
                    work(&mut own, job);
                }
            });
        }
    });
}
