//! The layer that has just run, as measures and policies see it.

use crate::backbone::{BackboneShape, DecoderSession, Entry, Token};
use crate::error::{DecodeError, NotFinite};
use crate::finite;
use crate::matrix::{Matrix, Shortlist, Top2};

/// The layer that has just run and the entries that it ran for. The engine computes only what is asked for.
pub struct Layer<'a> {
    session: &'a mut dyn DecoderSession,
    shape: &'a BackboneShape,
    number: usize,
    depth: usize,
    entries: &'a [Entry],
    waiting: &'a [usize],
}

impl<'a> Layer<'a> {
    /// Layer `number` of a session, which ran for `entries`. The decoding loop makes these; tests of a
    /// measure may.
    pub fn new(
        session: &'a mut dyn DecoderSession,
        shape: &'a BackboneShape,
        number: usize,
        entries: &'a [Entry],
    ) -> Self {
        Self { session, shape, number, depth: shape.num_layers, entries, waiting: &[] }
    }

    /// The same in a decoding where no layer above `depth` runs.
    pub(crate) fn up_to(self, depth: usize) -> Self {
        Self { depth, ..self }
    }

    /// The same where, for each entry, so many tokens before it wait for the next layer.
    pub(crate) fn with_waiting(self, waiting: &'a [usize]) -> Self {
        Self { waiting, ..self }
    }

    /// The layer's number, from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Whether no layer comes after it under this policy: all entries leave now.
    pub fn is_last(&self) -> bool {
        self.number == self.depth
    }

    /// The entries that ran it, in order. Answers have a row for each.
    pub fn entries(&self) -> &'a [Entry] {
        self.entries
    }

    /// How many tokens of its row have left before the entry of this index and wait for the next layer. 0
    /// unless layers are deferred.
    pub fn num_waiting(&self, index: usize) -> usize {
        self.waiting.get(index).copied().unwrap_or(0)
    }

    /// The network's shape.
    pub fn shape(&self) -> &'a BackboneShape {
        self.shape
    }

    /// Residual states after this layer, before any final norm: `[entries, d_model]`.
    ///
    /// # Errors
    /// The engine fails, here as in the methods below. Those that give tokens also fail if states or logits
    /// are not finite.
    pub fn hidden(&mut self) -> Result<Matrix, DecodeError> {
        let states = self.session.hidden(self.entries)?;
        expect_rows("the engine's hidden", states.num_rows(), self.entries)?;
        Ok(states)
    }

    /// Products of these states with `vector` `[d_model]`, one for each entry, without a copy of the states.
    ///
    /// # Errors
    /// The engine fails.
    pub fn dot_hidden(&mut self, vector: &[f32]) -> Result<Vec<f64>, DecodeError> {
        let mut products = Vec::new();
        self.session.dot_hidden(self.entries, vector, &mut products)?;
        expect_rows("the engine's dot_hidden", products.len(), self.entries)?;
        Ok(products)
    }

    /// Replaces the states of some of the entries: `[entries, d_model]`.
    ///
    /// # Errors
    /// The engine fails.
    pub fn set_hidden(&mut self, entries: &[Entry], states: &Matrix) -> Result<(), DecodeError> {
        Ok(self.session.set_hidden(entries, states)?)
    }

    /// Logits of the shared head on this layer's states, a product with the whole vocabulary:
    /// `[entries, vocab_size]`.
    ///
    /// # Errors
    /// The engine fails.
    pub fn logits(&mut self) -> Result<Matrix, DecodeError> {
        let logits = self.session.logits(self.entries)?;
        expect_rows("the engine's logits", logits.num_rows(), self.entries)?;
        Ok(logits)
    }

    /// Logits of the shared head on other states `[entries, d_model]` in place of the entries' own, for the
    /// tokens that the model's exit heads know: `[entries, tokens]`.
    ///
    /// # Errors
    /// The engine fails, or the states are not as many as the entries.
    pub fn logits_of(&mut self, states: &Matrix) -> Result<Matrix, DecodeError> {
        expect_rows("the exit head", states.num_rows(), self.entries)?;
        let logits = self.session.logits_of(states)?;
        expect_rows("the engine's logits_of", logits.num_rows(), self.entries)?;
        Ok(logits)
    }

    /// The best columns of such logits with their probability margins.
    ///
    /// # Errors
    /// As [`logits_of`](Self::logits_of), or states or logits are not finite.
    pub fn top2_of(&mut self, states: &Matrix) -> Result<Vec<Top2>, DecodeError> {
        expect_rows("the exit head", states.num_rows(), self.entries)?;
        let top2 = self.session.top2_of(states)?;
        expect_rows("the engine's top2_of", top2.len(), self.entries)?;
        self.check(top2.iter())?;
        Ok(top2)
    }

    /// Best tokens with their probability margins over the second best, which engines compute faster than
    /// logits.
    ///
    /// # Errors
    /// The engine fails, or states or logits are not finite.
    pub fn top2(&mut self) -> Result<Vec<Top2>, DecodeError> {
        let top2 = self.session.top2(self.entries)?;
        expect_rows("the engine's top2", top2.len(), self.entries)?;
        self.check(top2.iter())?;
        Ok(top2)
    }

    /// Best tokens as of [`top2`](Self::top2), with margins that are about the same and cost little beyond
    /// the token.
    ///
    /// # Errors
    /// The engine fails, or states or logits are not finite.
    pub fn estimated_top2(&mut self) -> Result<Vec<Top2>, DecodeError> {
        let top2 = self.session.estimated_top2(self.entries)?;
        expect_rows("the engine's estimated_top2", top2.len(), self.entries)?;
        self.check(top2.iter())?;
        Ok(top2)
    }

    /// The `count` best tokens of each entry, ascending.
    ///
    /// # Errors
    /// The engine fails, or states or logits are not finite.
    pub fn best_tokens(&mut self, count: usize) -> Result<Vec<Vec<Token>>, DecodeError> {
        let best = self.session.best_tokens(self.entries, count)?;
        expect_rows("the engine's best_tokens", best.len(), self.entries)?;
        // An engine that compares logits finds none that is best among those that are no numbers.
        let first = |tokens: &Vec<Token>| Top2 {
            token: tokens.first().copied().unwrap_or(finite::LOWEST_TOKEN),
            margin: if tokens.is_empty() { f32::NAN } else { 1.0 },
        };
        self.check(best.iter().map(first).collect::<Vec<_>>().iter())?;
        Ok(best)
    }

    /// Best tokens as of [`estimated_top2`](Self::estimated_top2), and about the `count` best ones.
    ///
    /// # Errors
    /// The engine fails, or states or logits are not finite.
    pub fn shortlists(&mut self, count: usize) -> Result<Vec<Shortlist>, DecodeError> {
        let shortlists = self.session.shortlists(self.entries, count)?;
        expect_rows("the engine's shortlists", shortlists.len(), self.entries)?;
        self.check(shortlists.iter().map(|shortlist| &shortlist.top2))?;
        Ok(shortlists)
    }

    /// Best tokens and margins where each entry's vocabulary is its candidates alone: ascending, at least
    /// one.
    ///
    /// # Errors
    /// The engine fails, or states or logits are not finite.
    pub fn top2_among(&mut self, candidates: &[&[Token]]) -> Result<Vec<Top2>, DecodeError> {
        let top2 = self.session.top2_among(self.entries, candidates)?;
        expect_rows("the engine's top2_among", top2.len(), self.entries)?;
        self.check(top2.iter())?;
        Ok(top2)
    }
}

impl Layer<'_> {
    /// Makes sure that these answers, one for each entry, come of finite numbers.
    pub(crate) fn check<'t>(&mut self, answers: impl Iterator<Item = &'t Top2>) -> Result<(), DecodeError> {
        let (mut suspicious, mut not_a_number) = (Vec::new(), None);
        for (&entry, answer) in self.entries.iter().zip(answers) {
            if finite::is_suspicious(answer) {
                suspicious.push(entry);
                not_a_number = not_a_number.or(answer.margin.is_nan().then_some(entry));
            }
        }
        if suspicious.is_empty() {
            return Ok(());
        }
        if let Some(entry) = finite::first_too_large(self.session, &suspicious)? {
            return Err(finite::error(NotFinite::States, self.number, entry));
        }
        not_a_number.map_or(Ok(()), |entry| Err(finite::error(NotFinite::Logits, self.number, entry)))
    }
}

pub(crate) fn expect_rows(whose: &str, found: usize, entries: &[Entry]) -> Result<(), DecodeError> {
    match found == entries.len() {
        true => Ok(()),
        false => Err(DecodeError::Rows { whose: whose.to_owned(), expected: entries.len(), found }),
    }
}
