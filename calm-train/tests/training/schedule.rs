use calm_train::{Curve, ScheduleConfig, learning_rate_factor};

fn factors(curve: Curve, steps: u64, warmup_steps: u64, decay_steps: u64) -> Vec<f64> {
    let schedule = ScheduleConfig { steps, warmup_steps, curve, decay_steps };
    (1..=steps).map(|step| learning_rate_factor(&schedule, step)).collect()
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
fn every_factor_is_a_fraction_that_falls_after_the_warmup() {
    for curve in [Curve::Cosine, Curve::Stable, Curve::InverseSqrt] {
        for (steps, warmup, decay) in [(1, 0, 0), (50, 0, 20), (50, 10, 40), (50, 50, 0)] {
            let found = factors(curve, steps, warmup, decay);
            assert!(found.iter().all(|factor| (0.0..=1.0).contains(factor)), "{curve:?}: {found:?}");
            let (rise, fall) = found.split_at(warmup as usize);
            assert!(rise.windows(2).all(|pair| pair[0] < pair[1]), "{curve:?}: {found:?}");
            assert!(fall.windows(2).all(|pair| pair[0] >= pair[1]), "{curve:?}: {found:?}");
        }
    }
}

/// This is what lets a run be lengthened from a checkpoint before its decay.
#[test]
fn the_stable_part_does_not_depend_on_the_number_of_steps() {
    let (short, long) = (factors(Curve::Stable, 40, 10, 15), factors(Curve::Stable, 400, 10, 15));
    assert_eq!(short[..25], long[..25]);
    assert!(short[25] < long[25]);
}
