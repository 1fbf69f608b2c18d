//! Text files, compressed or not.

use crate::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// What gzip's files begin with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Compressed text may always become this long.
const PLAUSIBLE_LENGTH: u64 = 64 << 20;

/// Longer text may become this many times longer than what it was compressed to.
///
/// Text of any use becomes ten times longer, and the same line again and again about a hundred times.
const PLAUSIBLE_RATIO: u64 = 250;

/// Opens a text file, which gzip may have compressed: its name ends in `.gz` then, or it begins as such files
/// do.
///
/// # Errors
/// Fails if the file cannot be opened or read. Reading fails on what gzip did not write, and on compressed
/// text that becomes implausibly long: 64 MiB, and 250 times longer than the file.
pub fn open_text(path: &Path) -> Result<Box<dyn BufRead>> {
    let file = BufReader::new(File::open(path).map_err(calm_files::Error::read(path))?);
    if has_gzip_name(path) {
        return Ok(decompressed(file));
    }
    plain_text(file).map_err(|error| calm_files::Error::read(path)(error).into())
}

/// Makes a reader of plain text of one that may be compressed, as its first bytes tell.
///
/// # Errors
/// Fails if the first bytes cannot be read. Reading fails as for [`open_text`].
pub fn plain_text(mut input: impl BufRead + 'static) -> io::Result<Box<dyn BufRead>> {
    let is_gzip = input.fill_buf()?.starts_with(&GZIP);
    Ok(if is_gzip { decompressed(input) } else { Box::new(input) })
}

/// Reads all text of a file that [`open_text`] opens.
pub(crate) fn read_text(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    open_text(path)?.read_to_end(&mut text).map_err(calm_files::Error::read(path))?;
    Ok(text)
}

fn has_gzip_name(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"))
}

fn decompressed(input: impl BufRead + 'static) -> Box<dyn BufRead> {
    let decoder = MultiGzDecoder::new(Counted { input, consumed: 0 });
    Box::new(BufReader::new(Plausible { decoder, produced: 0 }))
}

/// Counts the bytes that were taken from a reader.
struct Counted<R> {
    input: R,
    consumed: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.consumed += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.consumed += amount as u64;
        self.input.consume(amount);
    }
}

/// Ends with an error where a text becomes implausibly long.
struct Plausible<R> {
    decoder: MultiGzDecoder<Counted<R>>,
    produced: u64,
}

impl<R: BufRead> Read for Plausible<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer)?;
        self.produced += read as u64;
        let plausible = self.decoder.get_ref().consumed.saturating_mul(PLAUSIBLE_RATIO);
        if self.produced > plausible.max(PLAUSIBLE_LENGTH) {
            let consumed = self.decoder.get_ref().consumed;
            return Err(io::Error::other(format!(
                "{consumed} compressed bytes become more than {} MiB, as no text does: decompress it if it is right",
                self.produced >> 20
            )));
        }
        Ok(read)
    }
}

/// The lines of a text, without their ends.
///
/// # Errors
/// Fails on a line that is not UTF-8.
pub(crate) fn lines(text: &[u8], path: &Path) -> Result<Vec<String>> {
    let text = std::str::from_utf8(text).map_err(|error| {
        let before = &text[..error.valid_up_to()];
        let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        Error::Malformed {
            path: path.to_owned(),
            line: 1 + before.iter().filter(|&&byte| byte == b'\n').count(),
            column: Some(before.len() - line_start + 1),
            message: "the text is not UTF-8".to_owned(),
        }
    })?;
    Ok(text.lines().map(str::to_owned).collect())
}
