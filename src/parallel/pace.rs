//! Does sharing a step pay? Found out by measuring, for it is not in the shapes.
//!
//! **Small steps** ([`Pace`]). To hand a tile to another core costs a cache line each way: 30 ns within a cluster of cores, 170 ns
//! between clusters, and a virtual machine's host moves its cores about. The same step of 64-64-64-1 has been seen to take
//! 9 µs with two threads and, minutes later, 21; alone it takes 15. So such steps are timed both ways now and then, and go the
//! way that is faster on average. The average and not the least time: what a shared step loses are waits for a core that
//! something else was using, and the least of some steps has none.
//!
//! **Large steps** ([`Balance`]) are worth sharing unless something else uses the other cores. Then a helper is off its core for
//! milliseconds at a time, with a tile that the caller waits for. The caller's own tiles tell about how long it would take for
//! all of them, so steps are made alone for comparison only where sharing them looks poor.
//!
//! The tiles are the same either way, and so are the bits.

use std::time::{Duration, Instant};

/// StepPolicy of a trial, of which the first ones move the data into other caches and do not count.
const TRIAL: u32 = 24;
const WARM_UP: u32 = 3;

/// StepPolicy between two trials, at the least; twice as many each time that what a trial found did not hold.
const PERIOD: u32 = 4096;
const LONGEST_PERIOD: u32 = 4 * PERIOD;

/// StepPolicy over which the way that is taken is watched. Other programs take a core for milliseconds, which a trial may miss.
const WINDOW: u32 = 512;

/// The way that is not taken has to look faster by this factor: a single interruption of the machine is no reason.
const CLEARLY: f64 = 0.85;

/// Which way small steps go, and how fast they went each way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    share: bool,
    trial: bool,
    /// StepPolicy of this trial or period so far, and those of them that are in `sum`.
    steps: u32,
    counted: u32,
    /// Time of the counted steps, in any unit.
    sum: f64,
    /// Mean time of a step alone, and shared, as last measured.
    known: [f64; 2],
    /// StepPolicy until the next trial.
    period: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { share: true, trial: true, steps: 0, counted: 0, sum: 0.0, known: [f64::INFINITY; 2], period: PERIOD }
    }
}

impl Pace {
    /// Is the next step to be shared?
    pub(crate) fn share(&self) -> bool {
        self.share
    }

    /// That step took this time, measured by its work so that steps of unequal batches can be compared.
    pub(crate) fn took(&mut self, time: f64) {
        self.steps += 1;
        if !self.trial || self.steps > WARM_UP {
            self.sum += time;
            self.counted += 1;
        }
        if self.trial {
            if self.steps == TRIAL {
                self.end_of_trial();
            }
        } else if self.counted == WINDOW {
            self.end_of_window();
        }
    }

    fn end_of_window(&mut self) {
        let (now, other) = (self.mean(), self.known[usize::from(!self.share)]);
        self.known[usize::from(self.share)] = now;
        (self.counted, self.sum) = (0, 0.0);
        if other < CLEARLY * now {
            self.period = LONGEST_PERIOD.min(2 * self.period);
            self.go(!self.share, false);
        } else if self.steps >= self.period {
            self.go(!self.share, true);
        }
    }

    fn mean(&self) -> f64 {
        self.sum / f64::from(self.counted)
    }

    fn end_of_trial(&mut self) {
        self.known[usize::from(self.share)] = self.mean();
        let [alone, shared] = self.known;
        if alone.is_finite() && shared.is_finite() {
            let back = self.share != (shared < alone);
            if back {
                self.period = PERIOD.max(self.period / 2);
            }
            self.go(shared < alone, false);
        } else {
            self.go(!self.share, true);
        }
    }

    fn go(&mut self, share: bool, trial: bool) {
        *self = Self { share, trial, steps: 0, counted: 0, sum: 0.0, ..*self };
    }
}

/// Large steps are judged over at least this much time, in which other programs have come and gone.
const JUDGED: Duration = Duration::from_millis(40);

/// For how long what a comparison has shown is believed, the first time and at the most: twice as long each time in a row that sharing
/// looks poor.
const FIRST_BELIEF: Duration = Duration::from_millis(200);
const LONGEST_BELIEF: Duration = Duration::from_secs(3);

/// Shared phases that take more than this part of the time that the caller alone would need are poor: two free cores take little
/// more than half.
const POOR: f64 = 0.7;

/// Do large steps go faster shared than alone?
#[derive(Debug, Clone, Copy)]
pub(crate) struct Balance {
    way: Way,
    /// Of the steps that are being judged: their time, and their work in any unit.
    time: Duration,
    work: f64,
    /// Of their shared phases: their time, and the time that the caller by itself would have taken, by its own tiles.
    shared: Duration,
    alone: Duration,
    belief: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    /// Shared; until then, if at all, however poor it looks.
    Shared { believed_until: Option<Instant> },
    /// Alone, to compare with shared steps that took this time for a unit of work.
    Comparison { shared: f64 },
    /// Alone, since that was faster.
    Alone { until: Instant },
}

impl Default for Balance {
    fn default() -> Self {
        let way = Way::Shared { believed_until: None };
        let zero = Duration::ZERO;
        Self { way, time: zero, work: 0.0, shared: zero, alone: zero, belief: FIRST_BELIEF }
    }
}

impl Balance {
    /// Is a step that begins now to be shared?
    pub(crate) fn share(&mut self, now: Instant) -> bool {
        if let Way::Alone { until } = self.way
            && now >= until
        {
            self.go(Way::Shared { believed_until: None });
        }
        matches!(self.way, Way::Shared { .. })
    }

    /// A phase has been shared: the caller ran `own` of `tiles` in the time `computing`, and the phase ended after `all`.
    pub(crate) fn phase(&mut self, computing: Duration, all: Duration, own: usize, tiles: usize) {
        if own > 0 {
            self.shared += all;
            self.alone += computing.mul_f64(tiles as f64 / own as f64);
        }
    }

    /// A step of this work has ended now and has taken this time.
    pub(crate) fn step(&mut self, now: Instant, time: Duration, work: f64) {
        (self.time, self.work) = (self.time + time, self.work + work);
        if self.time < JUDGED {
            return;
        }
        let took = self.time.as_secs_f64() / self.work;
        match self.way {
            Way::Shared { believed_until: Some(until) } if now < until => self.go(self.way),
            Way::Shared { .. } if self.shared > self.alone.mul_f64(POOR) => {
                self.go(Way::Comparison { shared: took });
            }
            Way::Shared { .. } => {
                self.belief = FIRST_BELIEF.max(self.belief / 2);
                self.go(Way::Shared { believed_until: None });
            }
            Way::Comparison { shared } => {
                let until = now + self.belief;
                self.belief = LONGEST_BELIEF.min(2 * self.belief);
                self.go(if took < shared { Way::Alone { until } } else { Way::Shared { believed_until: Some(until) } });
            }
            Way::Alone { .. } => self.go(self.way),
        }
    }

    fn go(&mut self, way: Way) {
        *self = Self { belief: self.belief, way, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of these steps go shared.
    fn shared(pace: &mut Pace, steps: u32, time: impl Fn(u32, bool) -> f64) -> u32 {
        let mut count = 0;
        for step in 0..steps {
            let share = pace.share();
            count += u32::from(share);
            pace.took(time(step, share));
        }
        count
    }

    fn constant([alone, shared]: [f64; 2]) -> impl Fn(u32, bool) -> f64 {
        move |_, share| if share { shared } else { alone }
    }

    #[test]
    fn small_steps_go_the_way_that_is_faster_and_follow_when_it_changes() {
        let mut pace = Pace::default();
        assert_eq!(shared(&mut pace, 2 * TRIAL, constant([15.0, 21.0])), TRIAL, "both are tried");
        assert_eq!(shared(&mut pace, PERIOD, constant([15.0, 21.0])), 0);
        // Now a trial finds the other faster.
        assert_eq!(shared(&mut pace, TRIAL, constant([15.0, 9.0])), TRIAL);
        assert_eq!(shared(&mut pace, PERIOD, constant([15.0, 9.0])), PERIOD);
        assert_eq!(shared(&mut pace, TRIAL, constant([15.0, 9.0])), 0);
        // What is tried for nothing is a small part.
        let steps = 100 * (PERIOD + TRIAL);
        assert_eq!(shared(&mut pace, steps, constant([15.0, 9.0])), 100 * PERIOD);
    }

    /// A shared step that is fast nine times in ten and waits in the tenth.
    #[test]
    fn waits_count_however_rare_they_are() {
        let mut pace = Pace::default();
        let time = |step: u32, share: bool| match share {
            true if step.is_multiple_of(10) => 200.0,
            true => 9.0,
            false => 15.0,
        };
        shared(&mut pace, 2 * TRIAL, time);
        assert_eq!(shared(&mut pace, PERIOD, time), 0);
    }

    #[test]
    fn what_a_trial_has_missed_is_noticed() {
        let mut pace = Pace::default();
        shared(&mut pace, 2 * TRIAL, constant([15.0, 9.0]));
        // The shared steps of a trial are always fast, and those of a longer time are not.
        let mut row = 0;
        let mut count = 0;
        let steps = 40 * PERIOD;
        for _ in 0..steps {
            row = if pace.share() { row + 1 } else { 0 };
            count += u32::from(pace.share());
            pace.took(if !pace.share() {
                15.0
            } else if row <= TRIAL {
                9.0
            } else {
                40.0
            });
        }
        assert!(f64::from(count) < 0.05 * f64::from(steps), "{count} of {steps}");
    }

    /// Runs large steps of four tiles of 5 ms for some seconds. Returns the time, over that of the same steps alone.
    fn time_over_alone(wait: impl Fn(u32) -> Duration) -> f64 {
        let (tile, mut balance, start) = (Duration::from_millis(5), Balance::default(), Instant::now());
        let mut now = start;
        let steps = 2_000;
        for step in 0..steps {
            let time = if balance.share(now) {
                let (computing, all) = (2 * tile, 2 * tile + wait(step));
                balance.phase(computing, all, 2, 4);
                all
            } else {
                4 * tile
            };
            now += time;
            balance.step(now, time, 1.0);
        }
        (now - start).as_secs_f64() / (4 * tile * steps).as_secs_f64()
    }

    #[test]
    fn large_steps_are_shared_while_the_cores_are_free() {
        assert_eq!(time_over_alone(|_| Duration::ZERO), 0.5);
        assert!(time_over_alone(|step| Duration::from_millis(if step % 5 == 0 { 3 } else { 0 })) < 0.54);
    }

    #[test]
    fn large_steps_go_alone_while_a_helper_is_kept_from_its_core() {
        assert!(time_over_alone(|_| Duration::from_millis(20)) < 1.02);
        // And are shared again when it is not.
        assert!(time_over_alone(|step| Duration::from_millis(if step < 500 { 20 } else { 0 })) < 0.7);
        // What is poor and still better is kept up: 18 ms for 20.
        assert!(time_over_alone(|_| Duration::from_millis(8)) < 0.91);
    }
}
