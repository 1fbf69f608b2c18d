//! Tests of losses from files.
//!
//! The result is the same as in memory whatever the order of the rows, and messages say what is wrong with a
//! file.

use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use calm_calibrate::{
    Calibration, CalibrationOptions, LossFile, LossKind, LossTable, PValue, Procedure, calibrate,
    calibrate_each, calibrate_file, exceeds, read_table,
};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

use crate::tolerance;

const THRESHOLDS: [f64; 5] = [1.0, 0.9, 0.75, 0.5, 0.1];

/// A row holds threshold, number of the example, and loss.
type Row = (f64, usize, f64);

fn example_table(examples: usize) -> LossTable {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut loss = |threshold: f64| {
        let differs = rng.random::<f64>() < 0.5 * (1.0 - threshold);
        if differs { rng.random::<f64>() } else { 0.0 }
    };
    let losses = THRESHOLDS.map(|threshold| (0..examples).map(|_| loss(threshold)).collect());
    LossTable::new(THRESHOLDS.to_vec(), losses.to_vec()).unwrap()
}

/// Puts rows into several orders, in all of which the examples first appear in the same order.
///
/// Rows are sorted by threshold, from the largest or from the least; by example; not at all; and not at all
/// within a threshold.
fn orders(table: &LossTable) -> Vec<(&'static str, Vec<Row>)> {
    let row = |index: usize, example: usize| (THRESHOLDS[index], example, table.losses(index)[example]);
    let of_threshold = |index: usize| (0..table.examples()).map(move |example| row(index, example));
    let by_threshold: Vec<Row> = (0..THRESHOLDS.len()).flat_map(of_threshold).collect();
    let ascending = (0..THRESHOLDS.len()).rev().flat_map(of_threshold).collect();
    let by_example =
        (0..table.examples()).flat_map(|example| (0..THRESHOLDS.len()).map(move |index| row(index, example)));

    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut shuffled: Vec<(usize, usize)> = (0..table.examples())
        .flat_map(|example| (0..THRESHOLDS.len()).map(move |index| (index, example)))
        .collect();
    shuffled.shuffle(&mut rng);
    let mut appeared = Vec::new();
    let shuffled = shuffled.into_iter().map(|(index, example)| {
        let number = appeared.iter().position(|&other| other == example).unwrap_or_else(|| {
            appeared.push(example);
            appeared.len() - 1
        });
        row(index, number)
    });
    let shuffled = shuffled.collect();

    let mut within = by_threshold.clone();
    within.chunks_mut(table.examples()).skip(1).for_each(|rows| rows.shuffle(&mut rng));
    vec![
        ("by threshold", by_threshold),
        ("from the least threshold", ascending),
        ("by example", by_example.collect()),
        ("shuffled", shuffled),
        ("shuffled within a threshold", within),
    ]
}

fn write_csv<E: Display>(dir: &TempDir, rows: impl IntoIterator<Item = (f64, E, f64)>) -> PathBuf {
    let rows = rows.into_iter().map(|(threshold, example, loss)| format!("{loss},x,{example},{threshold}\n"));
    write_text(dir, &format!("loss,model,example,threshold\n{}", rows.collect::<String>()))
}

fn write_text(dir: &TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("losses.csv");
    std::fs::write(&path, text).unwrap();
    path
}

/// A column of a Parquet file.
enum Column {
    Double(Vec<Option<f64>>),
    Float(Vec<Option<f32>>),
    Int32(Vec<Option<i32>>),
    Int64(Vec<Option<i64>>),
    Bool(Vec<Option<bool>>),
    Text(Vec<Option<&'static str>>),
}

/// Writes row groups of `group` rows. The types of the columns are those of `schema`.
fn write_parquet(dir: &TempDir, schema: &str, group: usize, columns: &[Column]) -> PathBuf {
    fn write<T: DataType>(
        row_group: &mut SerializedRowGroupWriter<'_, File>,
        values: &[Option<T::T>],
        rows: std::ops::Range<usize>,
    ) {
        let values = &values[rows.start.min(values.len())..rows.end.min(values.len())];
        let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
        let values: Vec<T::T> = values.iter().flatten().cloned().collect();
        let mut column = row_group.next_column().unwrap().unwrap();
        column.typed::<T>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
    }
    let path = dir.path().join("losses.parquet");
    let schema = Arc::new(parse_message_type(&format!("message losses {{ {schema} }}")).unwrap());
    let properties = WriterProperties::builder().set_data_page_row_count_limit(7).set_write_batch_size(7);
    let mut writer =
        SerializedFileWriter::new(File::create(&path).unwrap(), schema, Arc::new(properties.build()))
            .unwrap();
    let rows = match &columns[0] {
        Column::Double(values) => values.len(),
        Column::Float(values) => values.len(),
        Column::Int32(values) => values.len(),
        Column::Int64(values) => values.len(),
        Column::Bool(values) => values.len(),
        Column::Text(values) => values.len(),
    };
    for start in (0..rows).step_by(group) {
        let (mut row_group, rows) = (writer.next_row_group().unwrap(), start..start + group);
        for column in columns {
            match column {
                Column::Double(values) => write::<DoubleType>(&mut row_group, values, rows.clone()),
                Column::Float(values) => write::<FloatType>(&mut row_group, values, rows.clone()),
                Column::Int32(values) => write::<Int32Type>(&mut row_group, values, rows.clone()),
                Column::Int64(values) => write::<Int64Type>(&mut row_group, values, rows.clone()),
                Column::Bool(values) => write::<BoolType>(&mut row_group, values, rows.clone()),
                Column::Text(values) => {
                    let values: Vec<_> = values.iter().map(|text| text.map(ByteArray::from)).collect();
                    write::<ByteArrayType>(&mut row_group, &values, rows.clone());
                }
            }
        }
        row_group.close().unwrap();
    }
    writer.close().unwrap();
    path
}

fn some<T, U>(values: impl IntoIterator<Item = T>, convert: impl Fn(T) -> U) -> Vec<Option<U>> {
    values.into_iter().map(|value| Some(convert(value))).collect()
}

fn betting() -> CalibrationOptions {
    CalibrationOptions::new(tolerance(0.1), LossKind::UnitInterval)
}

fn assert_same(calibration: &Calibration, expected: &Calibration, what: &str) {
    assert_eq!(calibration, expected, "{what}");
    assert!(
        !expected.fallback && expected.certified.len() < expected.thresholds.len(),
        "an idle test: {expected:?}"
    );
}

/// The names are numbers that ascend, numbers that do not, and texts.
///
/// Row groups of 97 rows end within thresholds and examples.
#[test]
fn the_order_of_the_rows_makes_no_difference() {
    let table = example_table(500);
    let pareto = CalibrationOptions {
        procedure: "pareto".parse::<Procedure>().unwrap(),
        ..CalibrationOptions::new(tolerance(0.15), LossKind::UnitInterval)
    };
    let paper = CalibrationOptions::paper(tolerance(0.1));
    for options in [betting(), pareto, paper] {
        let expected = calibrate(&table, &options).unwrap();
        for (what, rows) in orders(&table) {
            let dir = TempDir::new().unwrap();
            for name in [|number: usize| number as i64, |number| (number as i64 * 7919) % 10007 - 5000] {
                let csv =
                    write_csv(&dir, rows.iter().map(|row| (row.0, format!("prompt {}", name(row.1)), row.2)));
                assert_same(&calibrate_file(&csv, &options).unwrap(), &expected, what);
                assert_eq!(read_table(&csv).unwrap(), table, "{what}");

                let columns = [
                    Column::Int64(some(&rows, |row| name(row.1))),
                    Column::Double(some(&rows, |row| row.2)),
                    Column::Double(some(&rows, |row| row.0)),
                ];
                for repetition in ["required", "optional"] {
                    let schema = format!(
                        "{repetition} int64 example; {repetition} double loss; {repetition} double threshold;"
                    );
                    let parquet = write_parquet(&dir, &schema, 97, &columns);
                    assert_same(&calibrate_file(&parquet, &options).unwrap(), &expected, what);
                    assert_eq!(read_table(&parquet).unwrap(), table, "{what}");
                }
            }
        }
    }
}

/// There are more rows than a batch has; those of the second threshold are half in order and half not.
#[test]
fn batches_make_no_difference() {
    let table = example_table(20_000);
    let mut rows = orders(&table).swap_remove(0).1;
    rows[30_000..40_000].reverse();
    let columns = [
        Column::Double(some(&rows, |row| row.0)),
        Column::Int64(some(&rows, |row| row.1 as i64)),
        Column::Double(some(&rows, |row| row.2)),
    ];
    let dir = TempDir::new().unwrap();
    let schema = "required double threshold; required int64 example; required double loss;";
    let parquet = write_parquet(&dir, schema, 70_000, &columns);
    let deltas = [0.05, 0.1].map(tolerance);
    let expected = calibrate_each(&table, &betting(), &deltas).unwrap();
    assert_eq!(LossFile::new(parquet).calibrate_each(&betting(), &deltas).unwrap(), expected);
    assert_eq!(LossFile::new(write_csv(&dir, rows)).calibrate_each(&betting(), &deltas).unwrap(), expected);
}

#[test]
fn a_limit_makes_the_losses_binary() {
    let table = example_table(500);
    let limited = |index: usize| table.losses(index).iter().map(|&loss| exceeds(loss, 0.3)).collect();
    let limited = LossTable::new(THRESHOLDS.to_vec(), (0..THRESHOLDS.len()).map(limited).collect()).unwrap();
    let options = CalibrationOptions::new(tolerance(0.15), LossKind::Binary);
    assert_eq!(options.p_value, PValue::Binomial);
    let expected = calibrate(&limited, &options).unwrap();
    for (what, rows) in orders(&table) {
        let dir = TempDir::new().unwrap();
        // Before the limit is applied, losses need not be in any range, except that those of the full model
        // must be 0.
        let rows = rows.into_iter().map(|row| (row.0, row.1, if row.2 > 0.3 { 1e3 } else { row.2 }));
        let file = LossFile { path: write_csv(&dir, rows), limit: Some(0.3) };
        assert_same(&file.calibrate(&options).unwrap(), &expected, what);
        assert_eq!(file.read_table().unwrap(), limited, "{what}");
    }
}

/// An infinite loss can be compared with a limit, a missing one cannot.
#[test]
fn a_limit_needs_numbers() {
    let dir = TempDir::new().unwrap();
    let read = |losses: [&str; 2]| {
        let rows = format!("threshold,example,loss\n0.5,a,{}\n0.5,b,{}\n", losses[0], losses[1]);
        LossFile { path: write_text(&dir, &rows), limit: Some(0.3) }.read_table()
    };
    assert_eq!(read(["inf", "0.2"]).unwrap().losses(0), [1.0, 0.0]);
    let error = read(["0.2", "nan"]).unwrap_err().to_string();
    assert!(error.ends_with("losses.csv, line 3, column `loss`: NaN is not a number"), "{error}");
}

/// All files give the same small table.
#[test]
fn columns_of_all_types() {
    let dir = TempDir::new().unwrap();
    let expected = LossTable::new(vec![1.0, 0.0], vec![vec![0.0, 0.0, 0.0], vec![1.0, 0.0, 1.0]]).unwrap();
    let thresholds = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0];
    let examples = [3, 3, -1, -1, 2, 2];
    let losses = [0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
    let names = |number: i64| {
        if number == 3 {
            "c"
        } else if number == 2 {
            "é"
        } else {
            "a b"
        }
    };
    let numbers = |name: &str| match name {
        "double" => Column::Double(some(thresholds, |value| value)),
        "float" => Column::Float(some(thresholds, |value| value as f32)),
        "int32" => Column::Int32(some(thresholds, |value| value as i32)),
        _ => Column::Int64(some(thresholds, |value| value as i64)),
    };
    let check = |types: [&str; 3], threshold: Column, example: Column, loss: Column| {
        let [a, b, c] = types;
        let schema = format!("optional {a} threshold; optional {b} example; optional {c} loss;");
        let path = write_parquet(&dir, &schema, 4, &[threshold, example, loss]);
        assert_eq!(read_table(&path).unwrap(), expected, "{types:?}");
    };
    let example = || Column::Int64(some(examples, |value| value));
    let loss = || Column::Double(some(losses, |value| value));
    for name in ["double", "float", "int32", "int64"] {
        check([name, "int64", "double"], numbers(name), example(), loss());
    }
    let example_int32 = Column::Int32(some(examples, |value| value as i32));
    let loss_float = Column::Float(some(losses, |value| value as f32));
    check(["float", "int32", "float"], numbers("float"), example_int32, loss_float);
    let example_text = Column::Text(some(examples, names));
    let loss_int32 = Column::Int32(some(losses, |value| value as i32));
    check(["int32", "binary", "int32"], numbers("int32"), example_text, loss_int32);
    let text = "optional int64 threshold; optional binary example (string); optional boolean loss;";
    let columns = [
        numbers("int64"),
        Column::Text(some(examples, names)),
        Column::Bool(some(losses, |value| value == 1.0)),
    ];
    assert_eq!(read_table(&write_parquet(&dir, text, 2, &columns)).unwrap(), expected);
    let unsigned =
        "optional double threshold; optional int64 example (integer(64,false)); optional int64 loss;";
    let columns = [numbers("double"), example(), Column::Int64(some(losses, |value| value as i64))];
    assert_eq!(read_table(&write_parquet(&dir, unsigned, 6, &columns)).unwrap(), expected);
}

#[test]
fn thresholds_of_single_precision_are_what_was_meant() {
    let dir = TempDir::new().unwrap();
    let columns = [
        Column::Float(some([0.3_f32, 0.9, 0.95, 1e-7], |value| value)),
        Column::Int32(some([0; 4], |value| value)),
        Column::Float(some([0.5_f32; 4], |value| value)),
    ];
    let schema = "required float threshold; required int32 example; required float loss;";
    let table = read_table(&write_parquet(&dir, schema, 10, &columns)).unwrap();
    assert_eq!(table.thresholds(), [0.95, 0.9, 0.3, 1e-7]);
}

#[test]
fn a_file_is_parquet_by_its_content_or_name() {
    let dir = TempDir::new().unwrap();
    let columns = [
        Column::Double(some([0.5], |value| value)),
        Column::Int32(some([0], |value| value)),
        Column::Double(some([0.0], |value| value)),
    ];
    let schema = "required double threshold; required int32 example; required double loss;";
    let parquet = write_parquet(&dir, schema, 10, &columns);
    let renamed = dir.path().join("losses.csv");
    std::fs::copy(&parquet, &renamed).unwrap();
    assert_eq!(read_table(&renamed).unwrap().examples(), 1);
    std::fs::write(&parquet, "threshold,example,loss\n0.5,0,0\n").unwrap();
    let error = read_table(&parquet).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("{}: Parquet error: Invalid Parquet file", parquet.display())),
        "{error}"
    );
}

/// Returns the message about a file, after its path.
fn message_of(path: &Path, options: &CalibrationOptions) -> String {
    let message = calibrate_file(path, options).unwrap_err().to_string();
    message.strip_prefix(&path.display().to_string()).unwrap().to_owned()
}

#[test]
fn broken_csv() {
    let dir = TempDir::new().unwrap();
    let check = |text: &str, expected: &str| {
        assert_eq!(message_of(&write_text(&dir, text), &betting()), expected, "{text}");
    };
    let rows = |rows: &str| format!("threshold,example,loss\n{rows}");
    check("", ": there are no rows");
    check("threshold,example,loss\n", ": there are no rows");
    check(
        "lambda,example,loss\n0.5,a,0\n",
        ": there is no column `threshold`, only `lambda`, `example`, `loss`",
    );
    check("threshold,id,loss\n0.5,a,0\n", ": there is no column `example`, only `threshold`, `id`, `loss`");
    check("threshold,example\n0.5,a\n", ": there is no column `loss`, only `threshold`, `example`");
    check("threshold,loss,example,loss\n0.5,1,a,0\n", ": two columns are named `loss`: rename one of them");
    check(&rows("0.5,a,null\n"), ", line 2, column `loss`: `null` is not a number");
    check(&rows("0.5,a,0\nx,b,0\n"), ", line 3, column `threshold`: `x` is not a number");
    check(&rows("0.5,a,0\n1.5,b,0\n"), ", line 3, column `threshold`: 1.5 is not in [0, 1]");
    check(&rows("NaN,a,0\n"), ", line 2, column `threshold`: NaN is not in [0, 1]");
    check(&rows(",a,0\n"), ", line 2, column `threshold`: the cell is empty");
    check(&rows("0.5,\"a\nb\",0\n0.5,,0\n"), ", line 4, column `example`: the cell is empty");
    check(&rows("0.5,a,\n"), ", line 2, column `loss`: the cell is empty");
    check(&rows("0.5,a,high\n"), ", line 2, column `loss`: `high` is not a number");
    check(
        &rows("0.5,a,0\n0.5,b,1.25\n"),
        ", line 3: the loss of example `b` at threshold 0.5 is 1.25, which is not in [0, 1]",
    );
    check(
        &rows("0.5,a,NaN\n"),
        ", line 2: the loss of example `a` at threshold 0.5 is NaN, which is not in [0, 1]",
    );
    check(
        &rows("0.5,a,1\n1,a,0\n1,b,0.25\n0.5,b,0\n"),
        ", line 4: at threshold 1, the full model, example `b` must have loss 0 but has 0.25",
    );

    let duplicate = ", line 4: example `a` has a second loss at threshold 0.5";
    check(&rows("0.5,a,0\n0.5,b,0\n0.5,a,0\n"), duplicate);
    check(&rows("0.5,a,0\n0.4,a,0\n0.5,a,0\n0.4,b,0\n"), duplicate);
    // This is the second row of a loss that came early.
    check(
        &rows("0.5,a,0\n0.5,b,0\n0.4,b,0\n0.4,b,0\n"),
        ", line 5: example `b` has a second loss at threshold 0.4",
    );
    let missing =
        |example: &str, threshold: f64| format!(": example `{example}` has no loss at threshold {threshold}");
    check(&rows("0.4,a,0\n0.5,a,0\n0.3,a,0\n0.4,b,0\n0.5,c,0\n0.3,c,0\n0.4,c,0\n"), &missing("b", 0.5));
    // There are as many rows as two examples would have.
    check(&rows("0.5,c,0\n0.5,b,0\n0.4,b,0\n0.4,a,0\n"), &missing("c", 0.4));
    check(&rows("0.5,b,0\n0.5,a,0\n0.4,b,0\n"), &missing("a", 0.4));
    check(&rows("0.4,b,0\n0.4,a,0\n0.5,a,0\n"), &missing("b", 0.5));

    let error = message_of(&write_text(&dir, &rows("0.5,a\n")), &betting());
    assert!(error.starts_with(": CSV error: record 1 (line: 2"), "{error}");
    std::fs::write(dir.path().join("losses.csv"), b"threshold,example,loss\n0.5,\xff,0\n").unwrap();
    let error = message_of(&dir.path().join("losses.csv"), &betting());
    assert!(error.starts_with(", line 2, column `example`: the text is not UTF-8"), "{error}");

    let nan = read_table(&write_text(&dir, &rows("0.5,a,NaN\n"))).unwrap_err().to_string();
    assert!(nan.ends_with("losses.csv, line 2, column `loss`: NaN is not a number"), "{nan}");
    let infinite = read_table(&write_text(&dir, &rows("0.5,a,1\n0.5,b,inf\n"))).unwrap_err().to_string();
    assert!(infinite.ends_with("losses.csv, line 3, column `loss`: inf is not a number"), "{infinite}");
    let options = CalibrationOptions { p_value: PValue::Binomial, ..betting() };
    let error = message_of(&write_text(&dir, &rows("0.5,a,0\n")), &options);
    assert_eq!(error, ": the binomial p-value does not hold for losses of kind unit");
    let error = message_of(&dir.path().join("absent.csv"), &betting());
    assert!(error.starts_with(": No such file"), "{error}");
}

#[test]
fn broken_parquet() {
    let dir = TempDir::new().unwrap();
    let types = "optional double threshold; optional int64 example; optional double loss;";
    let check = |schema: &str, columns: [Column; 3], expected: &str| {
        assert_eq!(message_of(&write_parquet(&dir, schema, 2, &columns), &betting()), expected);
    };
    let check_rows = |rows: &[(Option<f64>, Option<i64>, Option<f64>)], expected: &str| {
        let columns = [
            Column::Double(rows.iter().map(|row| row.0).collect()),
            Column::Int64(rows.iter().map(|row| row.1).collect()),
            Column::Double(rows.iter().map(|row| row.2).collect()),
        ];
        check(types, columns, expected);
    };
    let row = |threshold: f64, example: i64, loss: f64| (Some(threshold), Some(example), Some(loss));
    check_rows(&[], ": there are no rows");
    let three = [row(0.5, 1, 0.0), row(0.5, 2, 0.0), row(0.5, 3, 0.0)];
    let with = |last| [&three[..], &[last]].concat();
    check_rows(&with((None, Some(4), Some(0.0))), ", row 4, column `threshold`: the cell is null");
    check_rows(&with((Some(0.5), None, Some(0.0))), ", row 4, column `example`: the cell is null");
    check_rows(&with((Some(0.5), Some(4), None)), ", row 4, column `loss`: the cell is null");
    check_rows(&with(row(-0.5, 4, 0.0)), ", row 4, column `threshold`: -0.5 is not in [0, 1]");
    check_rows(
        &with(row(0.5, 4, -1.0)),
        ", row 4: the loss of example `4` at threshold 0.5 is -1, which is not in [0, 1]",
    );
    check_rows(&with(row(0.5, 2, 0.0)), ", row 4: example `2` has a second loss at threshold 0.5");
    check_rows(&with(row(0.25, 2, 0.0)), ": example `1` has no loss at threshold 0.25");
    check_rows(
        &with(row(1.0, 2, 1.0)),
        ", row 4: at threshold 1, the full model, example `2` must have loss 0 but has 1",
    );

    let one = || Column::Double(vec![Some(0.5)]);
    check(
        "optional double threshold; optional double threshold; optional double loss;",
        [one(), one(), one()],
        ": two columns are named `threshold`: rename one of them",
    );
    let number = || Column::Int64(vec![Some(0)]);
    check(
        "optional double threshold; optional int64 prompt; optional double loss;",
        [one(), number(), one()],
        ": there is no column `example`, only `threshold`, `prompt`, `loss`",
    );
    check(
        "optional binary threshold (string); optional int64 example; optional double loss;",
        [Column::Text(vec![Some("0.5")]), number(), one()],
        ": the column `threshold` is BYTE_ARRAY (UTF8), expected DOUBLE, FLOAT, INT32 or INT64",
    );
    check(
        "optional boolean threshold; optional int64 example; optional double loss;",
        [Column::Bool(vec![Some(true)]), number(), one()],
        ": the column `threshold` is BOOLEAN, expected DOUBLE, FLOAT, INT32 or INT64",
    );
    check(
        "optional double threshold; optional double example; optional double loss;",
        [one(), one(), one()],
        ": the column `example` is DOUBLE, expected an integer or a string",
    );
    check(
        "optional double threshold; optional int64 example; optional int64 loss (timestamp(MICROS,true));",
        [one(), number(), number()],
        ": the column `loss` is INT64 (TIMESTAMP_MICROS), expected DOUBLE, FLOAT, INT32, INT64 or BOOLEAN",
    );
}
