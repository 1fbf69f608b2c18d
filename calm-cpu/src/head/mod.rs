//! The output head, which finds the best token of a state without reading all of the weights in full.
//!
//! A product with the whole vocabulary is most of the bytes that a token needs. The head is therefore kept
//! twice: in the type of the checkpoint, row by row as in the file, and in 8 bits. For each token the 8-bit
//! product says how large its logit can be at most, and only tokens that can still be the best or the second
//! best are computed exactly.
//!
//! Let x be the normed state, w a row of the head, s q its 8-bit version and t i the 8-bit version of x.
//! Then
//!
//! |w x - s t q i| <= |w - s q| |x| + |s q| |x - t i|
//!
//! (Cauchy and Schwarz), to which a little is added for the rounding of f32. So the token and its logit are
//! always those of the exact head. The margin divides by the sum over all tokens, in which a token that was
//! not computed exactly is off by at most a factor e^bound. Panels of tokens whose part of the sum can be off
//! by too much are computed with 8 more bits of both, and exactly if that is not enough, so that all of the
//! sum, and the margin with it, is off by less than [`MARGIN_ERROR`].
//!
//! An estimate of the margin does without all that and takes the 8-bit logits as they are.
//!
//! If the checkpoint is to have 8-bit weights, these are the head, and its exact logits are the products with
//! the 15-bit version of x. Screening is the same. A head in blocks is as narrow as a screen, so that all of
//! its logits are computed exactly.

mod exact;
mod row;
mod screen;
mod sums;
mod total;

use calm_checkpoint::WeightType;
use calm_core::{Shortlist, Token, Top2};

use self::exact::{Fine, Int8, Kind};
use self::row::{Leaders, RowOf, among_of, best_of, best_tokens_of, estimate_of, leaders_of, shortlist_of};
use self::screen::{Bounds, Row};
use self::total::Sums;
use crate::blocks::InputBlock;
use crate::elementwise::RmsNorm;
use crate::linear::{Packing, Processor, normalise};
use crate::panels::PANEL;
use crate::simd::with_simd;
use crate::states::States;
use crate::team::{Scratch, bounds};
use crate::weights::Table;

/// Largest difference between the softmax response and that of the exact head.
pub(crate) const MARGIN_ERROR: f32 = 1e-3;

/// The head [vocab_size, d_model], with the norm in front of it.
pub(crate) struct Head {
    pub(crate) norm: RmsNorm,
    kind: Kind,
    /// How far the logits of the first product with the whole vocabulary are from the exact ones.
    bounds: Bounds,
}

/// What a caller of the head keeps between calls, to save allocations. Every call writes it anew.
#[derive(Default)]
pub(crate) struct Room {
    /// The normed states: [rows, d_model]
    normed: Vec<f32>,
    /// 8-bit versions of the normed states, as products read them: [rows, stride], or the halves of 15-bit
    /// ones: [2 * rows, stride]
    narrow: Vec<i8>,
    /// 15-bit versions, which a head of 8 bits is defined on, and the size of the steps: [rows, d_model]
    integers: Vec<i16>,
    scales: Vec<f32>,
    /// Versions in blocks: [rows, blocks]
    blocks: Vec<InputBlock>,
    rows: Vec<Row>,
    /// 8-bit logits, filled up to whole panels with minus infinity: [rows, panels * PANEL]
    logits: Vec<f32>,
    /// Lower bounds on the best logits, of each thread.
    lower: Vec<f32>,
    sums: Sums,
}

/// What stands where an answer is going to be.
const NOTHING: Top2 = Top2 { token: 0, margin: 0.0 };

impl Head {
    /// Makes a head of a table, which is as in the checkpoint.
    pub(crate) fn new(norm: RmsNorm, table: Table, packing: Packing) -> Self {
        let (kind, bounds) = match (table, packing) {
            (Table::Blocks(blocks), _) => {
                let bounds = Bounds::new(blocks.len());
                (Kind::Blocks(blocks), bounds)
            }
            (Table::Rows(rows), Packing::As(WeightType::Int8)) => {
                let (int8, bounds) = Int8::new(rows);
                (Kind::Int8(int8), bounds)
            }
            (Table::Rows(rows), _) => {
                let (fine, bounds) = Fine::new(rows);
                (Kind::Fine(fine), bounds)
            }
        };
        Head { norm, kind, bounds }
    }

    /// Number of bytes of the weights that every product reads.
    pub(crate) fn bytes(&self) -> usize {
        match &self.kind {
            Kind::Fine(Fine { screen, .. }) | Kind::Int8(Int8 { screen, .. }) => screen.panels.bytes(),
            Kind::Blocks(blocks) => blocks.bytes(),
        }
    }

    /// Number of tokens.
    pub(crate) fn vocab_size(&self) -> usize {
        match &self.kind {
            Kind::Fine(Fine { screen, .. }) | Kind::Int8(Int8 { screen, .. }) => screen.panels.outputs(),
            Kind::Blocks(blocks) => blocks.outputs(),
        }
    }

    /// Number of panels of the vocabulary.
    fn panels(&self) -> usize {
        self.vocab_size().div_ceil(PANEL)
    }

    /// Finds the best tokens of some states.
    pub(crate) fn best(&self, processor: &Processor, states: &States<'_>, room: &mut Room) -> Vec<Token> {
        self.screen(processor, states, false, room);
        self.of_rows(
            processor,
            room,
            0,
            |row, scratch| with_simd!(processor.set, best_of(row: RowOf<'_>, scratch: &mut Scratch) -> Token),
        )
    }

    /// Finds the best tokens of some states and their margins.
    pub(crate) fn top2(&self, processor: &Processor, states: &States<'_>, room: &mut Room) -> Vec<Top2> {
        self.screen(processor, states, true, room);
        let leaders: Vec<Leaders> = self.of_rows(processor, room, Leaders::default(), |row, scratch| {
            with_simd!(processor.set, leaders_of(row: RowOf<'_>, scratch: &mut Scratch) -> Leaders)
        });
        let mut sums = std::mem::take(&mut room.sums);
        let totals = self.totals(processor, room, &leaders, &mut sums);
        room.sums = sums;
        let margin = |(leaders, total): (&Leaders, f32)| Top2 {
            token: leaders.tokens[0] as Token,
            margin: leaders.lead / total,
        };
        leaders.iter().zip(totals).map(margin).collect()
    }

    /// Finds the best tokens of some states, and their margins as far as 8-bit logits tell.
    pub(crate) fn estimated_top2(
        &self,
        processor: &Processor,
        states: &States<'_>,
        room: &mut Room,
    ) -> Vec<Top2> {
        self.screen(processor, states, false, room);
        self.of_rows(processor, room, NOTHING, |row, scratch| {
            with_simd!(processor.set, estimate_of(row: RowOf<'_>, scratch: &mut Scratch) -> Top2)
        })
    }

    /// Finds what [`Head::estimated_top2`] does, and about the `count` best tokens.
    pub(crate) fn shortlists(
        &self,
        processor: &Processor,
        states: &States<'_>,
        count: usize,
        room: &mut Room,
    ) -> Vec<Shortlist> {
        self.screen(processor, states, false, room);
        let nothing = Shortlist { top2: NOTHING, tokens: Vec::new() };
        self.of_rows(processor, room, nothing, |row, scratch| {
            with_simd!(processor.set, shortlist_of(
                row: RowOf<'_>, count: usize, scratch: &mut Scratch
            ) -> Shortlist)
        })
    }

    /// Finds the `count` best tokens of some states, exactly.
    pub(crate) fn best_tokens(
        &self,
        processor: &Processor,
        states: &States<'_>,
        count: usize,
        room: &mut Room,
    ) -> Vec<Vec<Token>> {
        self.screen(processor, states, false, room);
        self.of_rows(processor, room, Vec::new(), |row, scratch| {
            with_simd!(processor.set, best_tokens_of(
                row: RowOf<'_>, count: usize, scratch: &mut Scratch
            ) -> Vec<Token>)
        })
    }

    /// Finds best tokens and margins in a vocabulary of some tokens, which each state has its own of.
    pub(crate) fn top2_among(
        &self,
        processor: &Processor,
        states: &States<'_>,
        candidates: &[&[Token]],
        room: &mut Room,
    ) -> Vec<Top2> {
        self.prepare(processor, states, true, room);
        self.of_rows(processor, room, NOTHING, |row, scratch| {
            let candidates = candidates[row.row];
            with_simd!(processor.set, among_of(
                row: RowOf<'_>, candidates: &[Token], scratch: &mut Scratch
            ) -> Top2)
        })
    }

    /// Computes all logits of some states: [rows, vocab_size].
    pub(crate) fn logits(&self, processor: &Processor, states: &States<'_>, room: &mut Room) -> Vec<f32> {
        let vocab_size = self.vocab_size();
        let mut all = vec![0.0; states.len() * vocab_size];
        let to = all.chunks_exact_mut(vocab_size);
        match &self.kind {
            Kind::Int8(_) | Kind::Blocks(_) => {
                self.screen(processor, states, true, room);
                let from = room.logits.chunks_exact(self.panels() * PANEL);
                from.zip(to).for_each(|(from, to)| to.copy_from_slice(&from[..vocab_size]));
            }
            Kind::Fine(fine) => {
                let normed = normalise(&self.norm, states, &mut room.normed);
                let rows = normed.chunks_exact(self.norm.weight.len());
                rows.zip(to).for_each(|(x, to)| fine.all_logits(processor, x, to));
            }
        }
        all
    }

    /// Calls `f` with each row, rows being divided among the threads.
    fn of_rows<T: Clone + Send>(
        &self,
        processor: &Processor,
        room: &Room,
        nothing: T,
        f: impl Fn(RowOf<'_>, &mut Scratch) -> T + Sync,
    ) -> Vec<T> {
        let mut results = vec![nothing; room.rows.len()];
        let bounds = bounds(results.len(), 1, processor.team.threads());
        let mut parts = Vec::with_capacity(bounds.len());
        let mut rest = results.as_mut_slice();
        for pair in bounds.windows(2) {
            let (part, after) = rest.split_at_mut(pair[1] - pair[0]);
            parts.push((pair[0], part));
            rest = after;
        }
        processor.team.each(&mut parts, |(first, part), scratch| {
            for (index, result) in part.iter_mut().enumerate() {
                *result = f(RowOf { head: self, room, row: *first + index }, scratch);
            }
        });
        results
    }
}
