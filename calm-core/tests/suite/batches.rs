//! Batches by length and back.

use calm_core::{batch_by_length, cut_source, in_input_order};
use proptest::prelude::*;

#[test]
fn batches_hold_sources_of_like_length() {
    let check = |lengths: &[usize], batch_size: usize, expected: &[&[usize]]| {
        assert_eq!(batch_by_length(lengths, batch_size), expected);
    };
    check(&[], 4, &[]);
    check(&[3, 9, 3, 1, 9], 2, &[&[1, 4], &[0, 2], &[3]]);
    check(&[3, 9, 3, 1, 9], 100, &[&[1, 4, 0, 2, 3]]);
    check(&[5, 7], 0, &[&[1], &[0]]);
}

proptest! {
    #![proptest_config(crate::cases(256))]

    #[test]
    fn every_source_is_in_one_batch_and_comes_back(
        lengths in proptest::collection::vec(0..20_usize, 0..40),
        batch_size in 1..9_usize,
    ) {
        let batches = batch_by_length(&lengths, batch_size);
        prop_assert_eq!(batches.len(), lengths.len().div_ceil(batch_size));
        prop_assert!(batches.iter().all(|batch| (1..=batch_size).contains(&batch.len())));
        let results: Vec<usize> = batches.iter().flatten().map(|&index| lengths[index]).collect();
        prop_assert!(results.is_sorted_by(|a, b| a >= b));
        prop_assert_eq!(in_input_order(&batches, results), lengths);
    }
}

#[test]
fn a_source_that_is_cut_keeps_its_end() {
    for (limit, expected) in
        [(1, &[9][..]), (2, &[5, 9]), (3, &[5, 6, 9]), (4, &[5, 6, 7, 9]), (5, &[5, 6, 7, 9])]
    {
        let mut tokens = vec![5, 6, 7, 9];
        cut_source(&mut tokens, limit);
        assert_eq!(tokens, expected, "{limit}");
    }
}
