//! Examples tokenised once.
//!
//! A memory-mapped safetensors file has the tokens of all pairs one after the other.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use calm_checkpoint::{Tokenizer, cut_source};
use calm_data::Example;
use calm_files::map_file;
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::Error;

const TOKENS: &str = "tokens";
const ENDS: &str = "ends";
const REFERENCES: &str = "references";
const FINGERPRINT: &str = "fingerprint";

/// The tokens of one example, whose two texts each have an end-of-sequence token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPair {
    /// The input of the encoder.
    pub source: Vec<u32>,
    /// The text that the decoder learns to write.
    pub target: Vec<u32>,
}

/// The lengths of the two texts of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairLength {
    /// Number of tokens of the source.
    pub source: usize,
    /// Number of tokens of the target.
    pub target: usize,
}

impl TokenPair {
    /// Returns the lengths of both texts.
    pub fn length(&self) -> PairLength {
        PairLength { source: self.source.len(), target: self.target.len() }
    }
}

/// How to make a token file.
#[derive(Debug, Clone)]
pub struct TokenFileOptions {
    /// Fingerprint of everything that the file depends on.
    pub fingerprint: String,
    /// Length above which sources are cut; their last token, which ends the sequence, stays.
    pub max_source_tokens: usize,
    /// Length of targets above which examples are left out.
    pub max_target_tokens: usize,
    /// Whether to keep the texts that count as right next to the tokens.
    pub keep_references: bool,
}

/// A file of token pairs, which is read only where it is needed.
pub struct TokenFile {
    map: Mmap,
    wide: bool,
    tokens: Range<usize>,
    /// Byte range of the table that says where each source and, after it, each target ends, in tokens.
    ends: Range<usize>,
    references: Vec<Vec<String>>,
}

impl TokenFile {
    /// Tokenises examples on all cores and writes them.
    ///
    /// # Errors
    /// Fails if the tokenizer cannot represent a text, or if the file cannot be written.
    pub fn write(
        path: &Path,
        examples: &[Example],
        tokenizer: &Tokenizer,
        options: &TokenFileOptions,
    ) -> Result<(), Error> {
        let encode = |example: &Example| -> Result<Option<TokenPair>, Error> {
            let mut source = tokenizer.encode(&example.source)?;
            let target = tokenizer.encode(&example.target)?;
            cut_source(&mut source, options.max_source_tokens, tokenizer.kept());
            let fits = !source.is_empty() && target.len() <= options.max_target_tokens;
            Ok(fits.then_some(TokenPair { source, target }))
        };
        let pairs: Vec<Option<TokenPair>> = examples.par_iter().map(encode).collect::<Result<_, Error>>()?;
        let kept = || pairs.iter().flatten();
        let largest = kept().flat_map(|pair| pair.source.iter().chain(&pair.target)).max();
        let wide = largest.is_some_and(|&token| token > u32::from(u16::MAX));
        let (mut tokens, mut ends, mut count) = (Vec::new(), Vec::new(), 0_u64);
        for part in kept().flat_map(|pair| [&pair.source, &pair.target]) {
            count += part.len() as u64;
            ends.extend(count.to_le_bytes());
            for &token in part {
                match wide {
                    true => tokens.extend(token.to_le_bytes()),
                    false => tokens.extend((token as u16).to_le_bytes()),
                }
            }
        }
        let references: Vec<&[String]> = examples
            .iter()
            .zip(&pairs)
            .filter(|(_, pair)| options.keep_references && pair.is_some())
            .map(|(example, _)| example.references.as_slice())
            .collect();
        let references = serde_json::to_vec(&references).map_err(calm_files::Error::json(path))?;
        let invalid = |source| Error::Tokens { path: path.to_owned(), source };
        let dtype = if wide { Dtype::U32 } else { Dtype::U16 };
        let views = [
            (TOKENS, TensorView::new(dtype, vec![count as usize], &tokens)),
            (ENDS, TensorView::new(Dtype::U64, vec![ends.len() / 8], &ends)),
            (REFERENCES, TensorView::new(Dtype::U8, vec![references.len()], &references)),
        ];
        let views: Vec<_> = views
            .into_iter()
            .map(|(name, view)| Ok((name, view?)))
            .collect::<Result<_, safetensors::SafeTensorError>>()
            .map_err(invalid)?;
        let metadata = HashMap::from([(FINGERPRINT.to_owned(), options.fingerprint.clone())]);
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(invalid)?;
        Ok(calm_files::write(path, &bytes)?)
    }

    /// Opens a file that [`TokenFile::write`] wrote, and returns it with its fingerprint.
    ///
    /// # Errors
    /// Fails if it cannot be read, or if it is not such a file.
    pub fn open(path: &Path) -> Result<(Self, String), Error> {
        let invalid = |source| Error::Tokens { path: path.to_owned(), source };
        let map = map_file(path)?;
        let (_, header) = SafeTensors::read_metadata(&map).map_err(invalid)?;
        let fingerprint = header.metadata().as_ref().and_then(|pairs| pairs.get(FINGERPRINT)).cloned();
        let file = SafeTensors::deserialize(&map).map_err(invalid)?;
        let place = |name| -> Result<(Dtype, Range<usize>), Error> {
            let view = file.tensor(name).map_err(invalid)?;
            let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
            Ok((view.dtype(), start..start + view.data().len()))
        };
        let ((dtype, tokens), (_, ends), (_, references)) =
            (place(TOKENS)?, place(ENDS)?, place(REFERENCES)?);
        let references = serde_json::from_slice(&map[references]).map_err(calm_files::Error::json(path))?;
        let file = TokenFile { wide: dtype == Dtype::U32, tokens, ends, references, map };
        Ok((file, fingerprint.unwrap_or_default()))
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.ends.len() / 16
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the lengths of a pair.
    pub fn length(&self, index: usize) -> PairLength {
        let [start, middle, end] = self.bounds(index);
        PairLength { source: middle - start, target: end - middle }
    }

    /// Returns the tokens of a pair.
    pub fn pair(&self, index: usize) -> TokenPair {
        let [start, middle, end] = self.bounds(index);
        TokenPair { source: self.tokens(start..middle), target: self.tokens(middle..end) }
    }

    /// The texts that count as right for each pair; empty if they were not kept.
    pub fn references(&self) -> &[Vec<String>] {
        &self.references
    }

    fn bounds(&self, index: usize) -> [usize; 3] {
        let start = if index == 0 { 0 } else { self.end(2 * index - 1) };
        [start, self.end(2 * index), self.end(2 * index + 1)]
    }

    fn end(&self, part: usize) -> usize {
        let at = self.ends.start + 8 * part;
        self.map[at..at + 8].iter().rev().fold(0, |value, &byte| value << 8 | usize::from(byte))
    }

    fn tokens(&self, range: Range<usize>) -> Vec<u32> {
        let width = if self.wide { 4 } else { 2 };
        let bytes = &self.map[self.tokens.start + width * range.start..self.tokens.start + width * range.end];
        let little_endian =
            |bytes: &[u8]| bytes.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte));
        bytes.chunks_exact(width).map(little_endian).collect()
    }
}
