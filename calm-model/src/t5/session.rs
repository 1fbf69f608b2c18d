//! One decoding in progress: the K/V cache and the states of the current step.

use calm_checkpoint::check_sources;
use calm_core::{Backbone, BackboneShape, CacheEntry, DecoderSession, ExitClassifier, Matrix, Token, Top2};
use tch::{Kind, Tensor};

use super::T5;
use super::dropout::Dropout;
use super::layers::{SCALE, merge_heads, split_heads};
use super::position;
use crate::Error;
use crate::device::upload;

/// Encoder output of a batch.
pub struct Encoded {
    /// [rows, source length, d_model]
    states: Tensor,
    /// 0 for tokens, minus infinity for padding: [rows, 1, 1, source length], each row aligned
    mask: Tensor,
}

/// One decoding of a batch.
pub struct Session<'a> {
    model: &'a T5,
    encoded: Encoded,
    rows: usize,
    max_tokens: usize,
    /// Per layer, keys and values one after the other: [rows, max_tokens, 2 * inner]
    self_kv: Vec<Tensor>,
    /// Per layer, keys and values [rows, heads, source length, d_kv], projected when the first token reaches the layer.
    cross_kv: Vec<Option<[Tensor; 2]>>,
    /// States that stand for the missing ones above an early exit: [rows * max_tokens, d_model]
    kept_states: Tensor,
    /// [heads, max_tokens], farthest distance first
    bias_row: Tensor,
    /// Its last columns, which are those of this step, where the fused attention on CUDA can read them: [1, heads, 1, aligned max_tokens]
    step_bias: Tensor,
    position: usize,
    /// States after each layer run in this step, from the embedding on.
    step: Vec<LayerState>,
    /// Layer that each row left at in this step.
    kept_layer: Vec<usize>,
}

struct LayerState {
    rows: Vec<usize>,
    /// [rows.len(), d_model]
    x: Tensor,
}

impl Backbone for T5 {
    type Error = Error;
    type Encoded = Encoded;
    type Session<'a> = Session<'a>;

    fn shape(&self) -> &BackboneShape {
        &self.shape
    }

    fn exit_classifier(&self) -> Option<&ExitClassifier> {
        self.classifier.as_ref()
    }

    fn encode(&self, sources: &[&[Token]]) -> Result<Encoded, Error> {
        let _no_grad = tch::no_grad_guard();
        check_sources(sources, self.config.vocab_size as usize)?;
        let length = sources.iter().map(|source| source.len()).max().unwrap_or(0);
        let mut tokens = vec![i64::from(self.config.pad_token_id); sources.len() * length];
        let aligned = position::aligned(length as i64) as usize;
        let mut mask = vec![f32::NEG_INFINITY; sources.len() * aligned];
        for (row, source) in sources.iter().enumerate() {
            for (i, &token) in source.iter().enumerate() {
                tokens[row * length + i] = i64::from(token);
                // A source may hold the padding token itself, so that the mask goes by length.
                mask[row * aligned + i] = 0.0;
            }
        }
        let (rows, length) = (sources.len() as i64, length as i64);
        let tokens = upload(&tokens, self.device()).view([rows, length]);
        let mask = Tensor::from_slice(&mask).view([rows, 1, 1, -1]).to_device(self.device());
        let mask = mask.to_kind(self.shared.kind());
        let states = self.encode_tokens(&tokens, &mask, &Dropout::off());
        Ok(Encoded { states, mask: mask.narrow(-1, 0, length) })
    }

    fn start<'a>(&'a self, encoded: &Encoded, max_tokens: usize) -> Result<Session<'a>, Error> {
        let _no_grad = tch::no_grad_guard();
        let rows = encoded.states.size()[0];
        let options = (self.shared.kind(), self.device());
        let (length, layers) = (max_tokens as i64, self.decoder.blocks.len());
        let self_kv = (0..layers).map(|_| Tensor::empty([rows, length, 2 * self.config.inner()], options));
        let table = &self.decoder.relative_attention_bias;
        Ok(Session {
            model: self,
            encoded: Encoded { states: encoded.states.shallow_clone(), mask: encoded.mask.shallow_clone() },
            rows: rows as usize,
            max_tokens,
            self_kv: self_kv.collect(),
            cross_kv: (0..layers).map(|_| None).collect(),
            kept_states: Tensor::empty([rows * length, self.config.d_model], options),
            bias_row: position::causal_bias_row(table, &self.config, length),
            step_bias: Tensor::empty([1, self.config.num_heads, 1, position::aligned(length)], options),
            position: 0,
            step: Vec::new(),
            kept_layer: vec![0; rows as usize],
        })
    }
}

impl DecoderSession for Session<'_> {
    type Error = Error;

    fn begin_step(&mut self, position: usize, rows: &[usize], tokens: &[Token]) -> Result<(), Error> {
        let _no_grad = tch::no_grad_guard();
        let tokens: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
        let x = self.model.embed(&upload(&tokens, self.model.device()));
        let length = position as i64 + 1;
        let bias = self.bias_row.narrow(1, self.max_tokens as i64 - length, length);
        self.step_bias.narrow(3, 0, length).copy_(&bias.unsqueeze(1));
        self.position = position;
        self.step.clear();
        self.step.push(LayerState { rows: rows.to_vec(), x });
        Ok(())
    }

    fn run_layer(&mut self, layer: usize, rows: &[usize]) -> Result<(), Error> {
        let _no_grad = tch::no_grad_guard();
        let x = self.state(layer - 1, rows);
        let x = self.self_attention(layer, rows, x);
        let x = self.cross_attention(layer, rows, x);
        let block = &self.model.decoder.blocks[layer - 1];
        let x = &x + block.feed_forward.forward(&block.feed_forward_norm.forward(&x), &Dropout::off());
        self.step.truncate(layer);
        self.step.push(LayerState { rows: rows.to_vec(), x });
        Ok(())
    }

    fn hidden(&mut self, layer: usize, rows: &[usize]) -> Result<Matrix, Error> {
        to_matrix(&self.state(layer, rows))
    }

    fn logits(&mut self, layer: usize, rows: &[usize]) -> Result<Matrix, Error> {
        to_matrix(&self.head(&self.state(layer, rows)))
    }

    fn top2(&mut self, layer: usize, rows: &[usize]) -> Result<Vec<Top2>, Error> {
        let logits = self.head(&self.state(layer, rows));
        if !logits.device().is_cuda() {
            return Ok(to_matrix(&logits)?.rows().map(Top2::from_logits).collect());
        }
        // Two numbers a row cross to the host instead of the vocabulary.
        let (best, tokens) = logits.to_kind(Kind::Float).softmax(-1, Kind::Float).topk(2, -1, true, true);
        let tokens = Vec::<i64>::try_from(tokens.select(1, 0))?;
        let margins = Vec::<f32>::try_from(best.select(1, 0) - best.select(1, 1))?;
        let pairs = tokens.into_iter().zip(margins);
        Ok(pairs.map(|(token, margin)| Top2 { token: token as Token, margin }).collect())
    }

    fn top2_among(
        &mut self,
        layer: usize,
        rows: &[usize],
        candidates: &[&[Token]],
    ) -> Result<Vec<Top2>, Error> {
        let _no_grad = tch::no_grad_guard();
        let inputs = self.model.head_input(&self.state(layer, rows));
        let all = self.index(candidates.concat().into_iter().map(i64::from));
        let weights = self.model.head.index_select(0, &all);
        let mut start = 0;
        let mut top2 = Vec::with_capacity(rows.len());
        for (row, candidates) in (0..).zip(candidates) {
            let count = candidates.len() as i64;
            // [1, d_model] x [candidates, d_model] -> [candidates]
            let logits = inputs.narrow(0, row, 1).linear(&weights.narrow(0, start, count), None::<&Tensor>);
            let logits = Vec::<f32>::try_from(logits.to_kind(Kind::Float).view(-1))?;
            let mut logits = logits.into_iter();
            top2.push(Top2::among(candidates, |_| logits.next().unwrap_or(f32::NEG_INFINITY)));
            start += count;
        }
        Ok(top2)
    }

    fn keep(&mut self, layer: usize, rows: &[usize]) -> Result<(), Error> {
        let _no_grad = tch::no_grad_guard();
        for &row in rows {
            self.kept_layer[row] = layer;
        }
        // No layer above the last one will ask for its states.
        if layer < self.model.decoder.blocks.len() {
            let state = self.state(layer, rows);
            let index = self.cache_index(rows.iter().map(|&row| (row, self.position)));
            let _ = self.kept_states.index_copy_(0, &index, &state);
        }
        Ok(())
    }

    fn predict(&mut self, rows: &[usize]) -> Result<Vec<Token>, Error> {
        let _no_grad = tch::no_grad_guard();
        let logits = self.head(&self.kept_state(rows));
        let tokens = Vec::<i64>::try_from(logits.argmax(-1, false))?;
        Ok(tokens.into_iter().map(|token| token as Token).collect())
    }

    fn propagate(&mut self, layer: usize, entries: &[CacheEntry]) -> Result<(), Error> {
        let _no_grad = tch::no_grad_guard();
        let index = self.cache_index(entries.iter().map(|entry| (entry.row, entry.position)));
        let block = &self.model.decoder.blocks[layer - 1];
        let states = self.kept_states.index_select(0, &index);
        let kv = block.self_attention.project_kv(&block.self_attention_norm.forward(&states));
        let _ = self.self_kv[layer - 1].flatten(0, 1).index_copy_(0, &index, &kv);
        Ok(())
    }
}

impl Session<'_> {
    fn self_attention(&mut self, layer: usize, rows: &[usize], x: Tensor) -> Tensor {
        let block = &self.model.decoder.blocks[layer - 1];
        let config = &self.model.config;
        let (inner, heads, length) = (config.inner(), config.num_heads, self.position as i64 + 1);
        let qkv = block.self_attention.project(&block.self_attention_norm.forward(&x));
        let kv = qkv.narrow(1, inner, 2 * inner);
        let cache = &self.self_kv[layer - 1];
        if rows.len() == self.rows {
            cache.select(1, length - 1).copy_(&kv);
        } else {
            let index = self.cache_index(rows.iter().map(|&row| (row, self.position)));
            let _ = cache.flatten(0, 1).index_copy_(0, &index, &kv);
        }
        // [rows, length, 2 * inner] -> 2 x [rows, heads, length, d_kv]
        let cached = self.of_rows(&cache.narrow(1, 0, length), rows).chunk(2, -1);
        let q = split_heads(&qkv.narrow(1, 0, inner).unsqueeze(1), heads);
        let bias = self.step_bias.narrow(3, 0, length);
        let context = attend(&q, &split_heads(&cached[0], heads), &split_heads(&cached[1], heads), &bias);
        x + block.self_attention.output(&context)
    }

    fn cross_attention(&mut self, layer: usize, rows: &[usize], x: Tensor) -> Tensor {
        let block = &self.model.decoder.blocks[layer - 1];
        let attention = &block.cross_attention;
        let states = &self.encoded.states;
        let [k, v] = self.cross_kv[layer - 1].get_or_insert_with(|| attention.project_kv(states));
        let [k, v] = [k.shallow_clone(), v.shallow_clone()];
        let q = attention.project_q(&block.cross_attention_norm.forward(&x)).unsqueeze(1);
        let q = split_heads(&q, self.model.config.num_heads);
        let mask = self.of_rows(&self.encoded.mask, rows);
        let context = attend(&q, &self.of_rows(&k, rows), &self.of_rows(&v, rows), &mask);
        x + attention.output(&context)
    }

    /// [n, d_model] -> [n, vocab_size]
    fn head(&self, states: &Tensor) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        self.model.head_input(states).linear(&self.model.head, None::<&Tensor>)
    }

    /// State after `layer` of rows that ran it: [rows.len(), d_model]
    fn state(&self, layer: usize, rows: &[usize]) -> Tensor {
        let LayerState { rows: have, x } = &self.step[layer];
        if have == rows {
            return x.shallow_clone();
        }
        // Both lists ascend.
        let mut place = 0;
        let index = rows.iter().map(|&row| {
            while have[place] != row {
                place += 1;
            }
            place as i64
        });
        x.index_select(0, &self.index(index))
    }

    /// States that the rows left with in this step: [rows.len(), d_model]
    fn kept_state(&self, rows: &[usize]) -> Tensor {
        let mut layers: Vec<usize> = rows.iter().map(|&row| self.kept_layer[row]).collect();
        layers.sort_unstable();
        layers.dedup();
        if let [layer] = layers[..] {
            return self.state(layer, rows);
        }
        let groups: Vec<Vec<usize>> = layers
            .iter()
            .map(|&layer| rows.iter().copied().filter(|&row| self.kept_layer[row] == layer).collect())
            .collect();
        let states: Vec<Tensor> =
            layers.iter().zip(&groups).map(|(&layer, group)| self.state(layer, group)).collect();
        let grouped: Vec<usize> = groups.concat();
        let mut order: Vec<usize> = (0..grouped.len()).collect();
        order.sort_unstable_by_key(|&i| grouped[i]);
        Tensor::cat(&states, 0).index_select(0, &self.index(order.into_iter().map(|i| i as i64)))
    }

    /// The first dimension of a tensor over all rows, cut down to some.
    fn of_rows(&self, x: &Tensor, rows: &[usize]) -> Tensor {
        if rows.len() == self.rows {
            return x.shallow_clone();
        }
        x.index_select(0, &self.index(rows.iter().map(|&row| row as i64)))
    }

    fn cache_index(&self, entries: impl Iterator<Item = (usize, usize)>) -> Tensor {
        self.index(entries.map(|(row, position)| (row * self.max_tokens + position) as i64))
    }

    fn index(&self, values: impl Iterator<Item = i64>) -> Tensor {
        upload(&values.collect::<Vec<_>>(), self.model.device())
    }
}

/// q [rows, heads, 1, d_kv], k and v [rows, heads, length, d_kv] -> [rows, heads * d_kv]
fn attend(q: &Tensor, k: &Tensor, v: &Tensor, bias: &Tensor) -> Tensor {
    let context = Tensor::scaled_dot_product_attention(q, k, v, Some(bias), 0.0, false, SCALE, false);
    merge_heads(&context).squeeze_dim(1)
}

fn to_matrix(x: &Tensor) -> Result<Matrix, Error> {
    let columns = x.size()[1] as usize;
    let data = Vec::<f32>::try_from(x.to_kind(Kind::Float).contiguous().view(-1))?;
    Ok(Matrix { data, columns })
}
