//! A small transformer in plain Rust, and a session that holds its caller to the contract of
//! [`DecoderSession`].
//!
//! Rows are computed one by one, so that the result of a row is the same to the last bit in any batch.

use std::convert::Infallible;

use calm_core::{Backbone, BackboneShape, CacheEntry, DecoderSession, ExitClassifier, Matrix, Token};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(crate) type Vector = Vec<f32>;

const D_MODEL: usize = 8;
const HEADS: usize = 2;
const D_KV: usize = 3;
const INNER: usize = HEADS * D_KV;
const D_FF: usize = 12;
const VOCAB: usize = 11;

/// An encoder-decoder with random weights.
pub(crate) struct Toy {
    shape: BackboneShape,
    classifier: Option<ExitClassifier>,
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
        Self {
            shape: BackboneShape {
                num_encoder_layers: 1,
                num_decoder_layers: num_layers,
                d_model: D_MODEL,
                inner: INNER,
                d_ff: D_FF,
                gated: false,
                vocab_size: VOCAB,
                start_token: 0,
                eos_token: 1,
            },
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
    type Error = Infallible;
    type Encoded = Vec<Vec<Vector>>;
    type Session<'a> = Session<'a>;

    fn shape(&self) -> &BackboneShape {
        &self.shape
    }

    fn exit_classifier(&self) -> Option<&ExitClassifier> {
        self.classifier.as_ref()
    }

    fn encode(&self, sources: &[&[Token]]) -> Result<Self::Encoded, Infallible> {
        Ok(sources.iter().map(|source| self.source_states(source)).collect())
    }

    fn start<'a>(&'a self, encoded: &Self::Encoded, max_tokens: usize) -> Result<Session<'a>, Infallible> {
        let row = |source: &Vec<Vector>| Row {
            source: source.clone(),
            cache: vec![Vec::new(); self.num_layers()],
            ..Row::default()
        };
        let rows = encoded.iter().map(row).collect();
        Ok(Session { toy: self, max_tokens, position: None, rows, stepping: Vec::new(), filled_at: None })
    }
}

/// A decoding that panics when its caller breaks the contract.
pub(crate) struct Session<'a> {
    toy: &'a Toy,
    max_tokens: usize,
    position: Option<usize>,
    rows: Vec<Row>,
    /// Rows of this step.
    stepping: Vec<usize>,
    /// Layer and step of the last propagation.
    filled_at: Option<(usize, usize)>,
}

#[derive(Default)]
struct Row {
    source: Vec<Vector>,
    /// States of this step after each layer that ran, the embedding first.
    states: Vec<Vector>,
    /// Layers whose logits were asked for in this step.
    seen_logits: Vec<usize>,
    /// The state kept at each position and the layer it left.
    kept: Vec<(usize, Vector)>,
    /// By layer, then position.
    cache: Vec<Vec<Option<Entry>>>,
}

#[derive(Clone)]
struct Entry {
    kv: (Vector, Vector),
    /// The layer whose state it was made of.
    from: usize,
}

impl Row {
    fn store(&mut self, layer: usize, position: usize, entry: Entry) {
        let cache = &mut self.cache[layer - 1];
        cache.resize(cache.len().max(position + 1), None);
        cache[position] = Some(entry);
    }
}

impl Session<'_> {
    fn position(&self) -> usize {
        self.position.expect("a step was begun")
    }

    fn check_rows(&self, rows: &[usize]) {
        assert!(!rows.is_empty(), "no rows");
        assert!(rows.is_sorted_by(|a, b| a < b), "rows not ascending: {rows:?}");
        assert!(rows.iter().all(|row| self.stepping.contains(row)), "rows not of this step: {rows:?}");
    }

    fn states(&self, layer: usize, rows: &[usize]) -> Vec<&Vector> {
        self.check_rows(rows);
        let state = |&row: &usize| self.rows[row].states.get(layer).expect("the layer ran in this step");
        rows.iter().map(state).collect()
    }
}

impl DecoderSession for Session<'_> {
    type Error = Infallible;

    fn begin_step(&mut self, position: usize, rows: &[usize], tokens: &[Token]) -> Result<(), Infallible> {
        match self.position {
            None => self.stepping = (0..self.rows.len()).collect(),
            Some(previous) => assert_eq!(position, previous + 1),
        }
        self.check_rows(rows);
        assert!(position < self.max_tokens);
        assert_eq!(tokens.len(), rows.len());
        self.position = Some(position);
        self.stepping = rows.to_vec();
        for (&row, &token) in rows.iter().zip(tokens) {
            let row = &mut self.rows[row];
            assert_eq!(row.kept.len(), position, "each row keeps one state per step");
            assert!(position > 0 || token == self.toy.shape.start_token);
            row.states = vec![self.toy.embed(token)];
            row.seen_logits.clear();
        }
        Ok(())
    }

    fn run_layer(&mut self, layer: usize, rows: &[usize]) -> Result<(), Infallible> {
        self.check_rows(rows);
        let position = self.position();
        for &row in rows {
            let row = &mut self.rows[row];
            assert_eq!(row.states.len(), layer, "layers run in order");
            assert_eq!(row.kept.len(), position, "a row that left runs no more layers");
            let state = row.states[layer - 1].clone();
            row.store(layer, position, Entry { kv: self.toy.key_value(layer, &state), from: layer - 1 });

            let mut kv = Vec::with_capacity(position + 1);
            for (at, entry) in row.cache[layer - 1].iter().enumerate() {
                let entry = entry.as_ref().expect("K/V of earlier positions exist");
                let left = row.kept.get(at).map_or(layer, |(left, _)| *left);
                assert_eq!(entry.from, left.min(layer - 1), "layer {layer} at position {at}");
                kv.push(entry.kv.clone());
            }
            assert_eq!(kv.len(), position + 1);
            row.states.push(self.toy.block(layer, &state, &kv, &row.source));
        }
        Ok(())
    }

    fn hidden(&mut self, layer: usize, rows: &[usize]) -> Result<Matrix, Infallible> {
        let states = self.states(layer, rows).into_iter().flatten();
        Ok(Matrix { data: states.copied().collect(), columns: D_MODEL })
    }

    fn logits(&mut self, layer: usize, rows: &[usize]) -> Result<Matrix, Infallible> {
        let logits = self.states(layer, rows).into_iter().flat_map(|state| self.toy.logits(state)).collect();
        for &row in rows {
            self.rows[row].seen_logits.push(layer);
        }
        Ok(Matrix { data: logits, columns: VOCAB })
    }

    fn keep(&mut self, layer: usize, rows: &[usize]) -> Result<(), Infallible> {
        self.check_rows(rows);
        assert!(layer >= 1);
        let position = self.position();
        for &row in rows {
            let row = &mut self.rows[row];
            assert_eq!(row.kept.len(), position, "each row keeps one state per step");
            let state = row.states.get(layer).expect("the layer ran in this step").clone();
            row.kept.push((layer, state));
        }
        Ok(())
    }

    fn predict(&mut self, rows: &[usize]) -> Result<Vec<Token>, Infallible> {
        self.check_rows(rows);
        let predict = |&row: &usize| {
            let (left, state) = self.rows[row].kept.get(self.position()).expect("the row has left");
            assert!(!self.rows[row].seen_logits.contains(left), "the token was known already");
            argmax(&self.toy.logits(state))
        };
        Ok(rows.iter().map(predict).collect())
    }

    fn propagate(&mut self, layer: usize, entries: &[CacheEntry]) -> Result<(), Infallible> {
        assert!(!entries.is_empty(), "no entries");
        assert!(entries.is_sorted_by_key(|entry| (entry.row, entry.position)));
        let at = Some((layer, self.position()));
        assert_ne!(at, self.filled_at, "one call for all entries of a layer and step");
        self.filled_at = at;
        for entry in entries {
            assert!(self.stepping.contains(&entry.row), "row {} is not of this step", entry.row);
            let row = &mut self.rows[entry.row];
            let (left, state) = row.kept.get(entry.position).expect("a state was kept there").clone();
            assert!(left < layer, "layer {layer} ran itself at position {}", entry.position);
            row.store(layer, entry.position, Entry { kv: self.toy.key_value(layer, &state), from: left });
        }
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
