//! Text files, compressed or not.

use crate::{Error, Result};
use flate2::bufread::MultiGzDecoder;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

/// What compresses texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    const ALL: [Self; 2] = [Self::Gzip, Self::Zstd];

    /// The ending of names.
    fn ending(self) -> &'static str {
        match self {
            Self::Gzip => "gz",
            Self::Zstd => "zst",
        }
    }

    /// What files begin with.
    fn magic(self) -> &'static [u8] {
        match self {
            Self::Gzip => &[0x1f, 0x8b],
            Self::Zstd => &[0x28, 0xb5, 0x2f, 0xfd],
        }
    }
}

/// Compressed text may always become this long. What is read from a text may need a hundred times its length.
const PLAUSIBLE_LENGTH: u64 = 4 << 20;

/// Longer text may become this many times longer than what it was compressed to.
///
/// Text of any use becomes ten times longer, and the same line again and again about a hundred times.
const PLAUSIBLE_RATIO: u64 = 250;

/// Opens a text file, which gzip or zstd may have compressed: its name ends in `.gz` or `.zst` then, or it
/// begins as such files do. `-` is standard input.
///
/// # Errors
/// Fails if the file cannot be opened or read. Reading fails on what is damaged, and on compressed text that
/// becomes implausibly long: 4 MiB, and 250 times longer than the file.
pub fn open_text(path: &Path) -> Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return plain_text(io::stdin().lock()).map_err(|error| calm_files::Error::read(path)(error).into());
    }
    let file = BufReader::new(File::open(path).map_err(calm_files::Error::read(path))?);
    let opened = match compression_of_name(path) {
        Some(compression) => decompressed(file, compression),
        None => plain_text(file),
    };
    opened.map_err(|error| calm_files::Error::read(path)(error).into())
}

/// Makes a reader of plain text of one that may be compressed, as its first bytes tell.
///
/// # Errors
/// Fails if the first bytes cannot be read. Reading fails as for [`open_text`].
pub fn plain_text(mut input: impl BufRead + 'static) -> io::Result<Box<dyn BufRead>> {
    let start = input.fill_buf()?;
    match Compression::ALL.into_iter().find(|compression| start.starts_with(compression.magic())) {
        Some(compression) => decompressed(input, compression),
        None => Ok(Box::new(input)),
    }
}

/// Reads all text of a file that [`open_text`] opens.
pub(crate) fn read_text(path: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    open_text(path)?.read_to_end(&mut text).map_err(calm_files::Error::read(path))?;
    Ok(text)
}

/// A name without the ending of what has compressed the file, if it has one.
pub(crate) fn without_compression(name: &str) -> &str {
    let stripped = Compression::ALL.into_iter().find_map(|compression| {
        let (stem, ending) = name.rsplit_once('.')?;
        ending.eq_ignore_ascii_case(compression.ending()).then_some(stem)
    });
    stripped.unwrap_or(name)
}

fn compression_of_name(path: &Path) -> Option<Compression> {
    let ending = path.extension()?;
    Compression::ALL.into_iter().find(|compression| ending.eq_ignore_ascii_case(compression.ending()))
}

fn decompressed(input: impl BufRead + 'static, compression: Compression) -> io::Result<Box<dyn BufRead>> {
    let consumed = Rc::new(Cell::new(0));
    let input = Counted { input, consumed: Rc::clone(&consumed) };
    let decoder: Box<dyn Read> = match compression {
        Compression::Gzip => Box::new(MultiGzDecoder::new(input)),
        Compression::Zstd => Box::new(zstd::Decoder::with_buffer(input)?),
    };
    Ok(Box::new(BufReader::new(Plausible { decoder, consumed, produced: 0 })))
}

/// Counts the bytes that were taken from a reader.
struct Counted<R> {
    input: R,
    consumed: Rc<Cell<u64>>,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.consumed.update(|consumed| consumed + read as u64);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.consumed.update(|consumed| consumed + amount as u64);
        self.input.consume(amount);
    }
}

/// Ends with an error where a text becomes implausibly long.
struct Plausible {
    decoder: Box<dyn Read>,
    consumed: Rc<Cell<u64>>,
    produced: u64,
}

impl Read for Plausible {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer)?;
        self.produced += read as u64;
        let consumed = self.consumed.get();
        let plausible = consumed.saturating_mul(PLAUSIBLE_RATIO).max(PLAUSIBLE_LENGTH);
        if self.produced > plausible {
            return Err(io::Error::other(format!(
                "{consumed} compressed bytes become more than {} MiB, as no text does: decompress it if it is right",
                plausible >> 20
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
