//! Measures calibration from a file larger than most memories, repeated as in the paper, and by p-value.
//!
//! The file has 100 thresholds and a million examples, or as many as `CALM_BENCH_EXAMPLES` asks for. It is
//! written once, into Cargo's target folder, and takes about a gigabyte there.

// A benchmark that fails has nothing to report but the panic.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use calm_calibrate::{
    CalibrationOptions, ErrorProbability, LossKind, LossTable, PValue, Tolerance, TrialOptions,
    calibrate_file, run_trials,
};
use criterion::{Criterion, criterion_group, criterion_main};
use parquet::basic::Compression;
use parquet::data_type::{DataType, DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const THRESHOLDS: usize = 100;

/// Thresholds are 0.99, 0.98, ..., 0.
fn threshold(index: usize) -> f64 {
    (THRESHOLDS - 1 - index) as f64 / THRESHOLDS as f64
}

/// Losses are mostly zero, and less often so the lower the threshold.
fn losses(threshold: f64, examples: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let share = 0.01 + 0.3 * (1.0 - threshold);
    (0..examples).map(|_| if rng.random::<f64>() < share { rng.random::<f64>() } else { 0.0 }).collect()
}

fn tolerance(delta: f64) -> Tolerance {
    Tolerance::new(delta).unwrap()
}

/// Writes one threshold after the other, as pandas and pyarrow do.
///
/// Columns are optional, with dictionaries, Snappy and row groups of 2^20.
fn write_parquet(path: &Path, examples: usize) {
    const ROW_GROUP: usize = 1 << 20;
    let schema = "message losses {
        optional double threshold; optional int64 example; optional double loss;
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let unfinished = path.with_extension("unfinished");
    let file = File::create(&unfinished).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut rows = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..THRESHOLDS {
        rows.0.extend(std::iter::repeat_n(threshold(index), examples));
        rows.1.extend(0..examples as i64);
        rows.2.extend(losses(threshold(index), examples, &mut rng));
        while rows.0.len() >= ROW_GROUP || index + 1 == THRESHOLDS && !rows.0.is_empty() {
            let count = rows.0.len().min(ROW_GROUP);
            let mut group = writer.next_row_group().unwrap();
            write_column::<DoubleType>(&mut group, rows.0.drain(..count).collect());
            write_column::<Int64Type>(&mut group, rows.1.drain(..count).collect());
            write_column::<DoubleType>(&mut group, rows.2.drain(..count).collect());
            group.close().unwrap();
        }
    }
    writer.close().unwrap();
    std::fs::rename(unfinished, path).unwrap();
}

fn write_column<T: DataType>(group: &mut SerializedRowGroupWriter<'_, File>, values: Vec<T::T>) {
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(&values, Some(&vec![1; values.len()]), None).unwrap();
    column.close().unwrap();
}

fn file(criterion: &mut Criterion) {
    let examples = std::env::var("CALM_BENCH_EXAMPLES").map_or(1_000_000, |number| number.parse().unwrap());
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("losses-{examples}.parquet"));
    if !path.exists() {
        write_parquet(&path, examples);
    }
    let options = CalibrationOptions::new(tolerance(0.1), LossKind::UnitInterval);
    let mut group = criterion.benchmark_group("file");
    group.sample_size(10);
    group.bench_function(
        format!("parquet/{THRESHOLDS} thresholds x {examples} examples/betting"),
        |bencher| {
            bencher.iter(|| calibrate_file(&path, &options).unwrap());
        },
    );
    group.finish();
}

fn trials(criterion: &mut Criterion) {
    const EXAMPLES: usize = 2_000;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let thresholds: Vec<f64> = (0..THRESHOLDS).map(threshold).collect();
    let rows = thresholds.iter().map(|&threshold| losses(threshold, EXAMPLES, &mut rng)).collect();
    let table = LossTable::new(thresholds, rows).unwrap();
    let splits = TrialOptions::default().splits(EXAMPLES).unwrap();
    let deltas = [0.02, 0.05, 0.1, 0.15, 0.2].map(tolerance);
    let mut group = criterion.benchmark_group("trials");
    group.sample_size(10);
    for p_value in [PValue::Betting, PValue::HoeffdingBentkus] {
        let options =
            CalibrationOptions { p_value, ..CalibrationOptions::new(deltas[0], LossKind::UnitInterval) };
        group.bench_function(
            format!("50 trials x 5 deltas x {THRESHOLDS} thresholds x {EXAMPLES} examples/{p_value}"),
            |bencher| bencher.iter(|| run_trials(&table, &options, &deltas, &splits).unwrap()),
        );
    }
    group.finish();
}

fn p_values(criterion: &mut Criterion) {
    const EXAMPLES: usize = 1_000_000;
    let fractional = losses(0.7, EXAMPLES, &mut ChaCha8Rng::seed_from_u64(2));
    let binary: Vec<f64> = fractional.iter().map(|loss| loss.ceil()).collect();
    let mut group = criterion.benchmark_group("p-value");
    group.sample_size(20);
    for &p_value in PValue::ALL {
        let (kind, losses) = match p_value {
            PValue::Binomial => (LossKind::Binary, &binary),
            _ => (LossKind::UnitInterval, &fractional),
        };
        group.bench_function(format!("{EXAMPLES} losses/{p_value}"), |bencher| {
            bencher.iter(|| {
                p_value.of_losses(black_box(losses), kind, tolerance(0.1), ErrorProbability::PAPER).unwrap()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, file, trials, p_values);
criterion_main!(benches);
