//! How long each stage of a run took: an observer that measures what it passes on.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::report::{Event, Observer, Stage};

/// A stage that is over.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Phase {
    /// Which it was.
    pub name: Stage,
    /// How long it took.
    pub seconds: f64,
}

/// Tells another observer everything, and keeps the times of stages. Each ends where the next begins.
#[expect(missing_debug_implementations, reason = "an observer has none")]
pub struct Timed<'a> {
    to: &'a mut dyn Observer,
    over: Vec<Phase>,
    now: (Stage, Instant),
}

impl<'a> Timed<'a> {
    /// Begins with a stage.
    pub fn new(stage: Stage, to: &'a mut dyn Observer) -> Self {
        to.event(Event::Stage(stage));
        Self { to, over: Vec::new(), now: (stage, Instant::now()) }
    }

    /// Ends the last stage, and gives all of them in the order in which they came first. One that came again is one.
    pub fn phases(mut self) -> Vec<Phase> {
        self.end(Instant::now());
        self.over
    }

    fn end(&mut self, at: Instant) {
        let (name, begun) = self.now;
        let seconds = at.saturating_duration_since(begun).as_secs_f64();
        match self.over.iter_mut().find(|phase| phase.name == name) {
            Some(phase) => phase.seconds += seconds,
            None => self.over.push(Phase { name, seconds }),
        }
    }

    fn begin(&mut self, stage: Stage, ago: Duration) {
        let at = Instant::now().checked_sub(ago).map_or(self.now.1, |at| at.max(self.now.1));
        self.end(at);
        self.now = (stage, at);
    }
}

impl Observer for Timed<'_> {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Stage(stage) => self.begin(stage, Duration::ZERO),
            Event::StageBegan { stage, ago } => self.begin(stage, ago),
            _ => {}
        }
        self.to.event(event);
    }

    fn wants_changes(&self) -> bool {
        self.to.wants_changes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Silent;

    #[test]
    fn stages_follow_each_other_without_a_gap() {
        let mut silent = Silent;
        let started = Instant::now();
        let mut timed = Timed::new(Stage::Attaching, &mut silent);
        while started.elapsed() < Duration::from_millis(30) {}
        timed.event(Event::StageBegan { stage: Stage::Mounting, ago: Duration::from_millis(20) });
        timed.event(Event::Stage(Stage::Attaching));
        // Longer ago than the stage before: that took no time.
        timed.event(Event::StageBegan { stage: Stage::Applying, ago: Duration::from_secs(3600) });
        let phases = timed.phases();
        let took = started.elapsed().as_secs_f64();
        let names: Vec<_> = phases.iter().map(|phase| phase.name).collect();
        assert_eq!(names, [Stage::Attaching, Stage::Mounting, Stage::Applying]);
        assert!(phases[1].seconds >= 0.02, "{phases:?}");
        let sum: f64 = phases.iter().map(|phase| phase.seconds).sum();
        assert!((sum - took).abs() < 0.01, "{phases:?} in {took} s");
    }
}
