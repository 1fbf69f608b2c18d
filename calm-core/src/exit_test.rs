//! The test whether rows may leave after a layer (paper Eq. 4).

use std::collections::BTreeMap;

use crate::backbone::{DecoderSession, Matrix, Token, Top2};
use crate::decode::{DecodeError, expect_rows};
use crate::measure::{ConfidenceMeasure, LayerView, PRUNED_TOKENS};

/// The exit test of one step: a measure and the step's threshold.
pub(crate) struct ExitTest<'a> {
    measure: &'a dyn ConfidenceMeasure,
    threshold: f64,
    /// States after the layer tested last, where the measure compares layers.
    previous: States,
    /// By row, the tokens that compete where the vocabulary is pruned.
    candidates: BTreeMap<usize, Vec<Token>>,
}

/// What the test found for a row.
pub(crate) struct Verdict {
    pub(crate) confidence: f32,
    pub(crate) confident: bool,
    /// The layer's best token, if the confidence took a product with the head.
    pub(crate) token: Option<Token>,
}

impl<'a> ExitTest<'a> {
    pub(crate) fn new(measure: &'a dyn ConfidenceMeasure, threshold: f64) -> Self {
        Self { measure, threshold, previous: States::default(), candidates: BTreeMap::new() }
    }

    /// Tests `rows` after `layer`; they all were among the rows tested after the layer before.
    pub(crate) fn run<S: DecoderSession>(
        &mut self,
        session: &mut S,
        layer: usize,
        position: usize,
        rows: &[usize],
    ) -> Result<Vec<Verdict>, DecodeError<S::Error>> {
        let inputs = self.measure.inputs();
        let mut states = States::default();
        if inputs.hidden || inputs.previous_hidden {
            states = States::read(session, layer, rows)?;
        }
        if inputs.previous_hidden && layer == 1 {
            self.previous = States::read(session, 0, rows)?;
        }
        let mut logits = Matrix::default();
        if inputs.logits {
            logits = session.logits(layer, rows)?;
            expect_rows("logits", logits.num_rows(), rows)?;
        }
        let mut top2 = Vec::new();
        if inputs.top2 {
            top2 = session.top2(layer, rows)?;
            expect_rows("top2", top2.len(), rows)?;
        }
        if inputs.pruned_top2 {
            top2 = self.pruned_top2(session, layer, rows)?;
        }

        let mut verdicts = Vec::with_capacity(rows.len());
        for (index, &row) in rows.iter().enumerate() {
            let view = LayerView {
                layer,
                position,
                hidden: states.of(row),
                previous_hidden: self.previous.of(row),
                logits: if inputs.logits { logits.row(index) } else { &[] },
                top2: top2.get(index).copied(),
            };
            let confidence = self.measure.confidence(&view);
            let best = view.top2.or_else(|| inputs.logits.then(|| Top2::from_logits(view.logits)));
            verdicts.push(Verdict {
                confidence,
                confident: f64::from(confidence) >= self.threshold,
                token: best.map(|top2| top2.token),
            });
        }
        if inputs.previous_hidden {
            self.previous = states;
        }
        Ok(verdicts)
    }

    fn pruned_top2<S: DecoderSession>(
        &mut self,
        session: &mut S,
        layer: usize,
        rows: &[usize],
    ) -> Result<Vec<Top2>, DecodeError<S::Error>> {
        if layer == 1 {
            let best = session.best_tokens(layer, rows, PRUNED_TOKENS)?;
            expect_rows("best_tokens", best.len(), rows)?;
            self.candidates = rows.iter().copied().zip(best).collect();
        }
        let candidates: Vec<&[Token]> = rows.iter().map(|row| self.candidates[row].as_slice()).collect();
        let top2 = session.top2_among(layer, rows, &candidates)?;
        expect_rows("top2_among", top2.len(), rows)?;
        Ok(top2)
    }
}

/// States of some rows after one layer.
#[derive(Default)]
struct States {
    rows: Vec<usize>,
    states: Matrix,
}

impl States {
    fn read<S: DecoderSession>(
        session: &mut S,
        layer: usize,
        rows: &[usize],
    ) -> Result<Self, DecodeError<S::Error>> {
        let states = session.hidden(layer, rows)?;
        expect_rows("hidden", states.num_rows(), rows)?;
        Ok(Self { rows: rows.to_vec(), states })
    }

    /// The state of `row`, empty if it is not here.
    fn of(&self, row: usize) -> &[f32] {
        self.rows.binary_search(&row).map_or(&[], |index| self.states.row(index))
    }
}
