//! Records in each format of text, compressed or not.

use std::io::Read;

use calm_data::{Columns, read_examples, read_records, read_segments};
use flate2::Compression;
use flate2::bufread::GzEncoder;

use crate::scratch;

const FORMATS: [&str; 4] = ["csv", "tsv", "jsonl", "json"];

/// A byte that chooses format and compression, then the file. Half of the compressed files are compressed
/// here: chance changes texts that are compressed already into damaged ones, and into no other texts.
pub(crate) fn read(input: &[u8]) -> anyhow::Result<()> {
    let (&choice, bytes) = input.split_first().unwrap_or((&0, &[]));
    let (format, compression) = (FORMATS[usize::from(choice % 4)], choice / 4 % 5);
    let ending = [".gz", ".zst", ".gz", ".zst", ""][usize::from(compression)];
    let bytes = match compression {
        0 => gzipped(bytes)?,
        1 => zstd::encode_all(bytes, 1)?,
        _ => bytes.to_vec(),
    };
    let path = scratch::file(&format!("records.{format}{ending}"), bytes);
    let examples = read_examples(&path, &Columns::default());
    // What a metric reads may lack the source.
    let segments = read_segments(&path, "target");
    read_records(&path)?.try_for_each(|record| record.map(drop))?;
    examples.map(drop).or(segments.map(drop))?;
    Ok(())
}

fn gzipped(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut compressed = Vec::new();
    GzEncoder::new(bytes, Compression::fast()).read_to_end(&mut compressed)?;
    Ok(compressed)
}
