use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The learning rate over the steps, which is a linear warm-up and then a curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Number of steps in all.
    pub steps: u64,
    /// Number of steps of linear warm-up.
    pub warmup_steps: u64,
    /// The curve after the warm-up.
    #[serde(default)]
    pub curve: Curve,
    /// Number of steps of the final linear decay of the `stable` curve.
    #[serde(default)]
    pub decay_steps: u64,
    /// Where the cosine and the final decay of the `stable` curve end.
    ///
    /// It is a fraction in `[0,1]` of the largest learning rate.
    #[serde(default)]
    pub min_factor: f64,
}

/// The shape of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Curve {
    /// Half a cosine down to `min_factor`, which the last step has.
    #[default]
    Cosine,
    /// A constant, then a linear decay over the last `decay_steps` to `min_factor`.
    ///
    /// The step after the last one would have `min_factor`. The constant part is the same for every `steps`,
    /// so a run can be lengthened.
    Stable,
    /// The inverse square root of the step, sqrt(warmup_steps / step) (Raffel et al. 2020, section 3.1.2).
    InverseSqrt,
}

/// Computes the factor in `[0,1]` on the largest learning rate, at a step counted from 1.
pub fn learning_rate_factor(schedule: &ScheduleConfig, step: u64) -> f64 {
    let ScheduleConfig { steps, warmup_steps, curve, decay_steps, min_factor } = *schedule;
    if step <= warmup_steps {
        return step as f64 / warmup_steps as f64;
    }
    let above_minimum = |fraction: f64| min_factor + (1.0 - min_factor) * fraction;
    match curve {
        Curve::Cosine => {
            let rest = (steps - warmup_steps).max(1) as f64;
            let progress = ((step - warmup_steps) as f64 / rest).min(1.0);
            above_minimum(0.5 * (1.0 + (std::f64::consts::PI * progress).cos()))
        }
        Curve::Stable => {
            let remaining = (steps + 1).saturating_sub(step) as f64;
            above_minimum((remaining / (decay_steps + 1) as f64).min(1.0))
        }
        Curve::InverseSqrt => (warmup_steps.max(1) as f64 / step as f64).sqrt(),
    }
}

/// Shortens a schedule so that a run ends within a given time, whatever the speed of the machine.
#[derive(Debug, Clone)]
pub struct Pace {
    limit: Duration,
    configured: ScheduleConfig,
    /// The schedule in force.
    schedule: ScheduleConfig,
    /// Number of steps done and time passed when the measurement of the speed began.
    ///
    /// The first steps are slow, and would shorten the schedule so much that the warm-up ended at once.
    measured_from: Option<(u64, Duration)>,
}

impl Pace {
    /// Starts a run that may take the time `limit`.
    pub fn new(configured: ScheduleConfig, limit: Duration) -> Self {
        Pace { limit, configured, schedule: configured, measured_from: None }
    }

    /// Returns the schedule in force after step `step`, at the time `elapsed` since the start.
    ///
    /// It changes from the second call on, until the final decay begins.
    pub fn schedule(&mut self, step: u64, elapsed: Duration) -> ScheduleConfig {
        let (from, since) = *self.measured_from.get_or_insert((step, elapsed));
        let seconds = elapsed.saturating_sub(since).as_secs_f64();
        let ScheduleConfig { steps, decay_steps, .. } = self.schedule;
        let decays = decay_steps > 0 && step + decay_steps > steps;
        if !decays && seconds > 0.0 {
            let steps_left =
                self.limit.saturating_sub(elapsed).as_secs_f64() / seconds * (step - from) as f64;
            self.schedule = self.configured.shortened(step.saturating_add(steps_left as u64));
        }
        self.schedule
    }
}

impl ScheduleConfig {
    /// Returns the schedule with at most `steps` steps, in which warm-up and final decay keep their shares.
    #[must_use]
    pub fn shortened(&self, steps: u64) -> Self {
        let steps = steps.min(self.steps);
        let share = |part: u64| (part as f64 * steps as f64 / self.steps.max(1) as f64) as u64;
        let (warmup_steps, decay_steps) = (share(self.warmup_steps), share(self.decay_steps));
        ScheduleConfig { steps, warmup_steps, decay_steps, ..*self }
    }

    /// Finds the first key whose value makes no sense, and says why.
    pub(crate) fn check(&self) -> Result<(), (String, String)> {
        let fail = |key: &str, reason: String| Err((format!("schedule.{key}"), reason));
        let ScheduleConfig { steps, warmup_steps, curve, decay_steps, min_factor } = *self;
        if decay_steps > 0 && curve != Curve::Stable {
            return fail("decay_steps", "has a meaning for the stable curve alone".to_owned());
        }
        if warmup_steps.saturating_add(decay_steps) > steps {
            return fail("steps", format!("is {steps}, but warmup_steps and decay_steps are more together"));
        }
        if !(0.0..=1.0).contains(&min_factor) {
            return fail("min_factor", format!("is {min_factor}, but must be at least 0 and at most 1"));
        }
        if min_factor > 0.0 && curve == Curve::InverseSqrt {
            return fail(
                "min_factor",
                "has no meaning for the inverse-sqrt curve, which has no end".to_owned(),
            );
        }
        Ok(())
    }
}
