//! One decoding in progress: the K/V cache and the states of entries.

use std::rc::Rc;

use calm_core::profile::{self, Part};
use calm_core::{DecoderSession, EngineError, Entry, Matrix, Token, Top2};
use tch::{Kind, Tensor};

use super::layout::{Grid, Places, Setting, turn_of};
use super::rope::Turn;
use super::{CausalBias, Layers, Layout, Rope, split_heads};
use crate::Error;
use crate::device::upload;

/// One decoding of a batch.
pub(crate) struct Session<L> {
    layers: L,
    grid: Grid,
    /// Per layer, keys and values one after the other: [rows, positions, 2 * kv_inner]. They begin as zeros,
    /// since what a row does not see of a longer one's keys is multiplied by 0, and has to be a number.
    self_kv: Vec<Tensor>,
    bias: CausalBias,
    rope: Option<Rope>,
    /// Whether this decoding reads prompts, which is a part of a call by itself.
    reads: bool,
    working: Option<Working>,
    /// States of all entries that are not in the working set: [rows, positions, d_model]
    kept: Tensor,
    /// The entries outside the working set that were asked for last. Layers are often asked for the same
    /// ones.
    asked: Option<(Vec<Entry>, Rc<Asked>)>,
}

/// With what a decoding begins.
pub(crate) struct Start {
    /// Tokens that each row's cache has when its output begins.
    pub(crate) offsets: Vec<usize>,
    /// Positions that each row has, its prompt's and its output's.
    pub(crate) positions: usize,
    pub(crate) bias: CausalBias,
    pub(crate) rope: Option<Rope>,
    /// Whether this decoding reads prompts.
    pub(crate) reads: bool,
}

/// What follows from entries that are asked for.
struct Asked {
    places: Places,
    turn: Option<Turn>,
}

/// The entries that were embedded or ran a layer last. As long as they stay the same, no state is moved.
struct Working {
    layout: Layout,
    /// [entries, d_model]
    states: Tensor,
    /// The layer that made the states, 0 for the embedding.
    layer: usize,
    /// Whether the states are among those that are kept.
    is_kept: bool,
}

impl<L: Layers> DecoderSession for Session<L> {
    fn embed(&mut self, entries: &[Entry], tokens: &[Token]) -> Result<(), EngineError> {
        let _no_grad = tch::no_grad_guard();
        // Nobody will ask for what the last layer made.
        if self.working.as_ref().is_some_and(|working| working.layer < self.layers.count()) {
            self.keep();
        }
        let tokens: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
        let states = self.layers.embed(&upload(&tokens, self.grid.device));
        self.working = Some(Working { layout: self.layout(entries), states, layer: 0, is_kept: false });
        Ok(())
    }

    fn run_layer(&mut self, layer: usize, entries: &[Entry]) -> Result<(), EngineError> {
        let _no_grad = tch::no_grad_guard();
        let (layout, x) = self.take(entries);
        let x = profile::within(self.part(Part::SelfAttention), || self.self_attention(layer, &layout, x));
        let part = self.part(Part::CrossAttention);
        let x = profile::within(part, || self.layers.cross_attention(layer, &layout, x));
        let _part = profile::enter(self.part(Part::FeedForward));
        let states = self.layers.feed_forward(layer, &x);
        self.working = Some(Working { layout, states, layer, is_kept: false });
        Ok(())
    }

    fn propagate(&mut self, layer: usize, entries: &[Entry]) -> Result<(), EngineError> {
        let _part = profile::enter(Part::Propagation);
        let _no_grad = tch::no_grad_guard();
        let states = self.states(entries);
        let kv = self.layers.project_kv(layer, &states);
        let asked = self.asked(entries);
        let kv = match &asked.turn {
            Some(turn) => turn.apply(&kv, self.layers.attention().kv_heads),
            None => kv,
        };
        asked.places.write(&self.self_kv[layer - 1], &kv);
        Ok(())
    }

    fn copy_keys_values(&mut self, layer: usize, entries: &[Entry]) -> Result<(), EngineError> {
        let _part = profile::enter(Part::Propagation);
        let _no_grad = tch::no_grad_guard();
        let [below, cache] = &self.self_kv[layer - 2..layer] else { return Ok(()) };
        let (below, cache) = (below.shallow_clone(), cache.shallow_clone());
        let asked = self.asked(entries);
        asked.places.write(&cache, &asked.places.read(&below));
        Ok(())
    }

    fn hidden(&mut self, entries: &[Entry]) -> Result<Matrix, EngineError> {
        let _no_grad = tch::no_grad_guard();
        Ok(to_matrix(&self.states(entries))?)
    }

    fn set_hidden(&mut self, entries: &[Entry], states: &Matrix) -> Result<(), EngineError> {
        let _no_grad = tch::no_grad_guard();
        self.keep();
        self.working = None;
        let states = self.uploaded(states);
        self.asked(entries).places.write(&self.kept, &states);
        Ok(())
    }

    fn logits(&mut self, entries: &[Entry]) -> Result<Matrix, EngineError> {
        let _part = profile::enter(Part::Head);
        let _no_grad = tch::no_grad_guard();
        Ok(to_matrix(&self.head(entries))?)
    }

    fn logits_of(&mut self, states: &Matrix) -> Result<Matrix, EngineError> {
        let _part = profile::enter(Part::Head);
        let _no_grad = tch::no_grad_guard();
        Ok(to_matrix(&self.exit_head_of(states))?)
    }

    fn top2_of(&mut self, states: &Matrix) -> Result<Vec<Top2>, EngineError> {
        let _part = profile::enter(Part::Head);
        let _no_grad = tch::no_grad_guard();
        Ok(top2(&self.exit_head_of(states))?)
    }

    fn top2(&mut self, entries: &[Entry]) -> Result<Vec<Top2>, EngineError> {
        let _part = profile::enter(Part::Head);
        let _no_grad = tch::no_grad_guard();
        Ok(top2(&self.head(entries))?)
    }

    fn predict(&mut self, entries: &[Entry]) -> Result<Vec<Token>, EngineError> {
        let _part = profile::enter(Part::Head);
        let _no_grad = tch::no_grad_guard();
        let tokens = to_vec::<i64>(&self.head(entries).argmax(-1, false))?;
        Ok(tokens.into_iter().map(|token| token as Token).collect())
    }

    fn top2_among(&mut self, entries: &[Entry], candidates: &[&[Token]]) -> Result<Vec<Top2>, EngineError> {
        let _part = profile::enter(Part::Head);
        let _no_grad = tch::no_grad_guard();
        // Where entries have fewer candidates than others, their last one comes again.
        let most = candidates.iter().map(|candidates| candidates.len()).max().unwrap_or(0);
        let filled = |candidates: &&[Token]| {
            let last = candidates.len() - 1;
            let candidates = candidates.to_vec();
            (0..most).map(move |index| i64::from(candidates[index.min(last)]))
        };
        let all: Vec<i64> = candidates.iter().flat_map(filled).collect();
        let weights = self.layers.head().index_select(0, &upload(&all, self.grid.device));
        // [entries * most, d_model] -> [entries, most, d_model]
        let weights = weights.view([entries.len() as i64, most as i64, -1]);
        let states = self.states(entries);
        let inputs = self.layers.head_input(&states);
        // [entries, most, d_model] x [entries, d_model, 1] -> [entries, most]
        let logits = to_matrix(&weights.bmm(&inputs.unsqueeze(2)).squeeze_dim(2))?;
        let pairs = candidates.iter().zip(logits.rows());
        let best = pairs.map(|(candidates, logits)| {
            let mut logits = logits.iter().copied();
            Top2::among(candidates, |_| logits.next().unwrap_or(f32::NEG_INFINITY))
        });
        Ok(best.collect())
    }

    fn copy_rows(&mut self, from: &[usize]) -> Result<(), EngineError> {
        let _no_grad = tch::no_grad_guard();
        let from: Vec<i64> = from.iter().map(|&row| row as i64).collect();
        let from = upload(&from, self.grid.device);
        for cache in &mut self.self_kv {
            // The copy is whole before it is written back.
            cache.copy_(&cache.index_select(0, &from));
        }
        Ok(())
    }

    fn crop(&mut self, _row: usize, _length: usize) -> Result<(), EngineError> {
        // What is forgotten is not read before it comes again, and then it is written first.
        Ok(())
    }
}

impl<L: Layers> Session<L> {
    /// Starts a decoding, whose caches are zeros.
    pub(crate) fn new(layers: L, start: Start) -> Self {
        let _no_grad = tch::no_grad_guard();
        let Start { offsets, positions, bias, rope, reads } = start;
        let (rows, length) = (offsets.len() as i64, positions as i64);
        let options = layers.options();
        let width = 2 * layers.attention().kv_inner();
        let self_kv = Tensor::zeros([layers.count() as i64, rows, length, width], options);
        let d_model = layers.head().size()[1];
        Session {
            grid: Grid { offsets, positions, device: options.1 },
            layers,
            self_kv: self_kv.unbind(0),
            bias,
            rope,
            reads,
            working: None,
            kept: Tensor::empty([rows, length, d_model], options),
            asked: None,
        }
    }

    /// Begins caches with what another decoding has left: per layer, [rows, positions, 2 * kv_inner].
    pub(crate) fn fill(&mut self, kv: &[Tensor]) {
        let _no_grad = tch::no_grad_guard();
        for (cache, kv) in self.self_kv.iter().zip(kv) {
            cache.narrow(1, 0, kv.size()[1]).copy_(kv);
        }
    }

    /// The caches, per layer: [rows, positions, 2 * kv_inner].
    pub(crate) fn into_caches(self) -> Vec<Tensor> {
        self.self_kv
    }

    /// States of entries on the device: [entries, d_model].
    pub(crate) fn states(&mut self, entries: &[Entry]) -> Tensor {
        if let Some(Working { layout, states, .. }) = &self.working {
            if layout.entries == entries {
                return states.shallow_clone();
            }
            if entries.iter().any(|entry| layout.entries.binary_search(entry).is_ok()) {
                self.keep();
            }
        }
        self.asked(entries).places.read(&self.kept)
    }

    /// The part of a call that a part of a layer counts as.
    fn part(&self, part: Part) -> Part {
        if self.reads { Part::Encoder } else { part }
    }

    fn self_attention(&self, layer: usize, layout: &Layout, x: Tensor) -> Tensor {
        let attention = self.layers.attention();
        let (inner, kv_inner) = (attention.inner(), attention.kv_inner());
        let mut qkv = self.layers.project(layer, &x);
        if let Some(turn) = &layout.turn {
            qkv = turn.apply(&qkv, attention.heads + attention.kv_heads);
        }
        let cache = &self.self_kv[layer - 1];
        layout.places.write(cache, &qkv.narrow(1, inner, 2 * kv_inner));
        // [rows, keys, 2 * kv_inner] -> 2 x [rows, kv_heads, keys, head_dim]
        let kv = layout.of_rows(&cache.narrow(1, 0, layout.keys)).chunk(2, -1);
        let kv = [0, 1].map(|i: usize| split_heads(&kv[i], attention.kv_heads));
        let context = layout.self_attention(&qkv.narrow(1, 0, inner), &kv);
        self.layers.attended(layer, x, &context)
    }

    /// Logits of entries: [entries, vocab_size]
    fn head(&mut self, entries: &[Entry]) -> Tensor {
        let states = self.states(entries);
        self.head_of(&states)
    }

    /// Logits of states that exit heads gave: [states, d_model] -> [states, tokens]
    fn exit_head_of(&self, states: &Matrix) -> Tensor {
        let inputs = self.layers.head_input(&self.uploaded(states));
        inputs.linear(self.layers.exit_head(), None::<&Tensor>)
    }

    /// Logits of any states: [states, d_model] -> [states, vocab_size]
    fn head_of(&self, states: &Tensor) -> Tensor {
        self.layers.head_input(states).linear(self.layers.head(), None::<&Tensor>)
    }

    /// States that come from outside: [states, d_model]
    fn uploaded(&self, states: &Matrix) -> Tensor {
        let states = Tensor::from_slice(&states.data).view([-1, states.columns as i64]);
        states.to_device(self.grid.device).to_kind(self.kept.kind())
    }

    fn layout(&self, entries: &[Entry]) -> Layout {
        let before = self.working.as_ref().map(|working| &working.layout);
        let attention = self.layers.attention();
        let setting = Setting {
            grid: &self.grid,
            attention,
            bias: &self.bias,
            rope: self.rope.as_ref(),
            source_mask: &|rows| self.layers.source_mask(rows),
        };
        Layout::new(entries, &setting, before)
    }

    /// Takes the working set's layout and states out, after making it the set of these entries.
    fn take(&mut self, entries: &[Entry]) -> (Layout, Tensor) {
        if let Some(Working { layout, states, .. }) =
            self.working.take_if(|working| working.layout.entries == entries)
        {
            return (layout, states);
        }
        self.keep();
        let layout = self.layout(entries);
        let states = layout.places.read(&self.kept);
        (layout, states)
    }

    /// Puts the working set's states among those that are kept.
    fn keep(&mut self) {
        if let Some(Working { layout, states, is_kept, .. }) = &mut self.working
            && !*is_kept
        {
            layout.places.write(&self.kept, states);
            *is_kept = true;
        }
    }

    /// Where entries stand in caches, and their angles.
    fn asked(&mut self, entries: &[Entry]) -> Rc<Asked> {
        if let Some((before, asked)) = &self.asked
            && before == entries
        {
            return Rc::clone(asked);
        }
        let places = Places::new(entries, &self.grid);
        let asked = Rc::new(Asked { places, turn: turn_of(entries, &self.grid, self.rope.as_ref()) });
        self.asked = Some((entries.to_vec(), Rc::clone(&asked)));
        asked
    }
}

/// Best tokens and margins of logits [rows, vocab_size].
fn top2(logits: &Tensor) -> Result<Vec<Top2>, Error> {
    if !logits.device().is_cuda() {
        return Ok(to_matrix(logits)?.rows().map(Top2::from_logits).collect());
    }
    // Two numbers a row cross to the host instead of the vocabulary.
    let (best, tokens) = logits.to_kind(Kind::Float).softmax(-1, Kind::Float).topk(2, -1, true, true);
    let tokens = to_vec::<i64>(&tokens.select(1, 0))?;
    let margins = to_vec::<f32>(&(best.select(1, 0) - best.select(1, 1)))?;
    let pairs = tokens.into_iter().zip(margins);
    Ok(pairs.map(|(token, margin)| Top2 { token: token as Token, margin }).collect())
}

/// [rows, columns]
fn to_matrix(x: &Tensor) -> Result<Matrix, Error> {
    let columns = x.size()[1] as usize;
    Ok(Matrix { data: to_vec(&x.to_kind(Kind::Float).contiguous().view(-1))?, columns })
}

/// Numbers of one dimension.
fn to_vec<'t, T>(x: &'t Tensor) -> Result<Vec<T>, Error>
where
    Vec<T>: TryFrom<&'t Tensor, Error = tch::TchError>,
{
    Ok(Vec::try_from(x)?)
}
