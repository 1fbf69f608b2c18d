//! Streams of numbers that are written as differences (`DELTA_BINARY_PACKED`), of which a decoder believes
//! how many there are.

use parquet::errors::Result;

use crate::damaged;
use crate::thrift::Compact;

/// Finds the end of a stream that holds at most `most` numbers, and returns its length in bytes.
///
/// A stream has the numbers of values in a block, of parts of a block, and of values, and the first value;
/// then blocks: the least difference, the width in bits of each part, and the parts, of which the last block
/// has only those that it needs.
/// <https://parquet.apache.org/docs/file-format/data-pages/encodings/#DELTAENC>
pub(crate) fn length(data: &[u8], most: u64) -> Result<usize> {
    let mut header = Compact::new(data);
    let (block, parts, count) = (header.unsigned()?, header.unsigned()?, header.unsigned()?);
    header.integer()?;
    if count > most {
        return Err(damaged(format_args!("a page of {most} values holds {count}")));
    }
    let in_part = block.checked_div(parts).filter(|&values| values > 0 && values % 8 == 0);
    let in_part = in_part.ok_or_else(|| damaged("a page has blocks of an impossible size"))?;
    let cut_off = || damaged("a page is cut off");
    let mut end = usize::try_from(header.position())?;
    let mut left = count.saturating_sub(1);
    while left > 0 {
        let mut block = Compact::new(data.get(end..).ok_or_else(cut_off)?);
        block.integer()?;
        end += usize::try_from(block.position())?;
        let widths_end = usize::try_from(parts).ok().and_then(|parts| end.checked_add(parts));
        let widths = widths_end.and_then(|widths_end| data.get(end..widths_end)).ok_or_else(cut_off)?;
        end += widths.len();
        for &width in widths {
            if left > 0 {
                let bytes = (in_part / 8).checked_mul(u64::from(width)).ok_or_else(cut_off)?;
                end = end.checked_add(usize::try_from(bytes)?).ok_or_else(cut_off)?;
                left = left.saturating_sub(in_part);
            }
        }
    }
    Ok(end)
}
