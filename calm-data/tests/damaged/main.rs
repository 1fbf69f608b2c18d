//! Damaged Parquet files end in an error that names the file, never in a panic or in gigabytes of memory.
//!
//! Each byte of each file is replaced in one way, which takes seconds. `CALM_TEST_DAMAGE=100` replaces it in
//! 100 ways.

// Clippy exempts test functions, but not their helpers.
#![allow(clippy::unwrap_used)]

mod allocations;

use std::panic::catch_unwind;
use std::path::Path;

use calm_data::{Columns, read_examples};

/// More than any of the files needs, by far.
const LARGEST_ALLOCATION: usize = 32 << 20;

fn read_many(path: &Path) -> Result<(), String> {
    let columns = Columns { more_references: vec!["more".to_owned()], ..Columns::default() };
    read_examples(path, &columns).map(drop).map_err(|error| error.to_string())
}

fn read_losses(path: &Path) -> Result<(), String> {
    calm_calibrate::read_table(path).map(drop).map_err(|error| error.to_string())
}

/// What a byte is replaced by: values that look likely to do harm before others.
fn replacements(byte: u8, position: usize) -> Vec<u8> {
    let ways = std::env::var("CALM_TEST_DAMAGE").map_or(1, |ways| ways.parse().unwrap());
    let likely = [0xff, byte ^ 0x80, 0, byte.wrapping_add(1), 0x7f, byte ^ 0x10, byte.wrapping_sub(1)];
    let first = likely[position % likely.len()];
    let others = likely.into_iter().chain((1..=u8::MAX).map(|step| first.wrapping_add(step)));
    std::iter::once(first).chain(others).filter(|&other| other != byte).take(ways).collect()
}

fn check_damaged(name: &str, read: fn(&Path) -> Result<(), String>) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let whole = std::fs::read(fixtures.join(name)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let check = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        allocations::take_largest();
        let result = catch_unwind(|| read(&path)).unwrap_or_else(|_| panic!("{name}, {what}: a panic"));
        let largest = allocations::take_largest();
        assert!(largest <= LARGEST_ALLOCATION, "{name}, {what}: {largest} bytes at once");
        if let Err(error) = &result {
            assert!(error.contains(&*path.to_string_lossy()), "{name}, {what}: {error}");
        }
        result
    };
    assert_eq!(check(&whole, "whole"), Ok(()));
    for position in 0..whole.len() {
        for replacement in replacements(whole[position], position) {
            let mut bytes = whole.clone();
            bytes[position] = replacement;
            // Most bytes are text or numbers, which may be any.
            let _ = check(&bytes, &format!("byte {position} is {replacement:#x}"));
        }
    }
    for length in (0..whole.len()).step_by(7) {
        assert!(check(&whole[..length], &format!("cut after {length} bytes")).is_err());
    }
}

#[test]
fn damaged_files_are_errors() {
    for name in [
        "many-none-delta.parquet",
        "many-none-dictionary.parquet",
        "many-snappy-plain.parquet",
        "many-gzip-dictionary.parquet",
        "many-zstd-delta.parquet",
        "many-brotli-plain.parquet",
        "many-lz4-dictionary.parquet",
    ] {
        check_damaged(name, read_many);
    }
    for name in ["losses-dictionary.parquet", "losses-delta.parquet"] {
        check_damaged(name, read_losses);
    }
}
