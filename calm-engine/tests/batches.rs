//! Batches by length and back.

use calm_core::Token;
use calm_engine::batches::Batches;
use proptest::prelude::*;

fn sources(lengths: &[usize]) -> Vec<Vec<Token>> {
    lengths.iter().map(|&length| vec![0; length]).collect()
}

#[test]
fn batches_hold_sources_of_like_length() {
    let check = |lengths: &[usize], batch_size: usize, expected: &[&[usize]]| {
        let sources = sources(lengths);
        let found = Batches::new(&sources, batch_size).of(&sources);
        let found: Vec<Vec<usize>> =
            found.iter().map(|batch| batch.iter().map(|source| source.len()).collect()).collect();
        assert_eq!(found, expected);
    };
    check(&[], 4, &[]);
    check(&[3, 9, 3, 1, 9], 2, &[&[9, 9], &[3, 3], &[1]]);
    check(&[3, 9, 3, 1, 9], 100, &[&[9, 9, 3, 3, 1]]);
    check(&[5, 7], 0, &[&[7], &[5]]);
}

proptest! {
    #[test]
    fn every_source_is_in_one_batch_and_comes_back(
        lengths in proptest::collection::vec(0..20_usize, 0..40),
        batch_size in 1..9_usize,
    ) {
        let sources = sources(&lengths);
        let batches = Batches::new(&sources, batch_size);
        prop_assert_eq!(batches.len(), lengths.len().div_ceil(batch_size));
        let of_batches = batches.of(&sources);
        prop_assert!(of_batches.iter().all(|batch| (1..=batch_size).contains(&batch.len())));
        let results: Vec<usize> = of_batches.iter().flatten().map(|source| source.len()).collect();
        prop_assert!(results.is_sorted_by(|a, b| a >= b));
        prop_assert_eq!(batches.in_input_order(results), lengths);
    }
}
