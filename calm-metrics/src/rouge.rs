//! ROUGE-L (Lin 2004) as Google's rouge-score 0.1.2 computes it for single sentences, without stemming.

use serde::{Deserialize, Serialize};

use crate::ngrams::Vocabulary;

/// Precision, recall and F-measure, each 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rouge {
    /// Share of the hypothesis that matches.
    pub precision: f64,
    /// Share of the reference that matches.
    pub recall: f64,
    /// Harmonic mean of the two; what is reported as ROUGE-L.
    pub f_measure: f64,
}

/// ROUGE-L: the longest common subsequence of the two texts' tokens.
///
/// Tokens are the runs of ASCII letters and digits in the lower-cased text, so text in other scripts has none. A text
/// without tokens scores 0, even against itself. Takes memory linear in the length of the texts.
pub fn rouge_l(hypothesis: &str, reference: &str) -> Rouge {
    let (hypothesis, reference) = (hypothesis.to_lowercase(), reference.to_lowercase());
    let mut vocabulary = Vocabulary::default();
    let reference = vocabulary.learn(tokens(&reference));
    let hypothesis = vocabulary.look_up(tokens(&hypothesis));
    let common = common_subsequence(&hypothesis, &reference, vocabulary.len());
    if common == 0 {
        return Rouge::default();
    }
    let precision = common as f64 / hypothesis.len() as f64;
    let recall = common as f64 / reference.len() as f64;
    Rouge { precision, recall, f_measure: 2.0 * precision * recall / (precision + recall) }
}

fn tokens(lower_case: &str) -> impl Iterator<Item = &str> {
    lower_case.split(|c: char| !c.is_ascii_alphanumeric()).filter(|token| !token.is_empty())
}

/// Length of the longest common subsequence; the numbers in `b` are below `vocabulary`.
///
/// Bit-parallel (Hyyrö 2004, "Bit-parallel LCS-length computation revisited"): after each element of `a`, bit j of `row`
/// is 0 where the length of the common subsequence with `b[..=j]` exceeds the one with `b[..j]`.
fn common_subsequence(a: &[u32], b: &[u32], vocabulary: usize) -> usize {
    let mut positions = vec![Vec::new(); vocabulary];
    for (position, &element) in b.iter().enumerate() {
        positions[element as usize].push(position);
    }
    let mut row = vec![u64::MAX; b.len().div_ceil(64)];
    // One mask, filled for the element at hand: a mask for each distinct element would take quadratic memory.
    let mut mask = vec![0u64; row.len()];
    for element in a {
        let Some(positions) = positions.get(*element as usize) else { continue };
        for position in positions {
            mask[position / 64] |= 1 << (position % 64);
        }
        let mut carry = false;
        for (word, mask) in row.iter_mut().zip(&mut mask) {
            let (sum, overflow) = word.overflowing_add(*word & *mask);
            let (sum, carry_overflow) = sum.overflowing_add(u64::from(carry));
            carry = overflow || carry_overflow;
            *word = sum | (*word & !*mask);
            *mask = 0;
        }
    }
    // Bits beyond the end of `b` never match, but a carry may run into them.
    (0..b.len()).filter(|position| row[position / 64] >> (position % 64) & 1 == 0).count()
}
