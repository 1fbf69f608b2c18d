use std::fs::File;
use std::path::Path;

use csv::{ByteRecord, Reader, ReaderBuilder};

use super::error::{LossFileError, Place};
use super::rows::{BATCH, Batch, Columns, EXAMPLE, LOSS, Part, Places, Source, THRESHOLD, column_index};

/// A CSV file of losses, read as one part: only the rows before it tell where a row begins.
pub(super) struct CsvLosses<'a> {
    path: &'a Path,
    threshold: usize,
    example: usize,
    loss: usize,
}

impl<'a> CsvLosses<'a> {
    /// Reads the header. Fails if a column is missing.
    pub(super) fn open(path: &'a Path) -> Result<Self, LossFileError> {
        let mut reader = reader(path)?;
        let header = reader.headers().map_err(LossFileError::csv(path))?;
        if header.is_empty() {
            return Err(LossFileError::NoRows { path: path.to_owned() });
        }
        let names: Vec<String> = header.iter().map(str::to_owned).collect();
        let index_of = |column| column_index(path, &names, column);
        Ok(Self { path, threshold: index_of(THRESHOLD)?, example: index_of(EXAMPLE)?, loss: index_of(LOSS)? })
    }
}

impl Source<String> for CsvLosses<'_> {
    fn parts(&self) -> usize {
        1
    }

    fn open(&self, _part: usize, columns: Columns) -> Result<Box<dyn Part<String> + '_>, LossFileError> {
        Ok(Box::new(CsvPart { losses: self, columns, reader: reader(self.path)?, record: ByteRecord::new() }))
    }
}

struct CsvPart<'a> {
    losses: &'a CsvLosses<'a>,
    columns: Columns,
    reader: Reader<File>,
    record: ByteRecord,
}

impl Part<String> for CsvPart<'_> {
    fn fill(&mut self, batch: &mut Batch<String>) -> Result<(), LossFileError> {
        let CsvLosses { path, threshold, example, loss } = *self.losses;
        batch.thresholds.clear();
        batch.losses.clear();
        let mut lines = match std::mem::take(&mut batch.places) {
            Places::Lines(lines) => lines,
            Places::RowsFrom(_) => Vec::with_capacity(BATCH),
        };
        lines.clear();
        while lines.len() < BATCH
            && self.reader.read_byte_record(&mut self.record).map_err(LossFileError::csv(path))?
        {
            let line = self.record.position().map_or(0, csv::Position::line);
            let cell_error = |column: &'static str, message: String| LossFileError::Cell {
                path: path.to_owned(),
                place: Place::Line(line),
                column,
                message,
            };
            let text_of = |index: usize, column| {
                text(self.record.get(index)).map_err(|message| cell_error(column, message))
            };
            let number_of = |index: usize, column| {
                number(text_of(index, column)?).map_err(|message| cell_error(column, message))
            };
            batch.thresholds.push(number_of(threshold, THRESHOLD)?);
            if self.columns == Columns::All {
                let name = text_of(example, EXAMPLE)?;
                // A batch that was used before has texts that can be overwritten.
                match batch.examples.get_mut(lines.len()) {
                    Some(example) => name.clone_into(example),
                    None => batch.examples.push(name.to_owned()),
                }
                batch.losses.push(number_of(loss, LOSS)?);
            }
            lines.push(line);
        }
        batch.examples.truncate(lines.len());
        batch.places = Places::Lines(lines);
        Ok(())
    }
}

fn reader(path: &Path) -> Result<Reader<File>, LossFileError> {
    let file = File::open(path).map_err(LossFileError::io(path))?;
    Ok(ReaderBuilder::new().buffer_capacity(1 << 20).from_reader(file))
}

/// Returns the text of a cell. Fails, with a message, on one that is empty or not UTF-8.
fn text(cell: Option<&[u8]>) -> Result<&str, String> {
    match std::str::from_utf8(cell.unwrap_or_default()) {
        Ok("") => Err("the cell is empty".to_owned()),
        Ok(text) => Ok(text),
        Err(error) => Err(format!("the text is not UTF-8: {error}")),
    }
}

fn number(text: &str) -> Result<f64, String> {
    text.trim().parse().map_err(|_| format!("`{text}` is not a number"))
}
