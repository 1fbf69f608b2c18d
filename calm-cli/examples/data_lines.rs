//! This example prints a dataset's first examples as JSON Lines: `calm generate` reads their `source`, and
//! `calm score` their `target`, a list of the references.
//!
//!     cargo run -p calm-cli --example data_lines -- data/qa/test.parquet 100

use std::path::PathBuf;

use anyhow::Context;
use calm_data::{Columns, read_examples};
use serde_json::json;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let file = PathBuf::from(arguments.next().context("usage: data_lines FILE COUNT")?);
    let count = arguments.next().and_then(|count| count.to_str()?.parse().ok());
    let count: usize = count.context("COUNT is missing or not a number")?;
    let examples = read_examples(file.as_path(), &Columns::default())?;
    calm_files::print(|out| {
        examples.iter().take(count).try_for_each(|example| {
            let line = json!({ "id": example.id, "source": example.source, "target": example.references });
            writeln!(out, "{line}")
        })
    })?;
    Ok(())
}
