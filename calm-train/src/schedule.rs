use crate::config::{Curve, ScheduleConfig};

/// Factor in [0,1] on the largest learning rate at a step counted from 1.
pub fn learning_rate_factor(schedule: &ScheduleConfig, step: u64) -> f64 {
    if step <= schedule.warmup_steps {
        return step as f64 / schedule.warmup_steps as f64;
    }
    match schedule.curve {
        Curve::Cosine => {
            let rest = (schedule.steps - schedule.warmup_steps).max(1) as f64;
            let progress = ((step - schedule.warmup_steps) as f64 / rest).min(1.0);
            0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
        }
        Curve::Stable => {
            // The step after the last one would have the factor 0.
            let remaining = (schedule.steps + 1).saturating_sub(step) as f64;
            (remaining / (schedule.decay_steps + 1) as f64).min(1.0)
        }
        Curve::InverseSqrt => (schedule.warmup_steps.max(1) as f64 / step as f64).sqrt(),
    }
}
