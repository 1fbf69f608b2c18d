//! Notices that a run goes wrong before its next checkpoint is written.

/// Weight of the newest interval in the running mean.
const NEWEST: f64 = 0.1;

/// Number of intervals after which a spike can be told from the fall of the first steps.
const WARM_UP: u32 = 5;

/// The running mean of the loss, and how far above it a loss may be.
#[derive(Debug, Clone)]
pub struct LossWatch {
    spike: f64,
    mean: Option<f64>,
    seen: u32,
}

impl LossWatch {
    /// Allows `spike` nats above the running mean, or anything if `spike` is 0.
    pub fn new(spike: f64) -> Self {
        LossWatch { spike, mean: None, seen: 0 }
    }

    /// Takes in the mean loss of an interval.
    ///
    /// Returns the running mean if the loss exceeds it by more than is allowed, or is not a number.
    pub fn exceeded(&mut self, loss: f64) -> Option<f64> {
        let mean = *self.mean.get_or_insert(loss);
        self.seen += 1;
        let spiked = self.spike > 0.0 && self.seen > WARM_UP && loss > mean + self.spike;
        if spiked || !loss.is_finite() {
            return Some(mean);
        }
        self.mean = Some(mean + NEWEST * (loss - mean));
        None
    }
}
