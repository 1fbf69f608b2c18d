use std::fmt;

use crate::bleu::{MAX_ORDER, bleu};
use crate::corpus::sum;
use crate::{Scorer, Statistics};

/// Why a score says less about the outputs than it seems to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Caveat {
    /// No output is long enough for the longest n-grams of BLEU, so that the score is 0 whatever matches.
    TooShort,
    /// ROUGE sees no word in the references of some segments, whose score is 0 even where outputs are equal.
    NoWords {
        /// Number of these segments.
        segments: usize,
        /// Number of all segments.
        of: usize,
    },
}

impl Statistics {
    /// Returns what a reader of the score should know about it; `references[i]` are those that segment `i`
    /// was scored against.
    pub fn caveat<L, R>(&self, references: &[L]) -> Option<Caveat>
    where
        L: AsRef<[R]>,
        R: AsRef<str>,
    {
        match &self.scorer {
            Scorer::Bleu(options) => {
                let bleu = bleu(&sum(self.rows.iter().map(Vec::as_slice)), options);
                let is_too_short = bleu.score == 0.0 && bleu.counts[0] > 0 && bleu.totals[MAX_ORDER - 1] == 0;
                is_too_short.then_some(Caveat::TooShort)
            }
            Scorer::Rouge(_) => {
                let unseen = |texts: &&L| texts.as_ref().iter().all(|text| has_unseen_words(text.as_ref()));
                let segments = references.iter().filter(unseen).count();
                (segments > 0).then_some(Caveat::NoWords { segments, of: references.len() })
            }
            _ => None,
        }
    }
}

/// Whether a text has letters or digits, but none that ROUGE takes for a part of a word.
fn has_unseen_words(text: &str) -> bool {
    text.contains(char::is_alphanumeric) && !text.contains(|letter: char| letter.is_ascii_alphanumeric())
}

impl fmt::Display for Caveat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caveat::TooShort => write!(
                f,
                "no output has {MAX_ORDER} tokens, so that the score is 0 whatever matches; chrF compares texts as short \
                 as these"
            ),
            Caveat::NoWords { segments, of } => write!(
                f,
                "no word is seen in the references of {segments} of {of} segments, which score 0 even where outputs are \
                 equal: ROUGE knows the letters a to z and digits; chrF compares texts in all scripts"
            ),
        }
    }
}
