use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::column::page::PageReader;
use parquet::errors::Result;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use crate::guard::guarded;
use crate::pages::CheckedPages;
use crate::{damaged, footer};

/// A Parquet file whose footer was read and found to be possible.
#[derive(Debug)]
pub struct ParquetFile {
    path: PathBuf,
    metadata: ParquetMetaData,
}

impl ParquetFile {
    /// Reads the footer of the file, which was opened from `path`.
    ///
    /// # Errors
    /// Fails on what is no Parquet file, and on a footer that is damaged. The error does not name the file.
    pub fn open(path: &Path, mut file: File) -> Result<ParquetFile> {
        Ok(ParquetFile { path: path.to_owned(), metadata: footer::read(&mut file)? })
    }

    /// Returns the footer.
    pub fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }

    /// Opens the pages of a row group's column, given the index of each.
    ///
    /// # Errors
    /// Fails, as does reading the pages, if they are not what the footer says. Panics of the crate `parquet`
    /// while it decodes them are for the caller to catch, with [`guarded`].
    pub fn pages(&self, group: usize, column: usize) -> Result<Box<dyn PageReader>> {
        let group = self.metadata.row_group(group);
        let chunk = group.column(column);
        let what = |message: String| damaged(format_args!("column `{}` {message}", chunk.column_path()));
        let rows = usize::try_from(group.num_rows())?;
        let is_flat = chunk.column_descr().max_rep_level() == 0;
        if chunk.num_values() < group.num_rows() || is_flat && chunk.num_values() != group.num_rows() {
            return Err(what(format!("has {} values for {rows} rows", chunk.num_values())));
        }
        let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
        let end = start.checked_add(chunk.compressed_size()).filter(|&end| 0 <= start && start <= end);
        // Readers of one file share its position, so each column opens the file for itself.
        let file = File::open(&self.path)?;
        if end.is_none_or(|end| end.unsigned_abs() > file.metadata().map_or(0, |file| file.len())) {
            return Err(what("does not lie within the file".to_owned()));
        }
        let file = Arc::new(file);
        let pages = guarded(|| SerializedPageReader::new(Arc::clone(&file), chunk, rows, None))?;
        Ok(Box::new(CheckedPages::new(file, pages, chunk)))
    }
}
