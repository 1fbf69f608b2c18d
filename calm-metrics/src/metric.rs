use serde::{Deserialize, Serialize};

use crate::bleu::effective_order_bleu;
use crate::corpus::map_segments;
use crate::names::named;
use crate::{
    ChrfOptions, Error, corpus_bleu, corpus_chrf, exact_match, rouge_l, sentence_bleu, sentence_chrf,
    token_f1,
};

/// A metric as papers report it: from 0 (worst) to 100 (best).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Metric {
    /// BLEU, see [`crate::bleu`].
    Bleu,
    /// chrF2, see [`crate::chrf`].
    Chrf,
    /// ROUGE-L F-measure, see [`crate::rouge`].
    RougeL,
    /// Token-F1, see [`crate::squad`].
    TokenF1,
    /// Exact match, see [`crate::squad`].
    Exact,
}

named!(Metric, "metric", {
    Bleu => "bleu",
    Chrf => "chrf",
    RougeL => "rouge-l",
    TokenF1 => "token-f1",
    Exact => "exact",
});

impl Metric {
    /// The name as papers print it, where that differs from the one in configurations.
    pub fn label(self) -> &'static str {
        match self {
            Self::Bleu => "BLEU",
            Self::Chrf => "chrF",
            Self::RougeL => "ROUGE-L",
            Self::TokenF1 | Self::Exact => self.name(),
        }
    }

    /// The score of a corpus, 0 to 100; `references[i]` are the references of `hypotheses[i]`.
    ///
    /// BLEU and chrF add up the counts of all segments; the others are means over the segments.
    ///
    /// # Errors
    /// When the counts differ, when there are no segments, when a segment has no reference.
    pub fn corpus_score<H, L, R>(self, hypotheses: &[H], references: &[L]) -> Result<f64, Error>
    where
        H: AsRef<str> + Sync,
        L: AsRef<[R]> + Sync,
        R: AsRef<str>,
    {
        match self {
            Self::Bleu => Ok(corpus_bleu(hypotheses, references)?.score),
            Self::Chrf => corpus_chrf(hypotheses, references, &ChrfOptions::default()),
            Self::RougeL | Self::TokenF1 | Self::Exact => {
                let scores = map_segments(hypotheses, references, |h, rs: &[R]| self.best_score(h, rs))?;
                Ok(scores.iter().sum::<f64>() / scores.len() as f64)
            }
        }
    }

    /// The score of one sentence, 0 to 100. BLEU pools the references, the others take the best one.
    ///
    /// # Errors
    /// When there is no reference.
    pub fn sentence_score<R: AsRef<str>>(self, hypothesis: &str, references: &[R]) -> Result<f64, Error> {
        match self {
            Self::Bleu => Ok(sentence_bleu(hypothesis, references)?.score),
            _ if references.is_empty() => Err(Error::NoReference { segment: 0 }),
            _ => Ok(self.best_score(hypothesis, references)),
        }
    }

    fn best_score<R: AsRef<str>>(self, hypothesis: &str, references: &[R]) -> f64 {
        references.iter().map(|reference| self.pair_score(hypothesis, reference.as_ref())).fold(0.0, f64::max)
    }

    fn pair_score(self, hypothesis: &str, reference: &str) -> f64 {
        match self {
            Self::Bleu => effective_order_bleu(hypothesis, &[reference]).score,
            Self::Chrf => sentence_chrf(hypothesis, reference, &ChrfOptions::default()),
            Self::RougeL => 100.0 * rouge_l(hypothesis, reference).f_measure,
            Self::TokenF1 => 100.0 * token_f1(hypothesis, reference),
            Self::Exact => 100.0 * f64::from(exact_match(hypothesis, reference)),
        }
    }
}
