//! Does sharing a step pay? Found out by measuring, for it is not in the shapes.
//!
//! **Small steps** ([`Pace`]). To hand a tile to another core costs a cache line each way: 30 ns within a cluster of cores, 170 ns
//! between clusters, and a virtual machine's host moves its cores about. The same step of 64-64-64-1 has been seen to take
//! 9 µs with two threads and, minutes later, 21; alone it takes 15. So such steps are timed both ways now and then, and go the
//! way that is faster on average. The average and not the least time: what a shared step loses are waits for a core that
//! something else was using, and the least of some steps has none.
//!
//! **Large steps** ([`Balance`]) are worth sharing unless something else uses the other cores. Then a helper is off its core for
//! milliseconds at a time, with a tile that the caller waits for. The caller's own tiles tell how long it would take for
//! all of them, so no step has to be made alone for comparison.
//!
//! The tiles are the same either way, and so are the bits.

use std::time::{Duration, Instant};

/// Steps of a trial, of which the first ones move the data into other caches and do not count.
const TRIAL: u32 = 24;
const WARM_UP: u32 = 3;

/// Steps between two trials.
const PERIOD: u32 = 4096;

/// Steps over which the way that is taken is watched. A mean that is another by this factor brings the next trial forward.
const WINDOW: u32 = 128;
const ANOTHER: f64 = 1.25;

/// Which way small steps go, and how fast they went each way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    share: bool,
    trial: bool,
    /// Steps of this trial or period so far, and those of them that are in `sum`.
    steps: u32,
    counted: u32,
    /// Time of the counted steps, in any unit.
    sum: f64,
    /// Mean time of a step alone, and shared, as last measured.
    known: [f64; 2],
}

impl Default for Pace {
    fn default() -> Self {
        Self { share: true, trial: true, steps: 0, counted: 0, sum: 0.0, known: [f64::INFINITY; 2] }
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
            let (now, known) = (self.mean(), self.known[usize::from(self.share)]);
            if self.steps >= PERIOD || now > ANOTHER * known || known > ANOTHER * now {
                self.known[usize::from(self.share)] = now;
                self.go(!self.share, true);
            } else {
                (self.counted, self.sum) = (0, 0.0);
            }
        }
    }

    fn mean(&self) -> f64 {
        self.sum / f64::from(self.counted)
    }

    fn end_of_trial(&mut self) {
        self.known[usize::from(self.share)] = self.mean();
        let [alone, shared] = self.known;
        if alone.is_finite() && shared.is_finite() {
            self.go(shared < alone, false);
        } else {
            self.go(!self.share, true);
        }
    }

    fn go(&mut self, share: bool, trial: bool) {
        *self = Self { share, trial, steps: 0, counted: 0, sum: 0.0, known: self.known };
    }
}

/// A verdict on large steps is given over at least this much time.
const JUDGED: Duration = Duration::from_millis(20);

/// How long they go alone after the first verdict against sharing, and at the most: each further one in a row doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Sharing has to save this part of a step's time.
const LEAST_GAIN: f64 = 0.03;

/// Do large steps go faster shared than they would alone?
#[derive(Debug, Clone, Copy)]
pub(crate) struct Balance {
    /// Since the last verdict: the time of the shared phases, and the time that the caller alone would have taken for them.
    shared: Duration,
    alone: Duration,
    /// Until when steps go alone, and for how long after the next verdict against sharing.
    alone_until: Option<Instant>,
    pause: Duration,
}

impl Default for Balance {
    fn default() -> Self {
        Self { shared: Duration::ZERO, alone: Duration::ZERO, alone_until: None, pause: FIRST_PAUSE }
    }
}

impl Balance {
    /// Is a step that begins now to be shared?
    pub(crate) fn share(&mut self, now: Instant) -> bool {
        match self.alone_until {
            Some(until) if now < until => false,
            _ => {
                self.alone_until = None;
                true
            }
        }
    }

    /// A phase has been shared: the caller ran `own` of `tiles` in the time `computing`, and the phase ended after `all`.
    pub(crate) fn phase(&mut self, computing: Duration, all: Duration, own: usize, tiles: usize) {
        if own > 0 {
            self.shared += all;
            self.alone += computing.mul_f64(tiles as f64 / own as f64);
        }
    }

    /// A shared step has ended: time for a verdict?
    pub(crate) fn step(&mut self, now: Instant) {
        if self.shared < JUDGED {
            return;
        }
        if self.shared > self.alone.mul_f64(1.0 - LEAST_GAIN) {
            self.alone_until = Some(now + self.pause);
            self.pause = LONGEST_PAUSE.min(2 * self.pause);
        } else {
            self.pause = FIRST_PAUSE;
        }
        (self.shared, self.alone) = (Duration::ZERO, Duration::ZERO);
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
    fn small_steps_that_become_slower_are_tried_again_soon() {
        let mut pace = Pace::default();
        shared(&mut pace, 2 * TRIAL, constant([15.0, 9.0]));
        assert!(shared(&mut pace, PERIOD, constant([15.0, 40.0])) <= WINDOW + TRIAL);
    }

    /// Runs large steps of four tiles of 5 ms for some seconds. Returns the time, over that of the same steps alone.
    fn time_over_alone(wait: impl Fn(u32) -> Duration) -> f64 {
        let (tile, mut balance, start) = (Duration::from_millis(5), Balance::default(), Instant::now());
        let mut now = start;
        let steps = 2_000;
        for step in 0..steps {
            if balance.share(now) {
                let (computing, all) = (2 * tile, 2 * tile + wait(step));
                now += all;
                balance.phase(computing, all, 2, 4);
                balance.step(now);
            } else {
                now += 4 * tile;
            }
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
    }
}
