use calm_core::{Exits, MEASURES};
use calm_fit::tune::{Candidate, Costs, search};

use crate::made_up::{fitted, observations};

fn found(costs: Costs, agreement: f64) -> Vec<Candidate> {
    let observations = observations(40);
    let maps = fitted(&observations).maps;
    search(&observations, &maps, &[(MEASURES.get("agreement").unwrap(), costs)], agreement).unwrap()
}

const FREE_TESTS: Costs = Costs { base: 5.0, layer: 10.0, prediction: 1.0, first_test: 0.0, later_test: 0.0 };

#[test]
fn the_fastest_exits_depend_on_what_a_test_takes() {
    let often = found(FREE_TESTS, 0.8)[0].exits;
    assert!(often.contains(1) && often.len() > 1, "{often}");
    let dear = Costs { first_test: 4.0, later_test: 20.0, ..FREE_TESTS };
    assert_eq!(found(dear, 0.8)[0].exits.len(), 1);
}

#[test]
fn candidates_say_what_to_expect_of_them() {
    let candidates = found(Costs { first_test: 2.0, later_test: 1.0, ..FREE_TESTS }, 0.9);
    // All sets of three layers.
    assert_eq!(candidates.len(), 7);
    assert!(candidates.is_sorted_by(|a, b| a.seconds <= b.seconds));
    for candidate in &candidates {
        assert!(candidate.agreement >= 0.9, "{candidate:?}");
        assert!((1.0..=4.0).contains(&candidate.layers) && (1.0..=3.0).contains(&candidate.tests));
        assert_eq!(candidate.full_seconds, 5.0 + 40.0 + 1.0);
    }
    // A test after layer 1 alone: confidences are 0, .1, .. .9 for a tenth of the tokens each, and right as
    // often. From .8 on two tenths leave, of which .15 are wrong: .97 agree; from .7 on .94, from .6 on .90.
    let only_first = candidates.iter().find(|of| of.exits == Exits::new(&[1]).unwrap()).unwrap();
    assert!((only_first.agreement - 0.9).abs() < 1e-9 && only_first.threshold > 0.5);
    assert!((only_first.layers - (0.4 + 0.6 * 4.0)).abs() < 1e-9);
    assert!((only_first.tests - 1.0).abs() < 1e-9);
    let expected = 5.0 + 10.0 * only_first.layers + 2.0 + 0.6;
    assert!((only_first.seconds - expected).abs() < 1e-9);
}
