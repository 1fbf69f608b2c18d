//! A small encoder-decoder in plain Rust, and a session that holds its caller to the contract of
//! [`DecoderSession`].
//!
//! Rows are computed one by one, so that the result of a row is the same to the last bit in any batch.

use std::path::Path;

use calm_core::{
    Backbone, BackboneShape, Cost, DecoderSession, EngineError, Entry, ExitClassifier, ExitHead, ExitHeads,
    Exits, FittedTo, HeadConfidence, HeadNorm, Matrix, Prompt, Token,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(crate) type Vector = Vec<f32>;

const D_MODEL: usize = 8;
const HEADS: usize = 2;
const D_KV: usize = 3;
const INNER: usize = HEADS * D_KV;
const D_FF: usize = 12;
const VOCAB: usize = 11;

/// The first input of every row.
pub(crate) const START: Token = 0;

/// An encoder-decoder with random weights.
pub(crate) struct Toy {
    shape: BackboneShape,
    classifier: Option<ExitClassifier>,
    exit_heads: Option<ExitHeads>,
    source_embedding: Matrix,
    target_embedding: Matrix,
    layers: Vec<Layer>,
    final_norm: Vector,
    head: Matrix,
}

struct Layer {
    self_norm: Vector,
    self_query: Matrix,
    self_key: Matrix,
    self_value: Matrix,
    self_output: Matrix,
    /// By distance to the attended position and head.
    distance_bias: Matrix,
    cross_norm: Vector,
    cross_query: Matrix,
    cross_key: Matrix,
    cross_value: Matrix,
    cross_output: Matrix,
    ff_norm: Vector,
    ff_in: Matrix,
    ff_out: Matrix,
}

struct Weights(ChaCha8Rng);

impl Weights {
    fn vector(&mut self, length: usize, around: f32, spread: f32) -> Vector {
        (0..length).map(|_| around + self.0.random_range(-spread..spread)).collect()
    }

    fn matrix(&mut self, rows: usize, columns: usize, spread: f32) -> Matrix {
        Matrix { data: self.vector(rows * columns, 0.0, spread), columns }
    }

    fn projection(&mut self, outputs: usize, inputs: usize) -> Matrix {
        self.matrix(outputs, inputs, 1.7 / (inputs as f32).sqrt())
    }

    fn layer(&mut self) -> Layer {
        Layer {
            self_norm: self.vector(D_MODEL, 1.0, 0.3),
            self_query: self.projection(INNER, D_MODEL),
            self_key: self.projection(INNER, D_MODEL),
            self_value: self.projection(INNER, D_MODEL),
            self_output: self.projection(D_MODEL, INNER),
            distance_bias: self.matrix(64, HEADS, 1.0),
            cross_norm: self.vector(D_MODEL, 1.0, 0.3),
            cross_query: self.projection(INNER, D_MODEL),
            cross_key: self.projection(INNER, D_MODEL),
            cross_value: self.projection(INNER, D_MODEL),
            cross_output: self.projection(D_MODEL, INNER),
            ff_norm: self.vector(D_MODEL, 1.0, 0.3),
            ff_in: self.projection(D_FF, D_MODEL),
            ff_out: self.projection(D_MODEL, D_FF),
        }
    }
}

impl Toy {
    pub(crate) fn new(num_layers: usize, seed: u64) -> Self {
        let mut weights = Weights(ChaCha8Rng::seed_from_u64(seed));
        let flops =
            Cost { layer: 1000.0, skipped_layer: 100.0, head: 200.0, exit_head: 220.0, ..Cost::default() };
        let shape = BackboneShape {
            num_layers,
            d_model: D_MODEL,
            vocab_size: VOCAB,
            eos_tokens: vec![1],
            flops,
            bytes: Cost::default(),
        };
        Self {
            exit_heads: exit_heads(&shape, seed),
            shape,
            classifier: Some(ExitClassifier { weight: weights.vector(D_MODEL, 0.0, 0.6), bias: 0.1 }),
            source_embedding: weights.matrix(VOCAB, D_MODEL, 1.5),
            target_embedding: weights.matrix(VOCAB, D_MODEL, 1.5),
            layers: (0..num_layers).map(|_| weights.layer()).collect(),
            final_norm: weights.vector(D_MODEL, 1.0, 0.3),
            head: weights.matrix(VOCAB, D_MODEL, 1.5),
        }
    }

    pub(crate) fn with_classifier(mut self, weight: Option<Vector>) -> Self {
        self.classifier = weight.map(|weight| ExitClassifier { weight, bias: 0.0 });
        self
    }

    pub(crate) fn with_exit_heads(mut self, heads: Option<ExitHeads>) -> Self {
        self.exit_heads = heads;
        self
    }

    pub(crate) fn with_eos(mut self, tokens: &[Token]) -> Self {
        self.shape.eos_tokens = tokens.to_vec();
        self
    }

    pub(crate) fn num_layers(&self) -> usize {
        self.layers.len()
    }

    pub(crate) fn source_states(&self, source: &[Token]) -> Vec<Vector> {
        let mut previous = vec![0.0; D_MODEL];
        let mut states = Vec::new();
        for &token in source {
            let embedding = self.source_embedding.row(token as usize);
            previous = embedding.iter().zip(&previous).map(|(e, p)| (e + 0.5 * p).tanh()).collect();
            states.push(previous.clone());
        }
        states
    }

    pub(crate) fn embed(&self, token: Token) -> Vector {
        self.target_embedding.row(token as usize).to_vec()
    }

    /// Key and value of `layer` (from 1) from the state that enters it.
    pub(crate) fn key_value(&self, layer: usize, state: &[f32]) -> (Vector, Vector) {
        let layer = &self.layers[layer - 1];
        let normed = norm(&layer.self_norm, state);
        (multiply(&layer.self_key, &normed), multiply(&layer.self_value, &normed))
    }

    /// The state after `layer`, given its K/V of all positions up to this one.
    pub(crate) fn block(
        &self,
        layer: usize,
        state: &[f32],
        kv: &[(Vector, Vector)],
        source: &[Vector],
    ) -> Vector {
        let layer = &self.layers[layer - 1];
        let query = multiply(&layer.self_query, &norm(&layer.self_norm, state));
        let bias = |key: usize, head: usize| layer.distance_bias.row(kv.len() - 1 - key)[head];
        let state = add(state, &multiply(&layer.self_output, &attend(&query, kv, bias)));

        let query = multiply(&layer.cross_query, &norm(&layer.cross_norm, &state));
        let project = |s: &Vector| (multiply(&layer.cross_key, s), multiply(&layer.cross_value, s));
        let source_kv: Vec<_> = source.iter().map(project).collect();
        let state = add(&state, &multiply(&layer.cross_output, &attend(&query, &source_kv, |_, _| 0.0)));

        let inner = multiply(&layer.ff_in, &norm(&layer.ff_norm, &state));
        let inner: Vector = inner.into_iter().map(|x| x.max(0.0)).collect();
        add(&state, &multiply(&layer.ff_out, &inner))
    }

    pub(crate) fn logits(&self, state: &[f32]) -> Vector {
        multiply(&self.head, &norm(&self.final_norm, state))
    }
}

/// Low-rank heads for all layers below the last.
fn exit_heads(shape: &BackboneShape, seed: u64) -> Option<ExitHeads> {
    let mut weights = Weights(ChaCha8Rng::seed_from_u64(seed ^ 0x4EAD));
    let head = |layer| {
        let norm = HeadNorm { weight: weights.vector(D_MODEL, 1.0, 0.3), epsilon: 1e-6 };
        let (down, up) = (weights.projection(3, D_MODEL), weights.projection(D_MODEL, 3));
        (layer, ExitHead::LowRank { norm, down, up })
    };
    let heads = Exits::all_below(shape.num_layers).layers().map(head).collect();
    let heads = ExitHeads::new(heads, None, FittedTo { tokens: 0, sources: Vec::new() }, shape).ok()?;
    let confidence =
        |layer| (layer, HeadConfidence { weight: weights.vector(D_MODEL, 0.0, 0.5), margin: 0.6, bias: 0.2 });
    let confidences = heads.layers().layers().map(confidence).collect();
    heads.with_confidences(confidences, shape).ok()
}

fn multiply(matrix: &Matrix, vector: &[f32]) -> Vector {
    matrix.rows().map(|row| row.iter().zip(vector).map(|(a, b)| a * b).sum()).collect()
}

fn add(left: &[f32], right: &[f32]) -> Vector {
    left.iter().zip(right).map(|(a, b)| a + b).collect()
}

fn norm(scale: &[f32], state: &[f32]) -> Vector {
    let mean_square = state.iter().map(|x| x * x).sum::<f32>() / state.len() as f32;
    state.iter().zip(scale).map(|(x, s)| s * x / (mean_square + 1e-6).sqrt()).collect()
}

fn attend(query: &[f32], kv: &[(Vector, Vector)], bias: impl Fn(usize, usize) -> f32) -> Vector {
    let mut output = Vec::with_capacity(INNER);
    for head in 0..HEADS {
        let columns = head * D_KV..(head + 1) * D_KV;
        let query = &query[columns.clone()];
        let scores = kv.iter().enumerate().map(|(position, (key, _))| {
            let key = &key[columns.clone()];
            bias(position, head) + query.iter().zip(key).map(|(q, k)| q * k).sum::<f32>()
        });
        let weights: Vector = scores.map(f32::exp).collect();
        let sum: f32 = weights.iter().sum();
        output.extend(columns.map(|column| {
            weights.iter().zip(kv).map(|(weight, (_, value))| weight / sum * value[column]).sum::<f32>()
        }));
    }
    output
}

impl Backbone for Toy {
    fn shape(&self) -> &BackboneShape {
        &self.shape
    }

    fn exit_classifier(&self) -> Option<&ExitClassifier> {
        self.classifier.as_ref()
    }

    fn exit_heads(&self) -> Option<&ExitHeads> {
        self.exit_heads.as_ref()
    }

    /// Has maps of agreement for decoders of up to five layers, from 0 through (0.5, 0.3 + 0.1 layer) to 1,
    /// and mixtures of Beta(2, 1), with weight 0.3 + 0.1 layer, and Beta(1, 2).
    fn folder(&self) -> Option<&Path> {
        Some(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/toy_model")))
    }

    fn read<'a>(&'a self, sources: &[&[Token]]) -> Result<Box<dyn Prompt + 'a>, EngineError> {
        let sources = sources.iter().map(|source| self.source_states(source)).collect();
        Ok(Box::new(Encoded { toy: self, sources }))
    }
}

struct Encoded<'a> {
    toy: &'a Toy,
    sources: Vec<Vec<Vector>>,
}

impl Prompt for Encoded<'_> {
    fn shape(&self) -> &BackboneShape {
        &self.toy.shape
    }

    fn first_inputs(&self) -> Vec<Token> {
        vec![START; self.sources.len()]
    }

    fn start(&self, max_tokens: usize) -> Result<Box<dyn DecoderSession + '_>, EngineError> {
        let row = |source: &Vec<Vector>| Row {
            source: source.clone(),
            tokens: Vec::new(),
            cache: vec![Vec::new(); self.toy.num_layers()],
        };
        let rows = self.sources.iter().map(row).collect();
        Ok(Box::new(Session { toy: self.toy, max_tokens, rows, steps: 0, filled_at: None }))
    }
}

/// A decoding that panics when its caller breaks the contract.
struct Session<'a> {
    toy: &'a Toy,
    max_tokens: usize,
    rows: Vec<Row>,
    /// How many calls of embed there were.
    steps: usize,
    /// Layer and step in which entries were propagated or copied last.
    filled_at: Option<(usize, usize)>,
}

#[derive(Clone)]
struct Row {
    source: Vec<Vector>,
    /// By position.
    tokens: Vec<TokenStates>,
    /// By layer, then position.
    cache: Vec<Vec<Option<CachedEntry>>>,
}

#[derive(Clone)]
struct TokenStates {
    /// The step that it was embedded in, or ran a layer last.
    step: usize,
    /// After each layer that ran, the embedding first. The last one is the state of the entry.
    states: Vec<Vector>,
    /// The layer whose logits were asked for last.
    seen_logits: Option<usize>,
}

impl TokenStates {
    /// Layers that ran, of those that count.
    fn layer(&self) -> usize {
        self.states.len() - 1
    }
}

#[derive(Clone)]
struct CachedEntry {
    kv: (Vector, Vector),
    /// The layer whose state it was made of.
    from: usize,
    /// Whether it is a copy of another layer's.
    is_copied: bool,
}

impl Row {
    fn store(&mut self, layer: usize, position: usize, entry: CachedEntry) {
        let cache = &mut self.cache[layer - 1];
        cache.resize(cache.len().max(position + 1), None);
        cache[position] = Some(entry);
    }
}

impl Session<'_> {
    fn at(&self, entry: Entry) -> &TokenStates {
        self.rows[entry.row].tokens.get(entry.position).expect("the entry was embedded")
    }

    fn state(&self, entry: Entry) -> &Vector {
        let at = self.at(entry);
        let is_forgotten = at.step < self.steps && at.layer() == self.toy.num_layers();
        assert!(!is_forgotten, "what the last layer made of {entry:?} is forgotten");
        &at.states[at.layer()]
    }

    /// Makes sure that entries lack the keys and values of a layer.
    fn check_filling(&mut self, layer: usize, entries: &[Entry]) {
        check_order(entries);
        let at = Some((layer, self.steps));
        assert_ne!(at, self.filled_at, "one call for all entries of a layer and step");
        self.filled_at = at;
        for &entry in entries {
            let left = self.at(entry).layer();
            assert!(left < layer, "layer {layer} ran itself at position {}", entry.position);
        }
    }
}

fn check_order(entries: &[Entry]) {
    assert!(!entries.is_empty(), "no entries");
    assert!(entries.is_sorted_by(|a, b| a < b), "not in order: {entries:?}");
}

impl DecoderSession for Session<'_> {
    fn embed(&mut self, entries: &[Entry], tokens: &[Token]) -> Result<(), EngineError> {
        check_order(entries);
        assert_eq!(tokens.len(), entries.len());
        self.steps += 1;
        for (entry, &token) in entries.iter().zip(tokens) {
            let row = &mut self.rows[entry.row];
            assert_eq!(row.tokens.len(), entry.position, "positions have no gaps");
            assert!(entry.position < self.max_tokens);
            assert!(entry.position > 0 || token == START);
            let states = vec![self.toy.embed(token)];
            row.tokens.push(TokenStates { step: self.steps, states, seen_logits: None });
        }
        Ok(())
    }

    fn run_layer(&mut self, layer: usize, entries: &[Entry]) -> Result<(), EngineError> {
        check_order(entries);
        for entry in entries {
            let state = self.state(*entry).clone();
            assert_eq!(self.at(*entry).layer(), layer - 1, "layers run in order");
            let kv = self.toy.key_value(layer, &state);
            self.rows[entry.row].store(
                layer,
                entry.position,
                CachedEntry { kv, from: layer - 1, is_copied: false },
            );
        }
        let mut ran = Vec::with_capacity(entries.len());
        for entry in entries {
            let row = &self.rows[entry.row];
            let mut kv = Vec::with_capacity(entry.position + 1);
            for (at, cached) in row.cache[layer - 1][..=entry.position].iter().enumerate() {
                let cached = cached.as_ref().expect("K/V of earlier positions exist");
                let left = row.tokens[at].layer();
                let from = if cached.is_copied { left - 1 } else { left.min(layer - 1) };
                assert_eq!(cached.from, from, "layer {layer} at position {at}");
                kv.push(cached.kv.clone());
            }
            ran.push(self.toy.block(layer, self.state(*entry), &kv, &row.source));
        }
        for (entry, state) in entries.iter().zip(ran) {
            let at = &mut self.rows[entry.row].tokens[entry.position];
            at.step = self.steps;
            at.states.push(state);
        }
        Ok(())
    }

    fn propagate(&mut self, layer: usize, entries: &[Entry]) -> Result<(), EngineError> {
        self.check_filling(layer, entries);
        for &entry in entries {
            let left = self.at(entry).layer();
            let kv = self.toy.key_value(layer, self.state(entry));
            self.rows[entry.row].store(
                layer,
                entry.position,
                CachedEntry { kv, from: left, is_copied: false },
            );
        }
        Ok(())
    }

    fn copy_keys_values(&mut self, layer: usize, entries: &[Entry]) -> Result<(), EngineError> {
        self.check_filling(layer, entries);
        for &Entry { row, position } in entries {
            let below = self.rows[row].cache[layer - 2][position].clone();
            let below = below.expect("K/V of the layer below exist");
            self.rows[row].store(layer, position, CachedEntry { is_copied: true, ..below });
        }
        Ok(())
    }

    fn hidden(&mut self, entries: &[Entry]) -> Result<Matrix, EngineError> {
        check_order(entries);
        let states = entries.iter().flat_map(|&entry| self.state(entry).clone()).collect();
        Ok(Matrix { data: states, columns: D_MODEL })
    }

    fn set_hidden(&mut self, entries: &[Entry], states: &Matrix) -> Result<(), EngineError> {
        check_order(entries);
        for (entry, state) in entries.iter().zip(states.rows()) {
            self.state(*entry);
            let had = &mut self.rows[entry.row].tokens[entry.position].states;
            let layer = had.iter().position(|had| had == state).expect("a state that it had");
            had.truncate(layer + 1);
        }
        Ok(())
    }

    fn logits(&mut self, entries: &[Entry]) -> Result<Matrix, EngineError> {
        check_order(entries);
        let logits = entries.iter().flat_map(|&entry| self.toy.logits(self.state(entry))).collect();
        for entry in entries {
            let at = &mut self.rows[entry.row].tokens[entry.position];
            at.seen_logits = Some(at.layer());
        }
        Ok(Matrix { data: logits, columns: VOCAB })
    }

    fn logits_of(&mut self, states: &Matrix) -> Result<Matrix, EngineError> {
        let vocabulary = self.toy.exit_heads().and_then(ExitHeads::vocabulary);
        let known = |logits: Vector| match vocabulary {
            Some(tokens) => tokens.iter().map(|&token| logits[token as usize]).collect(),
            None => logits,
        };
        let data = states.rows().flat_map(|state| known(self.toy.logits(state))).collect();
        Ok(Matrix { data, columns: vocabulary.map_or(VOCAB, <[Token]>::len) })
    }

    fn predict(&mut self, entries: &[Entry]) -> Result<Vec<Token>, EngineError> {
        check_order(entries);
        let predict = |&entry: &Entry| {
            let at = self.at(entry);
            assert_ne!(at.seen_logits, Some(at.layer()), "the token was known already");
            argmax(&self.toy.logits(self.state(entry)))
        };
        Ok(entries.iter().map(predict).collect())
    }

    fn copy_rows(&mut self, from: &[usize]) -> Result<(), EngineError> {
        assert_eq!(from.len(), self.rows.len());
        let copied = |(row, &from): (&Row, &usize)| {
            let from = &self.rows[from];
            assert_eq!(row.source, from.source, "rows of the same source");
            from.clone()
        };
        self.rows = self.rows.iter().zip(from).map(copied).collect();
        Ok(())
    }

    fn crop(&mut self, row: usize, length: usize) -> Result<(), EngineError> {
        let row = &mut self.rows[row];
        row.tokens.truncate(length);
        row.cache.iter_mut().for_each(|cache| cache.truncate(length));
        Ok(())
    }
}

pub(crate) fn argmax(logits: &[f32]) -> Token {
    let mut best = 0;
    for (index, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = index;
        }
    }
    best as Token
}
