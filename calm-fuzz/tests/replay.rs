//! Inputs that fuzzing has found interesting, as they are and changed at random: each is read or is an error.
//!
//! A thousand changed inputs of each kind take seconds. `CALM_TEST_DAMAGE=20` tries twenty times as many.

// Clippy exempts test functions, but not their helpers.
#![allow(clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use calm_fuzz::{TARGETS, Target};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Changed inputs of each kind of file.
const CHANGED: u64 = 1_000;

/// The inputs of a target, with their names.
fn corpus(target: Target) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files = entries.map(|entry| entry.unwrap().path());
    let input = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut inputs: Vec<_> = files.map(|path| (input(&path), std::fs::read(&path).unwrap())).collect();
    inputs.sort();
    inputs
}

/// Reads an input, and says which one it was that panicked.
fn check(target: Target, input: &[u8], what: &str) -> bool {
    let result = catch_unwind(AssertUnwindSafe(|| target.read(input)));
    result.unwrap_or_else(|_| panic!("{}: {what}", target.name)).is_ok()
}

/// Changes some places of an input: bits, bytes, numbers, pieces that are left out or doubled, pieces of
/// another input, the end.
fn change(input: &mut Vec<u8>, other: &[u8], random: &mut ChaCha8Rng) {
    const LIKELY: [u64; 8] = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 1 << 61, u64::MAX];
    let piece_of = |bytes: &[u8], random: &mut ChaCha8Rng| {
        let at = random.random_range(0..bytes.len());
        let length = random.random_range(1..=32).min(bytes.len() - at);
        at..at + length
    };
    for _ in 0..random.random_range(1..=4) {
        if input.is_empty() {
            return;
        }
        let piece = piece_of(input, random);
        let to = random.random_range(0..=input.len());
        match random.random_range(0..8) {
            0 => input[piece.start] ^= 1 << random.random_range(0..8),
            1 => input[piece.start] = random.random(),
            2 => random.fill_bytes(&mut input[piece]),
            3 => drop(input.drain(piece)),
            4 => {
                let number = LIKELY[random.random_range(0..LIKELY.len())].to_le_bytes();
                let width = [4, 8][random.random_range(0..2)].min(input.len() - piece.start);
                input[piece.start..piece.start + width].copy_from_slice(&number[..width]);
            }
            5 => {
                let number = LIKELY[random.random_range(0..LIKELY.len())].to_string();
                input.splice(piece.start..piece.start + 1, number.into_bytes());
            }
            6 => {
                let from = if other.is_empty() { &*input } else { other };
                let piece = from[piece_of(from, random)].to_vec();
                input.splice(to..to, piece);
            }
            _ => input.truncate(piece.start),
        }
    }
}

#[test]
fn inputs_are_read_or_are_errors() {
    let times = std::env::var("CALM_TEST_DAMAGE").map_or(1, |times| times.parse().unwrap());
    for &target in TARGETS {
        let corpus = corpus(target);
        let read = corpus.iter().filter(|(name, input)| check(target, input, name)).count();
        assert!(read > 0, "{}: no input is such a file, so that little of the code is tried", target.name);
        for seed in 0..CHANGED * times {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let (from, input) = &corpus[random.random_range(0..corpus.len())];
            let (_, other) = &corpus[random.random_range(0..corpus.len())];
            let mut input = input.clone();
            change(&mut input, other, &mut random);
            check(target, &input, &format!("{from}, changed with seed {seed}"));
        }
    }
}
