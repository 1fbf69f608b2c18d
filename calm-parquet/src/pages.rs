//! Pages of a column, each checked before the crate `parquet` decodes it.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::sync::Arc;

use parquet::basic::{Compression, Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::Result;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescPtr;

use crate::thrift::{Compact, Kind};
use crate::{damaged, delta};

/// Values of a list column that may be in one page.
///
/// Memory is needed for each of them until the list ends, while a few bytes of a page can stand for any
/// number.
const MOST_IN_LISTS: u64 = 1 << 24;

/// Reads pages as the crate `parquet` does.
pub(crate) struct CheckedPages {
    file: Arc<File>,
    pages: SerializedPageReader<File>,
    column: ColumnDescPtr,
    compression: Compression,
    /// Where the next page begins, and what the column has from there on.
    start: u64,
    bytes_left: u64,
    values_left: u64,
}

/// What the header of a page says.
#[derive(Debug, Default)]
struct Header {
    /// Length of the header itself in bytes.
    length: u64,
    compressed: i64,
    uncompressed: i64,
    /// Values of a data page.
    values: i64,
    values_in_dictionary: i64,
}

impl CheckedPages {
    /// Takes the pages of a column that lies within the file.
    pub(crate) fn new(
        file: Arc<File>,
        pages: SerializedPageReader<File>,
        chunk: &ColumnChunkMetaData,
    ) -> Self {
        let (start, bytes_left) = chunk.byte_range();
        Self {
            file,
            pages,
            column: chunk.column_descr_ptr(),
            compression: chunk.compression(),
            start,
            bytes_left,
            values_left: chunk.num_values().unsigned_abs(),
        }
    }

    fn read_header(&self) -> Result<Header> {
        let mut file = &*self.file;
        file.seek(SeekFrom::Start(self.start))?;
        let mut input = Compact::new(BufReader::with_capacity(256, file));
        let mut header = Header::default();
        let first_of_struct = |input: &mut Compact<_>, value: &mut i64| {
            input.fields(|input, number, kind| match (number, kind) {
                (1, Kind::Integer) => {
                    *value = input.integer()?;
                    Ok(())
                }
                (_, other) => input.pass(other),
            })
        };
        input.fields(|input, number, kind| {
            match (number, kind) {
                (2, Kind::Integer) => header.uncompressed = input.integer()?,
                (3, Kind::Integer) => header.compressed = input.integer()?,
                (5 | 8, Kind::Struct) => first_of_struct(input, &mut header.values)?,
                (7, Kind::Struct) => first_of_struct(input, &mut header.values_in_dictionary)?,
                (_, other) => input.pass(other)?,
            }
            Ok(())
        })?;
        header.length = input.position();
        Ok(header)
    }

    /// Reads the next page, of any kind.
    fn next_page(&mut self) -> Result<Option<Page>> {
        if self.bytes_left == 0 {
            return Err(damaged(format_args!(
                "column `{}` lacks {} values",
                self.column.path(),
                self.values_left
            )));
        }
        let header = self.read_header()?;
        self.check_header(&header)?;
        let length = header.length + header.compressed.unsigned_abs();
        self.start += length;
        self.bytes_left -= length;
        self.values_left -= header.values.unsigned_abs();
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            self.check_page(page)?;
        }
        Ok(page)
    }

    /// Checks what the header says against what the file has.
    fn check_header(&self, header: &Header) -> Result<()> {
        let sizes = u64::try_from(header.compressed).ok().zip(u64::try_from(header.uncompressed).ok());
        let whole = sizes.and_then(|(compressed, _)| header.length.checked_add(compressed));
        let (Some((compressed, uncompressed)), Some(whole)) = (sizes, whole) else {
            return Err(damaged("a page has an impossible size"));
        };
        if whole > self.bytes_left {
            return Err(damaged("a page is longer than its column"));
        }
        if let Some(ratio) = greatest_ratio(self.compression)
            && uncompressed > compressed.saturating_mul(ratio).saturating_add(64)
        {
            return Err(damaged(format_args!(
                "a page of {compressed} bytes would hold {uncompressed} bytes of {}, which is impossible",
                self.compression
            )));
        }
        let values = u64::try_from(header.values).unwrap_or(u64::MAX);
        if values > self.values_left || self.column.max_rep_level() > 0 && values > MOST_IN_LISTS {
            return Err(damaged(format_args!("a page has {} values", header.values)));
        }
        Ok(())
    }

    /// Checks what decoders believe.
    fn check_page(&self, page: &Page) -> Result<()> {
        let bytes = page.buffer().len() as u64;
        match page {
            Page::DictionaryPage { num_values, .. } => {
                let count = u64::from(*num_values);
                let most = match self.column.physical_type() {
                    Type::BOOLEAN => bytes.saturating_mul(8),
                    // Each text has its length in front.
                    Type::BYTE_ARRAY | Type::INT32 | Type::FLOAT => bytes / 4,
                    Type::INT64 | Type::DOUBLE => bytes / 8,
                    Type::INT96 => bytes / 12,
                    Type::FIXED_LEN_BYTE_ARRAY => bytes / u64::from(self.type_length().max(1)),
                };
                if count > most {
                    return Err(damaged(format_args!(
                        "a dictionary of {bytes} bytes would hold {count} values"
                    )));
                }
            }
            Page::DataPage { encoding, num_values, buf, def_level_encoding, rep_level_encoding, .. } => {
                let mut values = &buf[..];
                for (level, encoding) in [
                    (self.column.max_rep_level(), rep_level_encoding),
                    (self.column.max_def_level(), def_level_encoding),
                ] {
                    if level > 0 {
                        values = after_levels(values, level, *encoding, *num_values)?;
                    }
                }
                check_values(values, *encoding, *num_values)?;
            }
            Page::DataPageV2 {
                encoding, num_values, buf, def_levels_byte_len, rep_levels_byte_len, ..
            } => {
                let levels = u64::from(*def_levels_byte_len) + u64::from(*rep_levels_byte_len);
                let values = usize::try_from(levels).ok().and_then(|levels| buf.get(levels..));
                let values = values.ok_or_else(|| damaged("a page is shorter than its levels"))?;
                check_values(values, *encoding, *num_values)?;
            }
        }
        Ok(())
    }

    fn type_length(&self) -> u32 {
        self.column.type_length().unsigned_abs()
    }
}

/// How many times longer data can become than what they were compressed to.
///
/// `None` stands for no limit that is worth a check, and for formats in which nothing is believed.
fn greatest_ratio(compression: Compression) -> Option<u64> {
    match compression {
        // Three bytes stand for 64 at most.
        Compression::SNAPPY => Some(22),
        // <https://zlib.net/zlib_tech.html>
        Compression::GZIP(_) => Some(1032),
        // A byte lengthens a copy by 255 at most.
        Compression::LZ4 | Compression::LZ4_RAW => Some(256),
        // A block of at most 128 KiB has four bytes at least.
        Compression::ZSTD(_) => Some(32 * 1024),
        _ => None,
    }
}

/// Returns what follows the levels of a page of the first version.
fn after_levels(data: &[u8], max_level: i16, encoding: Encoding, num_values: u32) -> Result<&[u8]> {
    #[expect(deprecated, reason = "old files have it")]
    let length = if encoding == Encoding::BIT_PACKED {
        let bits = u64::from(16 - max_level.leading_zeros());
        (u64::from(num_values) * bits).div_ceil(8)
    } else {
        let length = data.first_chunk().ok_or_else(|| damaged("a page is shorter than its levels"))?;
        4 + u64::from(u32::from_le_bytes(*length))
    };
    let rest = usize::try_from(length).ok().and_then(|length| data.get(length..));
    rest.ok_or_else(|| damaged("a page is shorter than its levels"))
}

/// Checks the numbers of values that differences begin with.
fn check_values(values: &[u8], encoding: Encoding, num_values: u32) -> Result<()> {
    let most = u64::from(num_values);
    // A page of nulls alone may have nothing else.
    if values.is_empty() {
        return Ok(());
    }
    match encoding {
        Encoding::DELTA_BINARY_PACKED | Encoding::DELTA_LENGTH_BYTE_ARRAY => {
            delta::length(values, most)?;
        }
        // The lengths that texts have in common with the ones before, then the lengths of the rest.
        Encoding::DELTA_BYTE_ARRAY => {
            let prefixes = delta::length(values, most)?;
            let suffixes = values.get(prefixes..).ok_or_else(|| damaged("a page is cut off"))?;
            delta::length(suffixes, most)?;
        }
        _ => {}
    }
    Ok(())
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        while self.values_left > 0 {
            let page = self.next_page()?;
            // pyarrow writes pages without values, which a reader of columns takes for the end.
            if page.as_ref().is_none_or(|page| page.is_dictionary_page() || page.num_values() > 0) {
                return Ok(page);
            }
        }
        Ok(None)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        if self.values_left == 0 { Ok(None) } else { self.pages.peek_next_page() }
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.get_next_page().map(drop)
    }
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}
