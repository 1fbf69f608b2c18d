use std::f64::consts::PI;
use std::time::Duration;

use calm_train::{Curve, Pace, ScheduleConfig, learning_rate_factor};
use proptest::prelude::*;

fn factors(curve: Curve, steps: u64, warmup_steps: u64, decay_steps: u64) -> Vec<f64> {
    factors_of(ScheduleConfig { steps, warmup_steps, curve, decay_steps, min_factor: 0.0 })
}

fn factors_of(schedule: ScheduleConfig) -> Vec<f64> {
    (1..=schedule.steps).map(|step| learning_rate_factor(&schedule, step)).collect()
}

/// Generates schedules that a configuration may ask for.
fn any_schedule() -> impl Strategy<Value = ScheduleConfig> {
    let curves = prop_oneof![Just(Curve::Cosine), Just(Curve::Stable), Just(Curve::InverseSqrt)];
    let minimum = prop_oneof![Just(0.0), Just(1.0), 0.0..1.0];
    (curves, 0u64..60, 0u64..60, 0u64..60, minimum).prop_map(|(curve, warmup, decay, rest, minimum)| {
        ScheduleConfig {
            steps: (warmup + decay + rest).max(1),
            warmup_steps: warmup,
            curve,
            decay_steps: if curve == Curve::Stable { decay } else { 0 },
            min_factor: if curve == Curve::InverseSqrt { 0.0 } else { minimum },
        }
    })
}

/// Computes how much neighbouring steps of the curve after the warm-up can differ at most.
fn steepest(schedule: &ScheduleConfig) -> f64 {
    let height = 1.0 - schedule.min_factor;
    match schedule.curve {
        Curve::Cosine => height * PI / 2.0 / (schedule.steps - schedule.warmup_steps).max(1) as f64,
        Curve::Stable => height / (schedule.decay_steps + 1) as f64,
        Curve::InverseSqrt => 0.5 / schedule.warmup_steps.max(1) as f64,
    }
}

#[track_caller]
fn check(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12);
    assert!(close, "{found:?}\ninstead of {expected:?}");
}

#[test]
fn curves() {
    let half = 0.5f64.sqrt();
    check(
        &factors(Curve::Cosine, 8, 4, 0),
        &[0.25, 0.5, 0.75, 1.0, (1.0 + half) / 2.0, 0.5, (1.0 - half) / 2.0, 0.0],
    );
    check(&factors(Curve::Stable, 8, 2, 3), &[0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]);
    check(&factors(Curve::Stable, 4, 0, 0), &[1.0; 4]);
    check(&factors(Curve::InverseSqrt, 4, 1, 0), &[1.0, half, (1f64 / 3.0).sqrt(), 0.5]);
    check(&factors(Curve::InverseSqrt, 8, 2, 0)[..4], &[0.5, 1.0, (2f64 / 3.0).sqrt(), half]);
    check(&factors(Curve::Cosine, 2, 2, 0), &[0.5, 1.0]);
}

#[test]
fn curves_end_at_the_least_factor() {
    let schedule =
        |curve| ScheduleConfig { steps: 8, warmup_steps: 2, curve, decay_steps: 0, min_factor: 0.2 };
    let cosine = factors_of(schedule(Curve::Cosine));
    check(&[cosine[0], cosine[1], cosine[4], cosine[7]], &[0.5, 1.0, 0.6, 0.2]);
    let stable = factors_of(ScheduleConfig { decay_steps: 3, ..schedule(Curve::Stable) });
    check(&stable, &[0.5, 1.0, 1.0, 1.0, 1.0, 0.8, 0.6, 0.4]);
}

proptest! {
    #[test]
    fn every_factor_is_a_fraction_that_falls_after_the_warmup(schedule in any_schedule()) {
        let found = factors_of(schedule);
        prop_assert!(found.iter().all(|factor| (0.0..=1.0).contains(factor)), "{found:?}");
        let (rise, fall) = found.split_at(schedule.warmup_steps as usize);
        prop_assert!(rise.windows(2).all(|pair| pair[0] < pair[1]), "{found:?}");
        prop_assert!(fall.windows(2).all(|pair| pair[0] >= pair[1]), "{found:?}");
        prop_assert!(fall.iter().all(|&factor| factor >= schedule.min_factor - 1e-12), "{found:?}");
    }

    /// The law includes the step from the end of the warm-up to the first of the curve.
    ///
    /// The end of the warm-up has the whole learning rate.
    #[test]
    fn nothing_jumps(schedule in any_schedule()) {
        let found = factors_of(schedule);
        let (rise, fall) = found.split_at(schedule.warmup_steps as usize);
        let warmup = 1.0 / schedule.warmup_steps.max(1) as f64;
        let rises = [0.0].iter().chain(rise).zip(rise);
        for (before, after) in rises {
            prop_assert!((after - before - warmup).abs() < 1e-12, "{before} to {after} in {found:?}");
        }
        let falls = [1.0].iter().chain(fall).zip(fall);
        for (before, after) in falls.skip(usize::from(schedule.warmup_steps == 0)) {
            prop_assert!(before - after <= steepest(&schedule) + 1e-12, "{before} to {after} in {found:?}");
        }
        if let Some(&top) = rise.last() {
            prop_assert_eq!(top, 1.0);
        }
    }

    #[test]
    fn the_last_step_of_a_cosine_has_the_least_factor(schedule in any_schedule()) {
        let schedule = ScheduleConfig { curve: Curve::Cosine, decay_steps: 0, ..schedule };
        prop_assume!(schedule.steps > schedule.warmup_steps);
        let last = learning_rate_factor(&schedule, schedule.steps);
        prop_assert!((last - schedule.min_factor).abs() < 1e-12, "{last}");
    }

    /// Compares with T5's 1 / sqrt(max(step, warmup)), relative to its largest value (Raffel et al. 2020,
    /// section 3.1.2).
    #[test]
    fn the_inverse_square_root_is_that_of_t5(warmup in 1u64..20_000, after in 0u64..1_000_000) {
        let step = warmup + after;
        let schedule = ScheduleConfig {
            steps: step,
            warmup_steps: warmup,
            curve: Curve::InverseSqrt,
            decay_steps: 0,
            min_factor: 0.0,
        };
        let t5 = |step: u64| 1.0 / (step.max(warmup) as f64).sqrt();
        let found = learning_rate_factor(&schedule, step);
        prop_assert!((found - t5(step) / t5(warmup)).abs() < 1e-12, "{found}");
    }
}

/// Because of this, a run can be lengthened from a checkpoint before its decay.
#[test]
fn the_stable_part_does_not_depend_on_the_number_of_steps() {
    let (short, long) = (factors(Curve::Stable, 40, 10, 15), factors(Curve::Stable, 400, 10, 15));
    assert_eq!(short[..25], long[..25]);
    assert!(short[25] < long[25]);
}

/// Simulates a run with a time limit, which measures every 20 steps.
///
/// Returns its factors and the time it took, in seconds.
fn limited_run(
    schedule: ScheduleConfig,
    limit: f64,
    seconds_of_step: impl Fn(u64) -> f64,
) -> (Vec<f64>, f64) {
    let mut pace = Pace::new(schedule, Duration::from_secs_f64(limit));
    let (mut in_force, mut step, mut elapsed, mut factors) = (schedule, 0, 0.0, Vec::new());
    while step < in_force.steps {
        step += 1;
        elapsed += seconds_of_step(step);
        factors.push(learning_rate_factor(&in_force, step));
        if step % 20 == 0 {
            in_force = pace.schedule(step, Duration::from_secs_f64(elapsed));
        }
    }
    (factors, elapsed)
}

#[test]
fn a_run_of_limited_time_comes_to_the_end_of_its_schedule() {
    for (curve, decay_steps) in [(Curve::Stable, 4000), (Curve::Cosine, 0)] {
        let schedule =
            ScheduleConfig { steps: 20_000, warmup_steps: 1000, curve, decay_steps, min_factor: 0.0 };
        // The pairs are the seconds of a step and of a first one; on a GPU those take far longer.
        for (seconds, first) in [(0.02, 0.02), (0.021, 1.0), (0.2, 0.2), (1.0, 3.0)] {
            let (factors, elapsed) =
                limited_run(schedule, 400.0, |step| if step <= 20 { first } else { seconds });
            let context = format!("{curve:?}, {seconds} s a step: {} steps in {elapsed} s", factors.len());
            assert!((360.0..=402.0).contains(&elapsed), "{context}");
            assert!(factors[factors.len() - 1] < 0.02, "{context}: ends at {:?}", factors.last());
            let largest = factors.iter().copied().fold(0.0, f64::max);
            assert!(largest > 0.95, "{context}: {largest}");
            // Slow first steps do not shorten the warm-up.
            let warmup_steps = 1000.0 * factors.len() as f64 / 20_000.0;
            for (step, factor) in (1..=60).zip(&factors) {
                assert!(
                    *factor <= 1.5 * f64::from(step) / warmup_steps,
                    "{context}: {factor} at step {step}"
                );
            }
        }
        // The run is faster than needed, so nothing is shortened.
        let (factors, _) = limited_run(schedule, 400.0, |_| 0.01);
        check(&factors, &factors_of(schedule));
    }
}

proptest! {
    #[test]
    fn a_shortened_schedule_is_one_that_a_configuration_may_ask_for(schedule in any_schedule(), steps in 0u64..200) {
        let shortened = schedule.shortened(steps);
        prop_assert_eq!(shortened.steps, steps.min(schedule.steps));
        prop_assert!(shortened.warmup_steps + shortened.decay_steps <= shortened.steps);
        prop_assert_eq!(schedule.shortened(schedule.steps), schedule);
    }
}
