//! The records of a dataset's file, whatever its format.

use crate::parquet_file::ParquetFile;
use crate::{Error, JsonLines, Result, json_document};
use flate2::bufread::MultiGzDecoder;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Records, each with the number of its line or of its place among the records, counted from 1.
pub(crate) type Records = Box<dyn Iterator<Item = Result<(usize, Value)>>>;

/// Opens a file in the format that its name's ending tells.
///
/// `columns` is told whether there is a column `id`, and returns the columns that are needed, for formats
/// that can leave columns unread.
pub(crate) fn open<'c>(path: &Path, columns: impl FnOnce(bool) -> Vec<&'c str>) -> Result<Records> {
    let unknown = || Error::UnknownFormat { path: path.to_owned() };
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(unknown)?;
    let (stem, is_gzip) = match name.strip_suffix(".gz") {
        Some(stem) => (stem, true),
        None => (name, false),
    };
    match (stem.rsplit_once('.').map(|(_, ending)| ending), is_gzip) {
        (Some("parquet"), false) => {
            let file = ParquetFile::open(path)?;
            let has_id = file.columns().iter().any(|name| name == "id");
            Ok(Box::new(file.records(&columns(has_id))?.into_iter().map(Ok)))
        }
        (Some("jsonl"), _) => Ok(Box::new(JsonLines::new(open_text(path, is_gzip)?, path))),
        (Some("json"), _) => {
            let mut text = Vec::new();
            open_text(path, is_gzip)?.read_to_end(&mut text).map_err(calm_files::Error::read(path))?;
            let records = json_document::parse(&text, path)?;
            Ok(Box::new((1..).zip(records).map(Ok)))
        }
        _ => Err(unknown()),
    }
}

fn open_text(path: &Path, is_gzip: bool) -> Result<Box<dyn BufRead>> {
    let file = BufReader::new(File::open(path).map_err(calm_files::Error::read(path))?);
    Ok(if is_gzip { Box::new(BufReader::new(MultiGzDecoder::new(file))) } else { Box::new(file) })
}
