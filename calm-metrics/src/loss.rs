use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::corpus::map_segments;
use crate::{
    BleuOptions, ChrfOptions, Error, RougeKind, RougeOptions, bleu, edit_distance, exact_match, python,
    rouge, sentence_chrf, token_f1,
};
use calm_names::names;

/// How bad one output is compared with another text, from 0 (as good as it) to 1.
///
/// The other text is another system's output, to measure the distance between two systems, or a reference.
///
/// Identical texts have the loss 0, even if the metric behind it has nothing to compare, as for two empty
/// texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Loss {
    /// 1 - chrF2 / 100.
    Chrf,
    /// 1 - ROUGE-L F-measure.
    RougeL,
    /// 1 - token-F1.
    TokenF1,
    /// 1 - sentence BLEU / 100, with effective order.
    Bleu,
    /// 1 - edit similarity.
    ///
    /// That is [`edit_distance`] of the characters divided by the length of the longer text.
    EditSimilarity,
    /// [`token_disagreement`] of the words, which white space separates.
    TokenDisagreement,
    /// 0 if the texts match exactly once normalised as for SQuAD, else 1.
    Exact,
}

names!(Loss, "loss", {
    Chrf => "chrf",
    RougeL => "rouge-l",
    TokenF1 => "token-f1",
    Bleu => "bleu",
    EditSimilarity => "edit-similarity",
    TokenDisagreement => "token-disagreement",
    Exact => "exact",
});

/// Which values a loss takes; exact binomial bounds hold for binary losses only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// The loss is 0 or 1.
    Binary,
    /// The loss is any number from 0 to 1.
    UnitInterval,
}

impl Loss {
    /// The values that this loss can take.
    pub fn kind(self) -> LossKind {
        match self {
            Self::Exact => LossKind::Binary,
            Self::Chrf
            | Self::RougeL
            | Self::TokenF1
            | Self::Bleu
            | Self::EditSimilarity
            | Self::TokenDisagreement => LossKind::UnitInterval,
        }
    }

    /// The least and the greatest value this loss can take.
    pub fn range(self) -> RangeInclusive<f64> {
        match self.kind() {
            LossKind::Binary | LossKind::UnitInterval => 0.0..=1.0,
        }
    }

    /// Computes the loss of `output` compared with `reference`.
    ///
    /// It is not symmetric: chrF weighs recall more, BLEU penalises brevity.
    pub fn between(self, output: &str, reference: &str) -> f64 {
        if output == reference {
            return 0.0;
        }
        let loss = match self {
            Self::Chrf => 1.0 - sentence_chrf(output, reference, &ChrfOptions::default()) / 100.0,
            Self::RougeL => 1.0 - rouge(output, reference, &RougeOptions::new(RougeKind::L)).f_measure,
            Self::TokenF1 => 1.0 - token_f1(output, reference),
            Self::Bleu => {
                let options = BleuOptions::SENTENCE;
                1.0 - bleu::bleu(&bleu::statistics(output, &[reference], &options), &options).score / 100.0
            }
            Self::EditSimilarity => {
                let characters = |text: &str| text.chars().collect::<Vec<_>>();
                let (output, reference) = (characters(output), characters(reference));
                edit_distance(&output, &reference) as f64 / output.len().max(reference.len()) as f64
            }
            Self::TokenDisagreement => {
                let words = |text| python::split(text).collect::<Vec<_>>();
                token_disagreement(&words(output), &words(reference))
            }
            Self::Exact => f64::from(!exact_match(output, reference)),
        };
        loss.clamp(0.0, 1.0)
    }

    /// Computes the loss of every output compared with the best of its references.
    ///
    /// `references[i]` are the references of `outputs[i]`.
    ///
    /// # Errors
    /// Fails if the counts differ, if there are no outputs, or if an output has no reference.
    pub fn of_each<H, L, R>(self, outputs: &[H], references: &[L]) -> Result<Vec<f64>, Error>
    where
        H: AsRef<str> + Sync,
        L: AsRef<[R]> + Sync,
        R: AsRef<str>,
    {
        map_segments(outputs, references, |output, references: &[R]| {
            references.iter().map(|reference| self.between(output, reference.as_ref())).fold(1.0, f64::min)
        })
    }
}

/// Share of the positions, up to the longer length, at which two sequences do not hold the same token.
///
/// It is 0 for two empty sequences.
pub fn token_disagreement<T: PartialEq>(a: &[T], b: &[T]) -> f64 {
    let positions = a.len().max(b.len());
    if positions == 0 {
        return 0.0;
    }
    let same = a.iter().zip(b).filter(|(a, b)| a == b).count();
    (positions - same) as f64 / positions as f64
}
