//! Whether sharing a step pays. This is found by measuring, because the shapes do not tell.
//!
//! **Small steps** ([`SmallSteps`]). To hand a tile to another core costs a cache line each way,
//! which takes 30 ns within a cluster of cores and 170 ns between clusters; and the host of a
//! virtual machine moves its cores about. The same step of 64-64-64-1 has been seen to take 9 µs
//! with two threads and, minutes later, 21; alone it takes 15. So small steps are timed both ways
//! in *trials*, and then run the way that is faster on average. The average and not the minimum:
//! what a shared step loses are waits for a core that something else was using, and the fastest of
//! a few steps has none.
//!
//! ```text
//! trial of one way        TRIAL steps, the first WARM_UP not counted
//! trial of the other way  likewise, if it was never measured; then the faster way is taken
//! period                  until the next trial of the other way; its mean time is looked at after
//!                         each WINDOW steps, and the other way taken if it was clearly faster
//! ```
//!
//! **Large steps** ([`LargeSteps`]) are worth sharing unless something else uses the other cores.
//! Then a helper is off its core for milliseconds at a time, with a tile that the caller waits for.
//! The caller's own tiles tell about how long it would take for all of them, so steps are computed
//! alone for comparison only where sharing them looks poor.
//!
//! ```text
//! shared ── looks poor ──▶ comparison ── alone was faster ──▶ alone, for some time
//!    ▲                         │                                      │
//!    ├── shared was faster ────┘ (and is not compared for some time)  │
//!    └────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The tiles are the same either way, and so are the bits.

use std::time::{Duration, Instant};

/// Steps of a trial. The first ones move the data into other caches and do not count.
const TRIAL: u32 = 24;
const WARM_UP: u32 = 3;

/// Steps between two trials, at least and at most. The period doubles each time that the result of
/// a trial did not hold, and halves each time that a trial confirms the way taken.
const MIN_PERIOD: u32 = 4096;
const MAX_PERIOD: u32 = 4 * MIN_PERIOD;

/// Steps over which the mean time of the way taken is watched. Other programs take a core for
/// milliseconds, which a trial may miss.
const WINDOW: u32 = 512;

/// The other way is taken between trials if its time is below this part of the present one: a
/// single interruption of the machine is no reason.
const CLEARLY_FASTER: f64 = 0.85;

/// Decides whether small steps are shared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SmallSteps {
    share: bool,
    in_trial: bool,
    /// Steps since this trial or period began.
    steps: u32,
    /// Steps that `sum` counts, and their time in any unit.
    counted: u32,
    sum: f64,
    /// The mean time of a step alone and shared, as last measured; infinite before.
    last_mean: [f64; 2],
    /// Steps from a trial to the next one.
    period: u32,
}

impl Default for SmallSteps {
    fn default() -> Self {
        Self {
            share: true,
            in_trial: true,
            steps: 0,
            counted: 0,
            sum: 0.0,
            last_mean: [f64::INFINITY; 2],
            period: MIN_PERIOD,
        }
    }
}

impl SmallSteps {
    /// Returns whether the next step is to be shared.
    pub(crate) fn share(&self) -> bool {
        self.share
    }

    /// Records the time of that step, divided by its work so that steps of unequal batches can be
    /// compared.
    pub(crate) fn record(&mut self, time: f64) {
        self.steps += 1;
        if !self.in_trial || self.steps > WARM_UP {
            self.sum += time;
            self.counted += 1;
        }
        if self.in_trial {
            if self.steps == TRIAL {
                self.end_trial();
            }
        } else if self.counted == WINDOW {
            self.end_window();
        }
    }

    fn mean(&self) -> f64 {
        self.sum / f64::from(self.counted)
    }

    /// Compares the two ways, or begins the trial of the way that was never measured.
    fn end_trial(&mut self) {
        self.last_mean[usize::from(self.share)] = self.mean();
        let [alone, shared] = self.last_mean;
        if alone.is_finite() && shared.is_finite() {
            let confirmed = self.share != (shared < alone);
            if confirmed {
                self.period = MIN_PERIOD.max(self.period / 2);
            }
            self.begin(shared < alone, false);
        } else {
            self.begin(!self.share, true);
        }
    }

    /// Takes the other way if that was clearly faster when last measured, or tries it at the end of
    /// the period.
    fn end_window(&mut self) {
        let (now, other) = (self.mean(), self.last_mean[usize::from(!self.share)]);
        self.last_mean[usize::from(self.share)] = now;
        (self.counted, self.sum) = (0, 0.0);
        if other < CLEARLY_FASTER * now {
            self.period = MAX_PERIOD.min(2 * self.period);
            self.begin(!self.share, false);
        } else if self.steps >= self.period {
            self.begin(!self.share, true);
        }
    }

    fn begin(&mut self, share: bool, in_trial: bool) {
        *self = Self { share, in_trial, steps: 0, counted: 0, sum: 0.0, ..*self };
    }
}

/// Large steps are judged over at least this time, in which other programs have come and gone.
const JUDGED_TIME: Duration = Duration::from_millis(40);

/// For how long the result of a comparison holds: at first, and at most. The time doubles with each
/// comparison in a row.
const MIN_VALIDITY: Duration = Duration::from_millis(200);
const MAX_VALIDITY: Duration = Duration::from_secs(3);

/// Sharing looks poor if the shared phases take more than this part of the time that the caller
/// alone would need: two free cores take little more than half.
const POOR: f64 = 0.7;

/// Decides whether large steps are shared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LargeSteps {
    mode: Mode,
    /// The steps that are being judged: their time, and their work in any unit.
    time: Duration,
    work: f64,
    /// The shared phases of these steps: their time, and the time that the caller alone would have
    /// taken, by the speed of its own tiles.
    shared: Duration,
    alone: Duration,
    /// For how long the result of the next comparison will hold.
    validity: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Mode {
    /// Shared; until `valid_until`, if given, however poor it looks.
    Shared { valid_until: Option<Instant> },
    /// Alone, to compare with shared steps that took `shared_time` for a unit of work.
    Comparison { shared_time: f64 },
    /// Alone, because that was faster.
    Alone { valid_until: Instant },
}

impl Default for LargeSteps {
    fn default() -> Self {
        let mode = Mode::Shared { valid_until: None };
        let zero = Duration::ZERO;
        Self { mode, time: zero, work: 0.0, shared: zero, alone: zero, validity: MIN_VALIDITY }
    }
}

impl LargeSteps {
    /// Returns whether a step that begins now is to be shared.
    pub(crate) fn share(&mut self, now: Instant) -> bool {
        if let Mode::Alone { valid_until } = self.mode
            && now >= valid_until
        {
            self.begin(Mode::Shared { valid_until: None });
        }
        matches!(self.mode, Mode::Shared { .. })
    }

    /// Records a shared phase, which took `total`: the caller ran `own` of its `tiles` tiles, and
    /// computed for the time `computing` before it waited for the others.
    pub(crate) fn record_phase(&mut self, computing: Duration, total: Duration, own: usize, tiles: usize) {
        if own > 0 {
            self.shared += total;
            self.alone += computing.mul_f64(tiles as f64 / own as f64);
        }
    }

    /// Records a step that has ended now, with its time and its work.
    pub(crate) fn record_step(&mut self, now: Instant, time: Duration, work: f64) {
        (self.time, self.work) = (self.time + time, self.work + work);
        if self.time < JUDGED_TIME {
            return;
        }
        let time_per_work = self.time.as_secs_f64() / self.work;
        match self.mode {
            Mode::Shared { valid_until: Some(until) } if now < until => self.begin(self.mode),
            Mode::Shared { .. } if self.shared > self.alone.mul_f64(POOR) => {
                self.begin(Mode::Comparison { shared_time: time_per_work });
            }
            Mode::Shared { .. } => {
                self.validity = MIN_VALIDITY.max(self.validity / 2);
                self.begin(Mode::Shared { valid_until: None });
            }
            Mode::Comparison { shared_time } => {
                let valid_until = now + self.validity;
                self.validity = MAX_VALIDITY.min(2 * self.validity);
                self.begin(match time_per_work < shared_time {
                    true => Mode::Alone { valid_until },
                    false => Mode::Shared { valid_until: Some(valid_until) },
                });
            }
            Mode::Alone { .. } => self.begin(self.mode),
        }
    }

    fn begin(&mut self, mode: Mode) {
        *self = Self { validity: self.validity, mode, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns how many of these steps are shared.
    fn shared(small: &mut SmallSteps, steps: u32, time: impl Fn(u32, bool) -> f64) -> u32 {
        let mut count = 0;
        for step in 0..steps {
            let share = small.share();
            count += u32::from(share);
            small.record(time(step, share));
        }
        count
    }

    fn constant([alone, shared]: [f64; 2]) -> impl Fn(u32, bool) -> f64 {
        move |_, share| if share { shared } else { alone }
    }

    #[test]
    fn small_steps_go_the_way_that_is_faster_and_follow_when_it_changes() {
        let mut small = SmallSteps::default();
        assert_eq!(shared(&mut small, 2 * TRIAL, constant([15.0, 21.0])), TRIAL, "both are tried");
        assert_eq!(shared(&mut small, MIN_PERIOD, constant([15.0, 21.0])), 0);
        // Now a trial finds the other way faster.
        assert_eq!(shared(&mut small, TRIAL, constant([15.0, 9.0])), TRIAL);
        assert_eq!(shared(&mut small, MIN_PERIOD, constant([15.0, 9.0])), MIN_PERIOD);
        assert_eq!(shared(&mut small, TRIAL, constant([15.0, 9.0])), 0);
        // Trials that change nothing are a small part of the steps.
        let steps = 100 * (MIN_PERIOD + TRIAL);
        assert_eq!(shared(&mut small, steps, constant([15.0, 9.0])), 100 * MIN_PERIOD);
    }

    /// A shared step is fast nine times in ten, and waits the tenth time.
    #[test]
    fn waits_count_however_rare_they_are() {
        let mut small = SmallSteps::default();
        let time = |step: u32, share: bool| match share {
            true if step.is_multiple_of(10) => 200.0,
            true => 9.0,
            false => 15.0,
        };
        shared(&mut small, 2 * TRIAL, time);
        assert_eq!(shared(&mut small, MIN_PERIOD, time), 0);
    }

    #[test]
    fn what_a_trial_has_missed_is_noticed() {
        let mut small = SmallSteps::default();
        shared(&mut small, 2 * TRIAL, constant([15.0, 9.0]));
        // The shared steps of a trial are always fast, and later ones are not.
        let mut row = 0;
        let mut count = 0;
        let steps = 40 * MIN_PERIOD;
        for _ in 0..steps {
            row = if small.share() { row + 1 } else { 0 };
            count += u32::from(small.share());
            small.record(if !small.share() {
                15.0
            } else if row <= TRIAL {
                9.0
            } else {
                40.0
            });
        }
        assert!(f64::from(count) < 0.05 * f64::from(steps), "{count} of {steps}");
    }

    /// Runs large steps of four tiles of 5 ms for some seconds. Returns their time, divided by the
    /// time of these steps alone.
    fn time_over_alone(wait: impl Fn(u32) -> Duration) -> f64 {
        let (tile, mut large, start) = (Duration::from_millis(5), LargeSteps::default(), Instant::now());
        let mut now = start;
        let steps = 2_000;
        for step in 0..steps {
            let time = if large.share(now) {
                let (computing, total) = (2 * tile, 2 * tile + wait(step));
                large.record_phase(computing, total, 2, 4);
                total
            } else {
                4 * tile
            };
            now += time;
            large.record_step(now, time, 1.0);
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
        // They are shared again when it is not.
        assert!(time_over_alone(|step| Duration::from_millis(if step < 500 { 20 } else { 0 })) < 0.7);
        // Sharing that is poor and still better is kept: 18 ms instead of 20.
        assert!(time_over_alone(|_| Duration::from_millis(8)) < 0.91);
    }
}
