//! The states that heads learn from: recorded once while the backbone decodes, and kept in files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use calm_checkpoint::{Model, source_hash};
use calm_core::{
    Decision, DecodeError, DecodeOptions, Entry, Exits, Layer, Policy, StepPolicy, Token, Top2, decode,
};
use calm_engine::decoding::map_batches;
use calm_engine::engine::Engine;
use calm_files::hex;
use calm_model::{read_safetensors, write_safetensors};
use sha2::{Digest, Sha256};
use tch::{Kind, Tensor};

use super::{Divided, HeadsConfig, Material};
use crate::Error;
use crate::progress::Progress;

/// Sources whose states are in a file of their own, so that this many are decoded again after an interruption
/// at most.
const PART: usize = 64;

/// States of tokens, in the order of their sources.
pub(crate) struct States {
    /// By layer that gets a head, the residual state after it: [tokens, d_model]
    pub(super) of_layers: BTreeMap<usize, Tensor>,
    /// The state after the last layer, which the shared head reads: [tokens, d_model]
    pub(super) last: Tensor,
    /// What the last layer says: [tokens]
    pub(super) best: Tensor,
    /// By source, its hash and the number of its tokens.
    sources: Vec<(String, i64)>,
}

impl States {
    /// Number of tokens.
    pub(super) fn tokens(&self) -> usize {
        self.best.size()[0] as usize
    }

    /// The states of some tokens.
    pub(super) fn select(&self, tokens: &Tensor) -> (Vec<Tensor>, Tensor) {
        let of = |states: &Tensor| states.index_select(0, tokens);
        (self.of_layers.values().map(of).collect(), of(&self.last))
    }

    /// Divides the states by their sources, whose hashes decide: of `of` sources one is held out, and one is
    /// for confidences. Sources that are the same come together.
    pub(super) fn divide(&self, of: usize) -> Divided {
        let mut hashes: Vec<&str> = self.sources.iter().map(|(hash, _)| hash.as_str()).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let place = |hash: &str| hashes.binary_search(&hash).unwrap_or(0) % of;
        let part = |belongs: &dyn Fn(usize) -> bool| {
            let (mut tokens, mut sources, mut start) = (Vec::new(), Vec::new(), 0);
            for (hash, count) in &self.sources {
                if belongs(place(hash)) {
                    tokens.extend(start..start + count);
                    sources.push((hash.clone(), *count));
                }
                start += count;
            }
            let tokens = Tensor::from_slice(&tokens);
            let (states, last) = self.select(&tokens);
            let of_layers = self.of_layers.keys().copied().zip(states).collect();
            States { of_layers, last, best: self.best.index_select(0, &tokens), sources }
        };
        Divided {
            held_out: part(&|place| place == 0),
            confidence: part(&|place| place == 1),
            trained_on: part(&|place| place > 1),
        }
    }
}

/// What is recorded, and where it is kept.
pub(super) struct Recording<'a> {
    /// Hash of the backbone's weights.
    pub(super) weights: &'a str,
    pub(super) layers: Exits,
    pub(super) config: &'a HeadsConfig,
    pub(super) work: &'a Path,
}

/// One part of the states, by the names in its file.
type Part = BTreeMap<String, Tensor>;

impl Recording<'_> {
    /// Reads the states of all sources from files, and records those that have none.
    pub(super) fn read_or_record(
        &self,
        engine: &mut Engine,
        material: Material<'_>,
    ) -> Result<States, Error> {
        let rows = material.rows();
        let mut progress = Progress::states(rows.len() as u64);
        let mut parts = Vec::new();
        for (index, rows) in rows.chunks(PART).enumerate() {
            let path = self.work.join(format!("states-{}.safetensors", self.key(&material, rows)));
            // What a damaged file held is recorded again.
            let kept = if path.is_file() { read_safetensors(&path, tch::Device::Cpu).ok() } else { None };
            let has_all = |part: &Part| self.layers.layers().all(|layer| part.contains_key(&name(layer)));
            let part = match kept.filter(has_all) {
                Some(part) => part,
                None => {
                    let part = self.record(&mut engine.models, &material, rows)?;
                    write_safetensors(
                        &path,
                        part.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())),
                    )?;
                    part
                }
            };
            progress.count(part["best"].size()[0] as usize);
            progress.show_rate(((index + 1) * PART).min(material.rows().len()) as u64);
            parts.push(part);
        }
        progress.finish();
        let joined = |name: &str| {
            let tensors: Vec<&Tensor> = parts.iter().map(|part| &part[name]).collect();
            Tensor::cat(&tensors, 0)
        };
        let lengths = Vec::<i64>::try_from(&joined("lengths"))?;
        let hashes = rows.iter().map(|source| source_hash(source));
        Ok(States {
            of_layers: self.layers.layers().map(|layer| (layer, joined(&name(layer)))).collect(),
            last: joined("last"),
            best: joined("best"),
            sources: hashes.zip(lengths).collect(),
        })
    }

    /// What a part is a function of, but for the layers: one that has more serves for fewer.
    fn key(&self, material: &Material<'_>, rows: &[Vec<Token>]) -> String {
        let what = match material {
            Material::Sources(_) => format!("outputs of {} tokens", self.config.max_tokens),
            Material::Texts(_) => "texts".to_owned(),
        };
        let mut hash = Sha256::new_with_prefix(format!("{} {what}", self.weights));
        for row in rows {
            hash.update((row.len() as u64).to_le_bytes());
            row.iter().for_each(|token| hash.update(token.to_le_bytes()));
        }
        hex(&hash.finalize())[..16].to_owned()
    }

    fn record(
        &self,
        models: &mut [Box<dyn Model>],
        material: &Material<'_>,
        rows: &[Vec<Token>],
    ) -> Result<Part, Error> {
        let recorded = map_batches(models, rows, self.config.batch_size, |model, rows| match material {
            Material::Sources(_) => record_outputs(model, rows, self.layers, self.config.max_tokens),
            Material::Texts(_) => record_texts(model, rows, self.layers),
        })?;
        let d_model = models[0].shape().d_model as i64;
        let states = |of: &dyn Fn(&Row) -> &[f32]| {
            let numbers: Vec<f32> = recorded.iter().flat_map(|row| of(row).iter().copied()).collect();
            Tensor::from_slice(&numbers).view([-1, d_model])
        };
        let best: Vec<i64> =
            recorded.iter().flat_map(|row| row.best.iter().map(|&token| i64::from(token))).collect();
        let lengths: Vec<i64> = recorded.iter().map(|row| row.best.len() as i64).collect();
        let mut part: Part = (0..)
            .zip(self.layers.layers())
            .map(|(index, layer)| (name(layer), states(&|row| &row.states[index])))
            .collect();
        part.insert("last".to_owned(), states(&|row| &row.states[self.layers.len()]));
        part.insert("best".to_owned(), Tensor::from_slice(&best).to_kind(Kind::Int64));
        part.insert("lengths".to_owned(), Tensor::from_slice(&lengths));
        Ok(part)
    }
}

fn name(layer: usize) -> String {
    format!("layer.{layer}")
}

/// What was recorded along one row.
#[derive(Clone)]
struct Row {
    /// By layer that gets a head, then those of the last layer: [tokens, d_model]
    states: Vec<Vec<f32>>,
    best: Vec<Token>,
}

impl Row {
    fn new(layers: Exits) -> Self {
        Row { states: vec![Vec::new(); layers.len() + 1], best: Vec::new() }
    }
}

/// Decodes sources at full depth.
fn record_outputs(
    model: &dyn Model,
    sources: &[&[Token]],
    layers: Exits,
    max_tokens: usize,
) -> Result<Vec<Row>, DecodeError> {
    let recorder = Recorder { layers, rows: Mutex::new(vec![Row::new(layers); sources.len()]) };
    let prompt = model.read(sources)?;
    decode(&*prompt, &recorder, &DecodeOptions::new(max_tokens))?;
    Ok(recorder.rows.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Takes texts through all layers at once: each token is an input, and what comes after the last one is not
/// asked for.
fn record_texts(model: &dyn Model, texts: &[&[Token]], layers: Exits) -> Result<Vec<Row>, DecodeError> {
    let first: Vec<&[Token]> = texts.iter().map(|text| &text[..1]).collect();
    let prompt = model.read(&first)?;
    let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
    let mut session = prompt.start(longest)?;
    let inputs = || texts.iter().map(|text| &text[..text.len() - 1]);
    let entries: Vec<Entry> = (0..)
        .zip(inputs())
        .flat_map(|(row, text)| (0..text.len()).map(move |position| Entry { row, position }))
        .collect();
    session.embed(&entries, &inputs().collect::<Vec<_>>().concat())?;
    let num_layers = model.shape().num_layers;
    let mut rows = vec![Row::new(layers); texts.len()];
    for number in 1..=num_layers {
        session.run_layer(number, &entries)?;
        let mut layer = Layer::new(&mut *session, model.shape(), number, &entries);
        observe(&mut layer, layers, &mut rows)?;
    }
    Ok(rows)
}

/// The policy full, which records what heads learn from.
struct Recorder {
    layers: Exits,
    rows: Mutex<Vec<Row>>,
}

impl Policy for Recorder {
    fn begin_step(&self, _: usize) -> Box<dyn StepPolicy + '_> {
        Box::new(self)
    }
}

impl StepPolicy for &Recorder {
    fn decide(&mut self, layer: &mut Layer<'_>, decisions: &mut [Decision]) -> Result<(), DecodeError> {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(best) = observe(layer, self.layers, &mut rows)? {
            for (decision, Top2 { token, .. }) in decisions.iter_mut().zip(best) {
                decision.token = Some(token);
            }
        }
        Ok(())
    }
}

/// Records the states of a layer's entries, and what the last layer says, which it gives.
fn observe(layer: &mut Layer<'_>, layers: Exits, rows: &mut [Row]) -> Result<Option<Vec<Top2>>, DecodeError> {
    let at_head = layers.contains(layer.number()).then(|| layers.up_to(layer.number()).len() - 1);
    let places: Vec<usize> = at_head.into_iter().chain(layer.is_last().then_some(layers.len())).collect();
    if places.is_empty() {
        return Ok(None);
    }
    let states = layer.hidden()?;
    for (Entry { row, .. }, state) in layer.entries().iter().zip(states.rows()) {
        for &place in &places {
            rows[*row].states[place].extend_from_slice(state);
        }
    }
    if !layer.is_last() {
        return Ok(None);
    }
    let best = layer.estimated_top2()?;
    for (Entry { row, .. }, top2) in layer.entries().iter().zip(&best) {
        rows[*row].best.push(top2.token);
    }
    Ok(Some(best))
}
