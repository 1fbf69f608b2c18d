use crate::{RougeKind, Scorer, Smoothing};

/// The version of sacreBLEU that BLEU, chrF and TER agree with.
const SACREBLEU: &str = "2.6.0";
/// The version of rouge-score that ROUGE agrees with.
const ROUGE_SCORE: &str = "0.1.2";
/// The version of the SQuAD evaluation that token-F1 and exact match agree with.
const SQUAD: &str = "1.1";

/// How a corpus was resampled, for its signature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resampling {
    /// Number of resamples of the bootstrap, if there was one.
    pub bootstrap: Option<usize>,
    /// Number of trials of approximate randomisation, if there were any.
    pub randomisation: Option<usize>,
    /// Seed of the generator, if it was used.
    pub seed: Option<u64>,
}

impl Scorer {
    /// Writes what has to be known to compute the score again, in the form of sacreBLEU.
    ///
    /// For BLEU it is `nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0`.
    ///
    /// `version` is that of the tool whose numbers the score equals, not of this crate. The tools for ROUGE,
    /// token-F1 and exact match print no signature; theirs has the same form here. `nrefs` is the number of
    /// references of each segment, or `var`.
    pub fn signature<L: AsRef<[R]>, R>(&self, references: &[L], resampling: &Resampling) -> String {
        let mut numbers = references.iter().map(|of_segment| of_segment.as_ref().len());
        let first = numbers.next().filter(|&first| numbers.all(|number| number == first));
        let mut fields = vec![("nrefs", first.map_or_else(|| "var".to_owned(), |first| first.to_string()))];
        fields.extend(resampling.bootstrap.map(|samples| ("bs", samples.to_string())));
        fields.extend(resampling.randomisation.map(|trials| ("ar", trials.to_string())));
        fields.extend(resampling.seed.map(|seed| ("seed", seed.to_string())));
        fields.extend(self.fields());
        let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("{name}:{value}")).collect();
        fields.join("|")
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let case = |lower| if lower { "lc" } else { "mixed" }.to_owned();
        let yes = |yes| if yes { "yes" } else { "no" }.to_owned();
        match self {
            Self::Bleu(options) => vec![
                ("case", case(options.lowercase)),
                ("eff", yes(options.effective_order)),
                ("tok", options.tokenizer.to_string()),
                ("smooth", smoothing(options.smoothing)),
                ("version", SACREBLEU.to_owned()),
            ],
            Self::Chrf(options) => vec![
                ("case", case(options.lowercase)),
                ("eff", yes(!options.eps_smoothing)),
                ("nc", options.char_order.to_string()),
                ("nw", options.word_order.to_string()),
                ("space", yes(options.whitespace)),
                ("version", SACREBLEU.to_owned()),
            ],
            Self::Ter(options) => vec![
                ("case", case(!options.case_sensitive)),
                ("tok", "tercom".to_owned()),
                ("norm", yes(options.normalize)),
                ("punct", yes(!options.no_punctuation)),
                ("asian", yes(options.asian_support)),
                ("version", SACREBLEU.to_owned()),
            ],
            Self::Rouge(options) => vec![
                ("case", case(true)),
                ("type", rouge_type(options.kind)),
                ("stem", yes(options.stem)),
                ("version", ROUGE_SCORE.to_owned()),
            ],
            Self::TokenF1 | Self::Exact => vec![("norm", "squad".to_owned()), ("version", SQUAD.to_owned())],
        }
    }
}

fn smoothing(smoothing: Smoothing) -> String {
    match smoothing {
        Smoothing::Exp => "exp".to_owned(),
        Smoothing::Floor(value) => format!("floor[{value:.2}]"),
        Smoothing::AddK(value) => format!("add-k[{value:.2}]"),
        Smoothing::None => "none".to_owned(),
    }
}

/// The name of a kind of ROUGE in rouge-score.
fn rouge_type(kind: RougeKind) -> String {
    match kind {
        RougeKind::N(order) => format!("rouge{order}"),
        RougeKind::L => "rougeL".to_owned(),
        RougeKind::Lsum => "rougeLsum".to_owned(),
    }
}
