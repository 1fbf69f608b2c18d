//! Mixtures of Beta distributions: against scipy, and on samples of known ones.

use calm_core::{BetaComponent, BetaMixture, Observation, PUBLISHED_ZETA, published_threshold};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    x: Vec<f32>,
    y: Vec<u8>,
    at: Vec<f64>,
    zetas: Vec<f64>,
    /// Alpha and beta, the disagreeing component first.
    published: Option<[[f64; 2]; 2]>,
    published_thresholds: Vec<f64>,
    /// Weight, alpha and beta.
    intended: Option<[[f64; 3]; 2]>,
    posteriors: Option<Vec<f64>>,
    intended_thresholds: Option<Vec<f64>>,
}

impl Case {
    fn observations(&self) -> Vec<Observation> {
        self.x.iter().zip(&self.y).map(|(&x, &y)| Observation { x, y: f32::from(y) }).collect()
    }
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../golden/beta_mixture.json")).unwrap()
}

fn check_close(found: f64, expected: f64, tolerance: f64, context: &str) {
    let scale = expected.abs().max(1.0);
    assert!((found - expected).abs() <= tolerance * scale, "{context}: {found} instead of {expected}");
}

#[test]
fn the_published_form_is_that_of_the_released_code() {
    for case in cases() {
        let name = &case.name;
        let fitted = BetaMixture::published(case.observations());
        match (fitted, case.published) {
            (Some(fitted), Some([disagreeing, agreeing])) => {
                for (found, expected) in [(fitted.disagreeing, disagreeing), (fitted.agreeing, agreeing)] {
                    assert_eq!(found.weight, 0.5, "{name}");
                    // Variances of narrow samples are small differences.
                    check_close(found.alpha / expected[0], 1.0, 1e-6, name);
                    check_close(found.beta / expected[1], 1.0, 1e-6, name);
                }
            }
            (found, expected) => assert_eq!(found.is_some(), expected.is_some(), "{name}"),
        }
        for (&zeta, &expected) in case.zetas.iter().zip(&case.published_thresholds) {
            check_close(published_threshold(fitted.as_ref(), zeta), expected, 1e-12, name);
        }
    }
}

#[test]
fn the_intended_form_is_that_of_scipy() {
    for case in cases() {
        let Some(intended) = case.intended else { continue };
        let name = &case.name;
        let fitted = BetaMixture::intended(case.observations()).unwrap();
        let found = [fitted.disagreeing, fitted.agreeing].map(|part| [part.weight, part.alpha, part.beta]);
        for (found, expected) in found.iter().flatten().zip(intended.iter().flatten()) {
            check_close(*found, *expected, 1e-6, name);
        }
        for (&x, expected) in case.at.iter().zip(case.posteriors.unwrap()) {
            check_close(fitted.posterior(x), expected, 1e-6, name);
        }
        for (&zeta, expected) in case.zetas.iter().zip(case.intended_thresholds.unwrap()) {
            check_close(fitted.threshold(zeta), expected, 1e-6, name);
        }
    }
}

#[test]
fn degenerate_samples_have_no_numbers_that_are_none() {
    let observation = |x: f32, y: f32| Observation { x, y };
    assert_eq!(BetaMixture::intended([]), None);
    assert_eq!(BetaMixture::intended([observation(f32::NAN, 1.0)]), None);
    assert_eq!(BetaMixture::published([observation(f32::NAN, 1.0)]), None);
    assert_eq!(published_threshold(None, PUBLISHED_ZETA), 0.9);

    // One label alone: nothing else is possible, whatever the confidence.
    for (label, posterior, threshold) in [(1.0, 1.0, 0.0), (0.0, 0.0, 1.0)] {
        let fitted = BetaMixture::intended([0.2, 0.6, 0.7].map(|x| observation(x, label))).unwrap();
        assert_eq!(fitted.agreeing.weight, posterior);
        for x in [0.0, 0.2, 0.65, 1.0] {
            assert_eq!(fitted.posterior(x), posterior);
        }
        assert_eq!(fitted.threshold(0.5), threshold);
    }
    // All confidences are the same, in all or in one of the labels.
    for disagreeing in [0.5, 0.25] {
        let sample = [(0.5, 1.0), (0.5, 1.0), (0.5, 1.0), (disagreeing, 0.0)];
        let fitted = BetaMixture::intended(sample.map(|(x, y)| observation(x, y))).unwrap();
        check_close(fitted.agreeing.weight, 0.75, 1e-6, "weight");
        let expected = if disagreeing == 0.5 { 0.75 } else { 1.0 };
        check_close(fitted.posterior(0.5), expected, 1e-6, "posterior");
        check_close(fitted.posterior(0.25), if disagreeing == 0.5 { 0.75 } else { 0.0 }, 1e-6, "posterior");
    }
    let fitted = BetaMixture::intended([observation(0.3, 0.0), observation(0.8, 1.0)]).unwrap();
    assert!(fitted.posterior(f64::NAN).is_nan());
    // Both densities are 0 in f64 here, but one is larger.
    assert_eq!((fitted.posterior(0.0), fitted.posterior(1.0)), (0.0, 1.0));
}

#[test]
fn files_of_impossible_mixtures_are_refused() {
    let read = |weight: f64, alpha: f64| {
        let part = |weight: f64| BetaComponent { weight, alpha, beta: 2.0 };
        let mixture = BetaMixture { agreeing: part(weight), disagreeing: part(0.25) };
        serde_json::from_value::<BetaMixture>(serde_json::to_value(mixture).unwrap())
            .map_err(|error| error.to_string())
    };
    assert_eq!(read(0.75, 0.5).unwrap().agreeing.alpha, 0.5);
    assert_eq!(read(0.5, 0.5).unwrap_err(), "weights must add up to 1");
    for (weight, alpha) in [(0.75, 0.0), (0.75, -1.0), (1.5, 1.0), (-0.25, 1.0)] {
        let said = read(weight, alpha).unwrap_err();
        assert_eq!(said, "weights must be from 0 to 1, alpha and beta numbers above 0");
    }
}

/// A sample of Beta(alpha, beta): the alpha-th smallest of alpha + beta - 1 uniform numbers.
fn beta(random: &mut ChaCha8Rng, [alpha, beta]: [usize; 2]) -> f32 {
    let mut uniform: Vec<f32> = (0..alpha + beta - 1).map(|_| random.random_range(0.0..1.0)).collect();
    uniform.sort_by(f32::total_cmp);
    uniform[alpha - 1]
}

/// So many observations, of which a share agrees.
fn sample(
    seed: u64,
    count: usize,
    share: f64,
    agreeing: [usize; 2],
    disagreeing: [usize; 2],
) -> Vec<Observation> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut one = || match random.random_bool(share) {
        true => Observation { x: beta(&mut random, agreeing), y: 1.0 },
        false => Observation { x: beta(&mut random, disagreeing), y: 0.0 },
    };
    (0..count).map(|_| one()).collect()
}

#[test]
fn known_mixtures_are_recovered() {
    for (seed, share, agreeing, disagreeing) in
        [(1, 0.8, [8, 2], [2, 3]), (2, 0.5, [5, 1], [1, 4]), (3, 0.1, [6, 2], [1, 4])]
    {
        let observations = sample(seed, 20_000, share, agreeing, disagreeing);
        let fitted = BetaMixture::intended(observations).unwrap();
        check_close(fitted.agreeing.weight, share, 0.02, "weight");
        let parameters = |part: BetaComponent| [part.alpha, part.beta];
        for (found, expected) in [(fitted.agreeing, agreeing), (fitted.disagreeing, disagreeing)] {
            for (found, expected) in parameters(found).iter().zip(expected) {
                check_close(found / expected as f64, 1.0, 0.1, "parameter");
            }
        }
        // The posterior of the true mixture.
        let truth = |weight: f64, [alpha, beta]: [usize; 2]| BetaComponent {
            weight,
            alpha: alpha as f64,
            beta: beta as f64,
        };
        let truth =
            BetaMixture { agreeing: truth(share, agreeing), disagreeing: truth(1.0 - share, disagreeing) };
        for percent in 1..100 {
            let x = f64::from(percent) / 100.0;
            check_close(fitted.posterior(x), truth.posterior(x), 0.03, "posterior");
        }
    }
}

/// The published form gives both components half of the weight.
#[test]
fn the_intended_form_is_likelier_where_most_tokens_agree() {
    let observations = sample(5, 5000, 0.95, [8, 2], [2, 3]);
    let likelihood = |mixture: Option<BetaMixture>| {
        mixture.unwrap().mean_log_likelihood(observations.iter().copied()).unwrap()
    };
    let published = likelihood(BetaMixture::published(observations.iter().copied()));
    let intended = likelihood(BetaMixture::intended(observations.iter().copied()));
    assert!(intended > published + 0.05, "{intended} and {published}");
    // The density of one component by hand: Beta(1, 1) has 1 everywhere, Beta(2, 1) has 2 x.
    let part = |weight, alpha| BetaComponent { weight, alpha, beta: 1.0 };
    let mixture = BetaMixture { agreeing: part(0.5, 2.0), disagreeing: part(0.5, 1.0) };
    let at = |x: f32| mixture.mean_log_likelihood([Observation { x, y: 0.0 }]).unwrap();
    check_close(at(0.5), 0.0, 1e-12, "density");
    check_close(at(0.75), 1.25_f64.ln(), 1e-12, "density");
    assert_eq!(mixture.mean_log_likelihood([]), None);
}

proptest! {
    #![proptest_config(crate::cases(64))]

    #[test]
    fn thresholds_are_where_the_posterior_crosses(
        weight in 0.05..0.95_f64,
        agreeing in (0.3..12.0_f64, 0.3..12.0_f64),
        disagreeing in (0.3..12.0_f64, 0.3..12.0_f64),
        zeta in 0.05..0.95_f64,
    ) {
        let part = |weight, (alpha, beta)| BetaComponent { weight, alpha, beta };
        let mixture =
            BetaMixture { agreeing: part(weight, agreeing), disagreeing: part(1.0 - weight, disagreeing) };
        let threshold = mixture.threshold(zeta);
        prop_assert!((0.0..=1.0).contains(&threshold));
        for step in 0..=1000 {
            let x = f64::from(step) / 1000.0;
            let posterior = mixture.posterior(x);
            prop_assert!((0.0..=1.0).contains(&posterior));
            if x < threshold - 1e-8 {
                prop_assert!(posterior <= zeta, "{} at {}, below {}", posterior, x, threshold);
            }
        }
        if threshold < 1.0 {
            prop_assert!(mixture.posterior(threshold) > zeta);
        }
    }

    #[test]
    fn the_order_of_the_observations_does_not_matter(seed in 0..1000_u64) {
        let observations = sample(seed, 40, 0.6, [5, 1], [1, 2]);
        let reversed = || observations.iter().rev().copied();
        prop_assert_eq!(BetaMixture::intended(observations.iter().copied()), BetaMixture::intended(reversed()));
        prop_assert_eq!(BetaMixture::published(observations.iter().copied()), BetaMixture::published(reversed()));
    }
}
