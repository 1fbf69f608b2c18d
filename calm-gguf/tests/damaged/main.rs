//! Damaged files end in an error that names the file, never in a panic or in more memory than twice the file.
//!
//! Some thousands of files are damaged at random, which takes a second. `CALM_TEST_DAMAGE=20` makes twenty
//! times as many.

// Clippy exempts test functions, but not their helpers.
#![allow(clippy::unwrap_used)]

#[path = "../../../calm-data/tests/damaged/allocations.rs"]
mod allocations;
#[path = "../gguf/made_file.rs"]
mod made_file;

use std::panic::catch_unwind;
use std::path::Path;

use calm_gguf::{Error, Gguf};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::made_file::{ARRAY, BOOL, I32, STRING, U8, U32, array, header, info, pair, string, with_data};

const FILES: u64 = 5_000;

/// What is needed whatever the file: paths, messages, the system's own.
const BESIDE_THE_FILE: usize = 4096;

/// A small file with a bit of everything.
fn whole() -> Vec<u8> {
    let strings: Vec<u8> = ["a", "bc", "", "Ġd"].iter().flat_map(string).collect();
    let nested = [array(U8, 2, &[1, 2]), array(U8, 0, &[])].concat();
    with_data(
        [
            header(3, 4, 7),
            pair("general.architecture", STRING, &string("llama")),
            pair("general.alignment", U32, &32_u32.to_le_bytes()),
            pair("tokens", ARRAY, &array(STRING, 4, &strings)),
            pair("types", ARRAY, &array(I32, 3, &[0; 12])),
            pair("truths", ARRAY, &array(BOOL, 3, &[0, 1, 1])),
            pair("nested", ARRAY, &array(ARRAY, 2, &nested)),
            pair("truth", BOOL, &[1]),
            info("token_embd.weight", &[32, 4], 3, 0),
            info("norm", &[8], 0, 96),
            info("blk.0.ffn_down.weight", &[256, 1], 14, 128),
            info("other", &[32], 20, 352),
        ]
        .concat(),
        370,
    )
}

/// A file of the smallest pairs and tensors that there are, of which as little as possible may be kept.
fn crowded() -> Vec<u8> {
    let (pairs, tensors) = (10_000, 10_000);
    let mut bytes = header(3, tensors, pairs + 1);
    bytes.extend(pair("general.alignment", U32, &1_u32.to_le_bytes()));
    (0..pairs).for_each(|number| bytes.extend(pair(&format!("{number:x}"), U8, &[1])));
    (0..tensors).for_each(|number| bytes.extend(info(&format!("{number:x}"), &[1], 24, number)));
    bytes.resize(bytes.len() + tensors as usize, 0);
    bytes
}

/// Changes some places of a file: bits, bytes, numbers that lengths would have, pieces that are left out or
/// doubled, the end.
fn damage(bytes: &mut Vec<u8>, random: &mut ChaCha8Rng) {
    const LIKELY: [u64; 12] =
        [0, 1, 2, 8, 31, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 61, u64::MAX];
    for _ in 0..random.random_range(1..=4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.random_range(0..bytes.len());
        let length = random.random_range(1..=16).min(bytes.len() - at);
        match random.random_range(0..8) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 | 3 => {
                let number = match random.random_range(0..3) {
                    0 => random.random(),
                    1 => random.random_range(0..2 * bytes.len() as u64),
                    _ => LIKELY[random.random_range(0..LIKELY.len())],
                };
                let number = number.to_le_bytes();
                let width = [4, 8][random.random_range(0..2)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&number[..width]);
            }
            4 => random.fill_bytes(&mut bytes[at..at + length]),
            5 => drop(bytes.drain(at..at + length)),
            6 => {
                let piece = bytes[at..at + length].to_vec();
                let to = random.random_range(0..=bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => bytes.truncate(at),
        }
    }
}

/// Opens a file and looks at all that is in it.
fn read(path: &Path) -> Result<(), Error> {
    let gguf = Gguf::open(path)?;
    for (key, value) in gguf.pairs() {
        assert!(gguf.metadata(key).is_some_and(|found| found.value_type() == value.value_type()));
        let _ = (gguf.get::<u32>(key), gguf.list::<&str>(key), gguf.list::<i32>(key));
    }
    for tensor in gguf.tensors() {
        assert_eq!(gguf.tensor(&tensor.name), Some(tensor));
        let Ok(kind) = gguf.tensor_type(tensor) else { continue };
        let bytes = gguf.bytes(tensor);
        let columns = tensor.shape.last().copied().unwrap();
        let row_bytes = kind.row_bytes(columns);
        assert_eq!(bytes.len(), row_bytes * tensor.shape.iter().rev().skip(1).product::<usize>());
        let mut block = [0.0; 256];
        for bytes in bytes.chunks(kind.block_bytes()) {
            kind.dequantise(bytes, &mut block[..kind.block_len()]);
        }
    }
    Ok(())
}

#[test]
fn damaged_files_are_errors() {
    let times = std::env::var("CALM_TEST_DAMAGE").map_or(1, |times| times.parse().unwrap());
    let whole = whole();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let check = |bytes: &[u8], what: &str| {
        // A new file: where one is cut off and written again, some file systems wait for the disk.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, bytes).unwrap();
        allocations::take_largest();
        let result = catch_unwind(|| read(&path)).unwrap_or_else(|_| panic!("{what}: a panic"));
        let largest = allocations::take_largest();
        let most = 2 * bytes.len() + BESIDE_THE_FILE;
        assert!(largest <= most, "{what}: {largest} bytes at once, the file has {}", bytes.len());
        if let Err(error) = &result {
            assert!(error.to_string().contains(&*path.to_string_lossy()), "{what}: {error}");
        }
        result
    };
    check(&whole, "whole").unwrap();
    check(&crowded(), "crowded").unwrap();
    for length in 0..whole.len() {
        check(&whole[..length], &format!("cut after {length} bytes")).unwrap_err();
    }
    let mut refused = 0;
    for seed in 0..FILES * times {
        let mut bytes = whole.clone();
        damage(&mut bytes, &mut ChaCha8Rng::seed_from_u64(seed));
        refused += u64::from(check(&bytes, &format!("seed {seed}")).is_err());
    }
    // Some bytes are text or numbers, which may be any; most are not.
    let files = FILES * times;
    assert!(refused > files / 2 && refused < files, "{refused} of {files} files were refused");
}
