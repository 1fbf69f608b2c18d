//! The footer, in which a Parquet file describes itself.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{FooterTail, ParquetMetaData, ParquetMetaDataReader};

use crate::damaged;
use crate::guard::guarded;
use crate::thrift::{Compact, Kind};

/// The length of the footer and the magic number stand behind it.
const TAIL: usize = 8;

/// Columns within columns. The crate `parquet` descends into them by recursion.
const DEEPEST: usize = 64;

/// Reads the footer.
pub(crate) fn read(file: &mut File) -> Result<ParquetMetaData> {
    let file_length = file.metadata()?.len();
    let mut tail = [0; TAIL];
    let tail_start = file_length.checked_sub(TAIL as u64);
    let tail_start = tail_start
        .ok_or_else(|| ParquetError::General("Invalid Parquet file. Size is smaller than footer".into()))?;
    file.seek(SeekFrom::Start(tail_start))?;
    file.read_exact(&mut tail)?;
    let tail = FooterTail::try_new(&tail)?;
    if tail.is_encrypted_footer() {
        return Err(ParquetError::General("the file is encrypted, which cannot be read".into()));
    }
    let start = tail_start.checked_sub(tail.metadata_length() as u64);
    let start = start.ok_or_else(|| damaged("its footer would begin before the file does"))?;
    file.seek(SeekFrom::Start(start))?;
    let mut footer = vec![0; tail.metadata_length()];
    file.read_exact(&mut footer)?;
    repair(&mut footer)?;
    let metadata = guarded(|| ParquetMetaDataReader::decode_metadata(&footer))?;
    check(&metadata)?;
    Ok(metadata)
}

/// Checks that the footer is whole, and makes texts of what should be text and is not needed.
///
/// The name of the writer and its notes are bytes in any encoding. As pyarrow, this crate does not care; the
/// crate `parquet` refuses a file for them.
fn repair(footer: &mut [u8]) -> Result<()> {
    let mut texts = Vec::new();
    let mut note = |input: &mut Compact<&[u8]>| -> Result<()> {
        let length = input.pass_binary()?;
        texts.push((input.position() - length, length));
        Ok(())
    };
    Compact::new(&*footer).fields(|input, number, kind| match (number, kind) {
        (2, Kind::List) => check_depth(input),
        (5, Kind::List) => {
            let (length, item) = input.list()?;
            for _ in 0..length {
                match item {
                    Kind::Struct => input.fields(|input, _, kind| match kind {
                        Kind::Binary => note(input),
                        other => input.pass(other),
                    })?,
                    other => input.pass(other)?,
                }
            }
            Ok(())
        }
        (6, Kind::Binary) => note(input),
        (_, other) => input.pass(other),
    })?;
    for (start, length) in texts {
        // Positions within the footer, which is in memory.
        let text = &mut footer[start as usize..][..length as usize];
        if std::str::from_utf8(text).is_err() {
            text.iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b'?');
        }
    }
    Ok(())
}

/// Reads the schema, a list of elements in which the number of its fields comes before a group's fields.
fn check_depth(input: &mut Compact<&[u8]>) -> Result<()> {
    const CHILDREN: i64 = 5;
    let (length, item) = input.list()?;
    // Fields still to come of each group that is open.
    let mut open: Vec<i64> = Vec::new();
    for _ in 0..length {
        let mut children = 0;
        if item != Kind::Struct {
            return Err(damaged("its schema is no list of columns"));
        }
        input.fields(|input, number, kind| match (number, kind) {
            (CHILDREN, Kind::Integer) => {
                children = input.integer()?;
                Ok(())
            }
            (_, other) => input.pass(other),
        })?;
        if let Some(last) = open.last_mut() {
            *last -= 1;
        }
        if children > 0 {
            open.push(children);
        }
        while open.last().is_some_and(|&left| left <= 0) {
            open.pop();
        }
        if open.len() > DEEPEST {
            return Err(damaged("its columns are nested without end"));
        }
    }
    Ok(())
}

/// Checks the numbers that do not depend on where pages are.
fn check(metadata: &ParquetMetaData) -> Result<()> {
    let columns = metadata.file_metadata().schema_descr().num_columns();
    let mut rows = 0_i64;
    for (index, group) in metadata.row_groups().iter().enumerate() {
        if group.num_columns() != columns {
            let found = group.num_columns();
            return Err(damaged(format_args!("row group {index} has {found} columns instead of {columns}")));
        }
        let all = rows.checked_add(group.num_rows()).filter(|_| group.num_rows() >= 0);
        rows = all.ok_or_else(|| damaged(format_args!("row group {index} has an impossible length")))?;
    }
    let said = metadata.file_metadata().num_rows();
    if said != rows {
        return Err(damaged(format_args!("its footer tells of {said} rows and of {rows} in its row groups")));
    }
    Ok(())
}
