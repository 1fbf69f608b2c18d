use calm_train::batches::{BatchConfig, FrameTokens, collate, epoch_batches};
use calm_train::tokens::TokenPair;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

fn examples(count: usize, seed: u64) -> Vec<TokenPair> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut tokens = |longest: usize| -> Vec<u32> {
        let length = random.random_range(1..=longest);
        (0..length).map(|_| random.random_range(2..50)).collect()
    };
    (0..count).map(|_| TokenPair { source: tokens(30), target: tokens(20) }).collect()
}

fn batches(examples: &[TokenPair], config: &BatchConfig, epoch: u64) -> Vec<Vec<usize>> {
    epoch_batches((0..examples.len()).collect(), |i: usize| examples[i].length(), config, epoch)
}

#[test]
fn an_epoch_has_every_example_once_within_the_limit() {
    for (count, batch_tokens) in [(1, 50), (7, 50), (300, 50), (300, 400), (300, 100_000)] {
        let examples = examples(count, count as u64);
        let config = BatchConfig { batch_tokens, seed: 3 };
        for epoch in 0..3 {
            let batches = batches(&examples, &config, epoch);
            let mut seen = batches.concat();
            seen.sort_unstable();
            assert_eq!(seen, (0..count).collect::<Vec<_>>(), "{count} examples, {batch_tokens} tokens");
            for batch in &batches {
                let longest = |length: fn(&TokenPair) -> usize| {
                    batch.iter().map(|&i| length(&examples[i])).max().unwrap()
                };
                let padded = batch.len() * (longest(|e| e.source.len()) + longest(|e| e.target.len()));
                assert!(padded <= batch_tokens, "{} rows have {padded} tokens", batch.len());
            }
        }
    }
}

#[test]
fn the_order_depends_on_seed_and_epoch_alone() {
    let examples = examples(200, 1);
    let order = |seed, epoch| batches(&examples, &BatchConfig { batch_tokens: 300, seed }, epoch);
    assert_eq!(order(1, 2), order(1, 2));
    assert_ne!(order(1, 2), order(1, 3));
    assert_ne!(order(1, 2), order(2, 2));
    // Epochs change not only the order of the batches, but also which examples are together.
    let sorted = |epoch| {
        let mut batches = order(1, epoch);
        batches.iter_mut().for_each(|batch| batch.sort_unstable());
        batches.sort();
        batches
    };
    assert_ne!(sorted(2), sorted(3));
}

#[test]
fn similar_lengths_are_together() {
    let examples = examples(2_000, 5);
    let batches = batches(&examples, &BatchConfig { batch_tokens: 600, seed: 1 }, 0);
    let tokens: usize = examples.iter().map(|e| e.source.len() + e.target.len()).sum();
    let padded: usize = batches
        .iter()
        .map(|batch| {
            let longest = |f: fn(&TokenPair) -> usize| batch.iter().map(|&i| f(&examples[i])).max().unwrap();
            batch.len() * (longest(|e| e.source.len()) + longest(|e| e.target.len()))
        })
        .sum();
    assert!(padded * 100 < tokens * 125, "{padded} padded tokens for {tokens}");
}

#[test]
fn targets_are_shifted_right_and_padding_is_no_target() {
    let pair = |source: &[u32], target: &[u32]| TokenPair { source: source.into(), target: target.into() };
    let (long, short) = (pair(&[5, 6, 1], &[7, 8, 9, 1]), pair(&[4, 1], &[3, 1]));
    let frame = FrameTokens { start: 2, pad: 0 };
    let batch = collate(&[long.clone(), short.clone()], frame);
    let matrix = |tensor: &Tensor| Vec::<Vec<i64>>::try_from(tensor).unwrap();
    let list = |tensor: &Tensor| Vec::<i64>::try_from(tensor).unwrap();
    assert_eq!(matrix(&batch.sources), [[5, 6, 1], [4, 1, 0]]);
    assert_eq!(list(&batch.source_lengths), [3, 2]);
    assert_eq!(matrix(&batch.decoder_inputs), [[2, 7, 8, 9], [2, 3, 0, 0]]);
    assert_eq!(list(&batch.targets), [7, 8, 9, 1, 3, 1]);
    assert_eq!(list(&batch.positions), [0, 1, 2, 3, 4, 5]);
    assert_eq!(batch.target_tokens, 6);
    let batch = collate(&[short, long], frame);
    assert_eq!(list(&batch.targets), [3, 1, 7, 8, 9, 1]);
    assert_eq!(list(&batch.positions), [0, 1, 4, 5, 6, 7]);
}
