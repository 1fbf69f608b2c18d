//! Thresholds that are chosen from the outputs so far.

use calm_core::{Backbone, DecodeOptions, Generation, Policy, PolicySpec, Token, decode};

use crate::toy::Toy;

fn run(toy: &Toy, policy: &dyn Policy, batches: std::ops::Range<u32>) -> Vec<Generation> {
    let options = DecodeOptions { ignore_eos: true, ..DecodeOptions::new(30) };
    let of_batch = |batch: u32| {
        let sources: [Vec<Token>; 2] = [vec![2 + batch % 9, 3], vec![4, 2 + batch / 2 % 9, 5]];
        let sources: Vec<&[Token]> = sources.iter().map(Vec::as_slice).collect();
        decode(&*toy.read(&sources).unwrap(), policy, &options).unwrap()
    };
    batches.flat_map(of_batch).collect()
}

fn make(toy: &Toy, id: &str) -> Box<dyn Policy> {
    id.parse::<PolicySpec>().unwrap().make(toy).unwrap()
}

fn share_of_exits(generations: &[Generation]) -> f64 {
    let exits = generations.iter().flat_map(|generation| &generation.exit_layers);
    exits.clone().filter(|&&layer| layer == 2).count() as f64 / exits.count() as f64
}

#[test]
fn nothing_is_known_in_the_first_batch() {
    let toy = Toy::new(4, 3);
    for id in ["shallow-deep-beta-2-0.4", "shallow-deep-published-2-0.4"] {
        let (fixed, adaptive) = (make(&toy, "shallow-deep-2-0.9"), make(&toy, id));
        let (fixed, adaptive) = (run(&toy, &*fixed, 0..1), run(&toy, &*adaptive, 0..1));
        for (fixed, adaptive) in fixed.iter().zip(&adaptive) {
            assert_eq!(fixed.tokens, adaptive.tokens);
            assert_eq!(fixed.exit_layers, adaptive.exit_layers);
        }
    }
}

/// A posterior above 0 is asked for and every token leaves; one above 1, and none does. The released code's
/// thresholds end at 0.3 and 0.9.
#[test]
fn thresholds_go_to_their_ends() {
    let toy = Toy::new(4, 3);
    let share = |id: &str| {
        let policy = make(&toy, id);
        run(&toy, &*policy, 0..20);
        (share_of_exits(&run(&toy, &*policy, 0..5)), policy.remark().unwrap())
    };
    let (all, remark) = share("shallow-deep-beta-2-0");
    assert!(all == 1.0 && remark.contains("above 0.000"), "{all} {remark}");
    let (none, remark) = share("shallow-deep-beta-2-1");
    assert!(none == 0.0 && remark.contains("above 1.000"), "{none} {remark}");
    let (many, remark) = share("shallow-deep-published-2-0");
    assert!(many > 0.1 && remark.contains("above 0.300"), "{many} {remark}");
    let (few, remark) = share("shallow-deep-published-2-1");
    assert!(few < many && remark.contains("above 0.900"), "{few} {remark}");
}

/// What it learns depends on the batches and their order alone.
#[test]
fn the_same_batches_teach_the_same() {
    for id in ["shallow-deep-beta-2-0.6", "shallow-deep-published-2-0.6-cap3"] {
        let toy = Toy::new(4, 5);
        let outcome = || {
            let policy = make(&toy, id);
            let generations = run(&toy, &*policy, 0..15);
            assert!(policy.learns_from_outputs());
            let exits: Vec<Vec<usize>> = generations.into_iter().map(|output| output.exit_layers).collect();
            (exits, policy.remark())
        };
        assert_eq!(outcome(), outcome(), "{id}");
    }
}

#[test]
fn adaptive_thresholds_have_no_decay() {
    let error = "shallow-deep-beta-2-0.5-tau4".parse::<PolicySpec>().unwrap().make(&Toy::new(4, 0)).err();
    assert_eq!(error.unwrap().to_string(), "an adaptive threshold has no decay");
}
