//! Parquet files, of examples and of losses.

use calm_calibrate::read_table;
use calm_data::{Columns, read_examples, read_rows, read_segments};

use crate::scratch;

/// The file.
pub(crate) fn read(input: &[u8]) -> anyhow::Result<()> {
    let path = scratch::file("examples.parquet", input);
    let more = Columns { more_references: vec!["more".to_owned()], ..Columns::default() };
    // A file may be one of these and not the others.
    let results: [anyhow::Result<()>; 5] = [
        read_examples(&path, &more).map(drop).map_err(Into::into),
        read_examples(&path, &Columns::default()).map(drop).map_err(Into::into),
        read_rows(&path).map(drop).map_err(Into::into),
        read_segments(&path, "target").map(drop).map_err(Into::into),
        read_table(&path).map(drop).map_err(Into::into),
    ];
    results.into_iter().reduce(Result::or).unwrap_or(Ok(()))
}
