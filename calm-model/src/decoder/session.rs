//! One decoding in progress: the K/V cache and the states of entries.

use std::rc::Rc;

use calm_core::profile::{self, Part};
use calm_core::{DecoderSession, EngineError, Entry, Matrix, Token, Top2};
use tch::{Kind, Tensor};

use super::dropout::Dropout;
use super::layers::split_heads;
use super::layout::{Layout, Places};
use super::position::CausalBias;
use super::prompt::Encoded;
use super::{T5, embed};
use crate::Error;
use crate::device::upload;

/// One decoding of a batch.
pub(super) struct Session<'a> {
    model: &'a T5,
    encoded: &'a Encoded<'a>,
    max_tokens: usize,
    /// Per layer, keys and values one after the other: [rows, max_tokens, 2 * inner]. They begin as zeros,
    /// since what a row does not see of a longer one's keys is multiplied by 0, and has to be a number.
    self_kv: Vec<Tensor>,
    /// Per layer, keys and values [rows, heads, source length, d_kv], projected when the first token reaches
    /// the layer.
    cross_kv: Vec<Option<[Tensor; 2]>>,
    bias: CausalBias,
    working: Option<Working>,
    /// States of all entries that are not in the working set: [rows, max_tokens, d_model]
    kept: Tensor,
    /// The entries outside the working set that were asked for last. Layers are often asked for the same
    /// ones.
    asked: Option<(Vec<Entry>, Rc<Places>)>,
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

impl DecoderSession for Session<'_> {
    fn embed(&mut self, entries: &[Entry], tokens: &[Token]) -> Result<(), EngineError> {
        let _no_grad = tch::no_grad_guard();
        // Nobody will ask for what the last layer made.
        if self.working.as_ref().is_some_and(|working| working.layer < self.cross_kv.len()) {
            self.keep();
        }
        let tokens: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
        let tokens = upload(&tokens, self.model.device());
        let states = embed(&self.model.decoder.embed_tokens, &tokens);
        self.working = Some(Working { layout: self.layout(entries), states, layer: 0, is_kept: false });
        Ok(())
    }

    fn run_layer(&mut self, layer: usize, entries: &[Entry]) -> Result<(), EngineError> {
        let _no_grad = tch::no_grad_guard();
        let (layout, x) = self.take(entries);
        let x = profile::within(Part::SelfAttention, || self.self_attention(layer, &layout, x));
        let x = profile::within(Part::CrossAttention, || self.cross_attention(layer, &layout, x));
        let _part = profile::enter(Part::FeedForward);
        let block = &self.model.decoder.blocks[layer - 1];
        let states = &x + block.feed_forward.forward(&block.feed_forward_norm.forward(&x), &Dropout::off());
        self.working = Some(Working { layout, states, layer, is_kept: false });
        Ok(())
    }

    fn propagate(&mut self, layer: usize, entries: &[Entry]) -> Result<(), EngineError> {
        let _part = profile::enter(Part::Propagation);
        let _no_grad = tch::no_grad_guard();
        let block = &self.model.decoder.blocks[layer - 1];
        let states = self.states(entries);
        let kv = block.self_attention.project_kv(&block.self_attention_norm.forward(&states));
        self.places(entries).write(&self.self_kv[layer - 1], &kv);
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
        self.places(entries).write(&self.kept, &states);
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
        Ok(to_matrix(&self.head_of(&self.uploaded(states)))?)
    }

    fn top2_of(&mut self, states: &Matrix) -> Result<Vec<Top2>, EngineError> {
        let _part = profile::enter(Part::Head);
        let _no_grad = tch::no_grad_guard();
        Ok(top2(&self.head_of(&self.uploaded(states)))?)
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
        let weights = self.model.head.index_select(0, &upload(&all, self.model.device()));
        // [entries * most, d_model] -> [entries, most, d_model]
        let weights = weights.view([entries.len() as i64, most as i64, -1]);
        let inputs = self.model.head_input(&self.states(entries));
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
        let from = upload(&from, self.model.device());
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

impl<'a> Session<'a> {
    /// Starts decoding what was `encoded`, each row at most `max_tokens` long.
    pub(super) fn new(encoded: &'a Encoded<'a>, max_tokens: usize) -> Self {
        let _no_grad = tch::no_grad_guard();
        let model = encoded.model;
        let (layers, config) = (model.decoder.blocks.len(), &model.config);
        let (rows, length) = (encoded.num_rows() as i64, max_tokens as i64);
        let options = (model.head.kind(), model.device());
        let self_kv = Tensor::zeros([layers as i64, rows, length, 2 * config.inner()], options);
        Session {
            model,
            encoded,
            max_tokens,
            self_kv: self_kv.unbind(0),
            cross_kv: (0..layers).map(|_| None).collect(),
            bias: CausalBias::new(&model.decoder.relative_attention_bias, config, length),
            working: None,
            kept: Tensor::empty([rows, length, config.d_model], options),
            asked: None,
        }
    }

    fn self_attention(&self, layer: usize, layout: &Layout, x: Tensor) -> Tensor {
        let block = &self.model.decoder.blocks[layer - 1];
        let (inner, heads) = (self.model.config.inner(), self.model.config.num_heads);
        let qkv = block.self_attention.project(&block.self_attention_norm.forward(&x));
        let cache = &self.self_kv[layer - 1];
        layout.places.write(cache, &qkv.narrow(1, inner, 2 * inner));
        // [rows, keys, 2 * inner] -> 2 x [rows, heads, keys, d_kv]
        let kv = layout.of_rows(&cache.narrow(1, 0, layout.keys)).chunk(2, -1);
        let kv = [0, 1].map(|i: usize| split_heads(&kv[i], heads));
        let context = layout.attend(&qkv.narrow(1, 0, inner), &kv, &layout.bias);
        x + block.self_attention.output(&context)
    }

    fn cross_attention(&mut self, layer: usize, layout: &Layout, x: Tensor) -> Tensor {
        let block = &self.model.decoder.blocks[layer - 1];
        let attention = &block.cross_attention;
        let states = &self.encoded.states;
        let kv = self.cross_kv[layer - 1].get_or_insert_with(|| attention.project_kv(states));
        let [k, v] = kv;
        let kv = [layout.of_rows(k), layout.of_rows(v)];
        let q = attention.project_q(&block.cross_attention_norm.forward(&x));
        x + attention.output(&layout.attend(&q, &kv, &layout.source_mask))
    }

    /// Logits of entries: [entries, vocab_size]
    fn head(&mut self, entries: &[Entry]) -> Tensor {
        let states = self.states(entries);
        self.head_of(&states)
    }

    /// Logits of any states: [states, d_model] -> [states, vocab_size]
    fn head_of(&self, states: &Tensor) -> Tensor {
        self.model.head_input(states).linear(&self.model.head, None::<&Tensor>)
    }

    /// States that come from outside: [states, d_model]
    fn uploaded(&self, states: &Matrix) -> Tensor {
        let states = Tensor::from_slice(&states.data).view([-1, states.columns as i64]);
        states.to_device(self.model.device()).to_kind(self.kept.kind())
    }

    fn layout(&self, entries: &[Entry]) -> Layout {
        let before = self.working.as_ref().map(|working| &working.layout);
        Layout::new(entries, self.encoded, self.max_tokens, &self.bias, before)
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

    /// States of any entries: [entries, d_model]
    fn states(&mut self, entries: &[Entry]) -> Tensor {
        if let Some(Working { layout, states, .. }) = &self.working {
            if layout.entries == entries {
                return states.shallow_clone();
            }
            if entries.iter().any(|entry| layout.entries.binary_search(entry).is_ok()) {
                self.keep();
            }
        }
        self.places(entries).read(&self.kept)
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

    /// Where entries stand in caches.
    fn places(&mut self, entries: &[Entry]) -> Rc<Places> {
        if let Some((asked, places)) = &self.asked
            && asked == entries
        {
            return Rc::clone(places);
        }
        let places = Rc::new(Places::new(entries, self.max_tokens, self.model.device()));
        self.asked = Some((entries.to_vec(), Rc::clone(&places)));
        places
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
