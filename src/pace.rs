//! Does sharing small steps pay? Found out by trying.
//!
//! What it costs to hand a tile to another core is not in the shapes: a cache line goes from core to core in 30 ns within a
//! cluster of them and in 170 ns between clusters, and a virtual machine's host moves its cores about. The same step of
//! 64-64-64-1 has been seen to take 9 µs with two threads and, minutes later, 21; alone it takes 15. So such steps are timed
//! both ways now and then, and go the way that is faster. The tiles are the same, and so are the bits.

/// Steps of a trial, of which the first ones move the data into other caches and do not count.
const TRIAL: u32 = 8;
const WARM_UP: u32 = 2;

/// Steps between two trials.
const PERIOD: u32 = 2048;

/// Which way steps go, and how fast they went each way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    share: bool,
    trial: bool,
    /// Steps of this trial or period so far, and the least time of one, in any unit.
    steps: u32,
    least: f64,
    /// The same of the last trial or period alone, and shared.
    known: [f64; 2],
}

impl Default for Pace {
    fn default() -> Self {
        Self { share: true, trial: true, steps: 0, least: f64::INFINITY, known: [f64::INFINITY; 2] }
    }
}

impl Pace {
    /// Is the next step to be shared?
    pub(crate) fn share(&self) -> bool {
        self.share
    }

    /// That step took so long, measured by its work so that steps of unequal batches can be compared. The least of some is
    /// what counts: whatever else the machine does makes a step longer.
    pub(crate) fn took(&mut self, time: f64) {
        self.steps += 1;
        if self.steps > WARM_UP {
            self.least = self.least.min(time);
        }
        if self.steps < if self.trial { TRIAL } else { PERIOD } {
            return;
        }
        self.known[usize::from(self.share)] = self.least;
        let [alone, shared] = self.known;
        let both_known = alone.is_finite() && shared.is_finite();
        if self.trial && both_known {
            (self.share, self.trial) = (shared < alone, false);
        } else {
            (self.share, self.trial) = (!self.share, true);
        }
        (self.steps, self.least) = (0, f64::INFINITY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps that went shared, of so many.
    fn shared(pace: &mut Pace, steps: u32, [alone, shared]: [f64; 2]) -> u32 {
        let mut count = 0;
        for step in 0..steps {
            let hiccup = if step % 7 == 0 { 50.0 } else { 0.0 };
            count += u32::from(pace.share());
            pace.took(if pace.share() { shared } else { alone } + hiccup);
        }
        count
    }

    #[test]
    fn steps_go_the_way_that_is_faster_and_follow_when_it_changes() {
        let mut pace = Pace::default();
        assert_eq!(shared(&mut pace, 2 * TRIAL, [15.0, 21.0]), TRIAL, "both are tried");
        assert_eq!(shared(&mut pace, PERIOD, [15.0, 21.0]), 0);
        // Now a trial finds the other faster.
        assert_eq!(shared(&mut pace, TRIAL, [15.0, 9.0]), TRIAL);
        assert_eq!(shared(&mut pace, PERIOD, [15.0, 9.0]), PERIOD);
        assert_eq!(shared(&mut pace, TRIAL, [15.0, 9.0]), 0);
        // What is tried for nothing is a small part.
        let steps = 100 * (PERIOD + TRIAL);
        assert_eq!(shared(&mut pace, steps, [15.0, 9.0]), 100 * PERIOD);
    }
}
