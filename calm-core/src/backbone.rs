//! What the decoding loop asks of an encoder-decoder: [`Backbone`] and one decoding in progress,
//! [`DecoderSession`].

/// A token of the backbone's vocabulary.
pub type Token = u32;

/// The dimensions of a backbone, as the loop and the cost model need them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackboneShape {
    /// Encoder layers; they all always run.
    pub num_encoder_layers: usize,
    /// Decoder layers, L in the paper; at least 1. Layers count from 1.
    pub num_decoder_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Width of queries, keys and values over all heads: heads times `d_kv`. Need not equal `d_model`.
    pub inner: usize,
    /// Width of the feed-forward network.
    pub d_ff: usize,
    /// Whether the feed-forward network is gated (T5 1.1), with three matrices instead of two.
    pub gated: bool,
    /// Columns of the logits.
    pub vocab_size: usize,
    /// The decoder's first input.
    pub start_token: Token,
    /// The token that ends a generation.
    pub eos_token: Token,
}

/// The early-exit classifier of the paper (section 3.5), a logistic regression on the state for all layers.
#[derive(Debug, Clone, PartialEq)]
pub struct ExitClassifier {
    /// One weight per element of the state, `d_model` in all.
    pub weight: Vec<f32>,
    /// The intercept.
    pub bias: f32,
}

/// A row-major matrix.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Matrix {
    /// Rows one after the other.
    pub data: Vec<f32>,
    /// Length of a row.
    pub columns: usize,
}

impl Matrix {
    /// Row `index`. Panics when there is no such row, as a slice does.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.data[index * self.columns..(index + 1) * self.columns]
    }

    /// Number of rows; 0 when there are no columns.
    pub fn num_rows(&self) -> usize {
        self.data.len().checked_div(self.columns).unwrap_or(0)
    }

    /// The rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        (0..self.num_rows()).map(|index| self.row(index))
    }
}

/// One entry of a layer's self-attention K/V cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheEntry {
    /// Row of the batch.
    pub row: usize,
    /// Decoding position, from 0.
    pub position: usize,
}

/// The best token of a row of logits and how far it is ahead.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Top2 {
    /// The token with the largest logit, the lowest such token at a tie.
    pub token: Token,
    /// Probability of the best token minus that of the second best, from 0 to 1.
    pub margin: f32,
}

impl Top2 {
    /// From one row of logits. Logits that are not numbers never win.
    pub fn from_logits(logits: &[f32]) -> Self {
        let (mut token, mut best, mut second) = (0, f32::NEG_INFINITY, f32::NEG_INFINITY);
        for (index, &logit) in logits.iter().enumerate() {
            if logit > best {
                (token, second, best) = (index, best, logit);
            } else if logit > second {
                second = logit;
            }
        }
        // Relative to the largest logit no term overflows, and the best one is exactly 1.
        let sum: f64 = logits.iter().map(|&logit| f64::from((logit - best).exp())).sum();
        let margin = (1.0 - f64::from(second - best).exp()) / sum;
        Self { token: token as Token, margin: margin as f32 }
    }

    /// From the logits of some tokens alone, in ascending order, at least one.
    pub fn among(candidates: &[Token], logit: impl FnMut(Token) -> f32) -> Self {
        let logits: Vec<f32> = candidates.iter().copied().map(logit).collect();
        let Self { token, margin } = Self::from_logits(&logits);
        Self { token: candidates[token as usize], margin }
    }
}

/// The `count` best tokens of a row of logits, or all there are, in ascending order; of equals the lower ones. `count` is at least one.
pub fn best_tokens(logits: &[f32], count: usize) -> Vec<Token> {
    let mut tokens: Vec<Token> = (0..logits.len() as Token).collect();
    if count < tokens.len() {
        tokens.select_nth_unstable_by(count, |a, b| {
            logits[*b as usize].total_cmp(&logits[*a as usize]).then_with(|| a.cmp(b))
        });
        tokens.truncate(count);
        tokens.sort_unstable();
    }
    tokens
}

/// An encoder-decoder network whose decoder may stop after any layer.
pub trait Backbone {
    /// What can go wrong in the engine.
    type Error: std::error::Error + Send + Sync + 'static;
    /// Encoder output of a batch of sources, reusable by many decodings.
    type Encoded;
    /// One decoding in progress.
    type Session<'a>: DecoderSession<Error = Self::Error>
    where
        Self: 'a;

    /// Dimensions and special tokens.
    fn shape(&self) -> &BackboneShape;

    /// The exit classifier that was trained with this backbone, if any.
    fn exit_classifier(&self) -> Option<&ExitClassifier>;

    /// Runs the encoder on a batch of sources. Row `i` of all later calls is `sources[i]`.
    fn encode(&self, sources: &[&[Token]]) -> Result<Self::Encoded, Self::Error>;

    /// Starts decoding all rows of `encoded`, each at most `max_tokens` long.
    fn start<'a>(
        &'a self,
        encoded: &Self::Encoded,
        max_tokens: usize,
    ) -> Result<Self::Session<'a>, Self::Error>;
}

/// One decoding in progress, step by step and layer by layer.
///
/// Rows are numbered as the sources were; lists of rows are ascending and not empty. Layers count from 1;
/// state 0 is the embedding. All rows of a step stand at the same position, and the states of every layer run
/// in a step are readable until the next step begins.
pub trait DecoderSession {
    /// What can go wrong in the engine.
    type Error;

    /// Embeds `tokens[i]` as the input of row `rows[i]` at `position`. All later calls speak of this step.
    ///
    /// Positions go up by one from 0. `rows` is a subset of the previous step's.
    fn begin_step(&mut self, position: usize, rows: &[usize], tokens: &[Token]) -> Result<(), Self::Error>;

    /// Runs decoder layer `layer` for `rows`, which all ran `layer - 1` in this step: writes their K/V of
    /// this layer at this position, then attends over positions `0..=position`.
    ///
    /// The caller has made sure that the K/V of this layer at all earlier positions exist.
    fn run_layer(&mut self, layer: usize, rows: &[usize]) -> Result<(), Self::Error>;

    /// Residual states after `layer` in this step, before any final norm: `[rows, d_model]`.
    fn hidden(&mut self, layer: usize, rows: &[usize]) -> Result<Matrix, Self::Error>;

    /// Logits `[rows, vocab_size]` of the shared head, final norm included, on the states after `layer`.
    fn logits(&mut self, layer: usize, rows: &[usize]) -> Result<Matrix, Self::Error>;

    /// Best token and probability margin of each row after `layer`. An engine may fuse this with the head.
    fn top2(&mut self, layer: usize, rows: &[usize]) -> Result<Vec<Top2>, Self::Error> {
        Ok(self.logits(layer, rows)?.rows().map(Top2::from_logits).collect())
    }

    /// The `count` best tokens of each row after `layer`, as [`best_tokens`] has them.
    fn best_tokens(
        &mut self,
        layer: usize,
        rows: &[usize],
        count: usize,
    ) -> Result<Vec<Vec<Token>>, Self::Error> {
        Ok(self.logits(layer, rows)?.rows().map(|logits| best_tokens(logits, count)).collect())
    }

    /// As [`top2`](Self::top2) if the vocabulary of `rows[i]` were `candidates[i]` alone: ascending, at least one each.
    fn top2_among(
        &mut self,
        layer: usize,
        rows: &[usize],
        candidates: &[&[Token]],
    ) -> Result<Vec<Top2>, Self::Error> {
        let logits = self.logits(layer, rows)?;
        let pairs = logits.rows().zip(candidates);
        Ok(pairs
            .map(|(logits, candidates)| Top2::among(candidates, |token| logits[token as usize]))
            .collect())
    }

    /// The state after `layer` becomes the one that stands for (row, this position) in all layers above.
    ///
    /// Called once per row and step.
    fn keep(&mut self, layer: usize, rows: &[usize]) -> Result<(), Self::Error>;

    /// Best token from the kept states of this step: one head product for rows that left at any layer.
    fn predict(&mut self, rows: &[usize]) -> Result<Vec<Token>, Self::Error>;

    /// Writes the K/V of `layer` for each entry from the state kept there: this layer's own norm and K/V
    /// projections, nothing else (paper section 3.3.1).
    ///
    /// Entries are in order of row, then position. An entry may already hold a value, which is then replaced.
    fn propagate(&mut self, layer: usize, entries: &[CacheEntry]) -> Result<(), Self::Error>;
}
