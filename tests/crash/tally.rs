//! Trials side by side, and what they came to.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::check::{State, Trial};
use crate::traces::Traces;

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

    /// One trial, after its run has ended: whether the host is clean, and what the image is.
    pub(crate) fn trial(
        &self,
        fault: &str,
        (trial, session): (&Trial<'_>, i32),
        image: impl FnOnce() -> State,
    ) -> Option<State> {
        let way = &trial.reference.mode.name();
        self.row(way, fault, |row| row.tried += 1);
        let seen = self.caught((way, fault), "left behind", || Traces::of(session, trial.stage.folder()));
        let state = self.caught((way, fault), "lost", image);
        // Last, because runs beside this one have gone on meanwhile.
        let gone = seen.and_then(|(traces, took)| {
            self.caught((way, fault), "left behind", || traces.are_gone())?;
            Some(took)
        });
        self.row(way, fault, |row| {
            match state {
                Some(state) => *row.states.entry(state).or_default() += 1,
                None => row.lost += 1,
            }
            match gone {
                Some(took) => row.slowest = row.slowest.max(took),
                None => row.left += 1,
            }
        });
        state
    }

    /// Does work, of which a failure is kept for the report.
    pub(crate) fn caught<T>(
        &self,
        (way, fault): (&str, &str),
        what: &str,
        work: impl FnOnce() -> T,
    ) -> Option<T> {
        catch_unwind(AssertUnwindSafe(work))
            .map_err(|panic| self.went_wrong(format!("{way}: {fault}: {what}: {}", message(&*panic))))
            .ok()
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
