//! Attention of single queries over keys and values that lie head by head, position after position.

use crate::elementwise::{dot, softmax};
use crate::linear::Processor;
use crate::simd::{Simd, with_simd};
use crate::team::{Scratch, bounds};

/// Positions that a cache has room for when it gets its first entry.
const SMALLEST_CAPACITY: usize = 32;

/// Keys and values of one row in one layer: each [heads, capacity, d_kv].
#[derive(Clone, Default)]
pub(crate) struct KeysValues {
    keys: Vec<f32>,
    values: Vec<f32>,
    capacity: usize,
}

/// The heads of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) count: usize,
    pub(crate) d_kv: usize,
}

/// One query position of one row: all heads look at the first `length` positions of `cache`.
pub(crate) struct Query<'a> {
    /// [heads * d_kv]
    pub(crate) q: &'a [f32],
    pub(crate) cache: &'a KeysValues,
    pub(crate) length: usize,
    /// Added to the scores: for each head `length` numbers from `bias_start` on.
    pub(crate) bias: Option<Bias<'a>>,
}

/// A row of biases for each head: [heads, width].
#[derive(Clone, Copy)]
pub(crate) struct Bias<'a> {
    pub(crate) table: &'a [f32],
    pub(crate) width: usize,
    pub(crate) start: usize,
}

impl KeysValues {
    /// Room for `capacity` positions.
    pub(crate) fn new(heads: Heads, capacity: usize) -> Self {
        let size = heads.count * capacity * heads.d_kv;
        KeysValues { keys: vec![0.0; size], values: vec![0.0; size], capacity }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.capacity == 0
    }

    /// Keys and values of one position, one after the other: `kv` [2 * heads * d_kv]. Makes room where there is none.
    pub(crate) fn write(&mut self, heads: Heads, position: usize, kv: &[f32]) {
        if position >= self.capacity {
            self.grow(heads, position + 1);
        }
        let (keys, values) = kv.split_at(heads.count * heads.d_kv);
        for (from, to) in [(keys, &mut self.keys), (values, &mut self.values)] {
            for (head, from) in from.chunks_exact(heads.d_kv).enumerate() {
                to[(head * self.capacity + position) * heads.d_kv..][..heads.d_kv].copy_from_slice(from);
            }
        }
    }

    /// Twice the room, so that each entry is moved once on average.
    fn grow(&mut self, heads: Heads, least: usize) {
        let larger = KeysValues::new(heads, least.max(2 * self.capacity).max(SMALLEST_CAPACITY));
        let smaller = std::mem::replace(self, larger);
        if smaller.is_empty() {
            return;
        }
        let (from_width, to_width) = (smaller.capacity * heads.d_kv, self.capacity * heads.d_kv);
        for (from, to) in [(&smaller.keys, &mut self.keys), (&smaller.values, &mut self.values)] {
            for (from, to) in from.chunks_exact(from_width).zip(to.chunks_exact_mut(to_width)) {
                to[..from_width].copy_from_slice(from);
            }
        }
    }
}

/// Contexts of some queries: [queries, heads * d_kv]. T5 does not divide by sqrt(d_kv).
pub(crate) fn attend(processor: &Processor, heads: Heads, queries: &[Query<'_>], contexts: &mut [f32]) {
    let units = queries.len() * heads.count;
    let bounds = bounds(units, 1, processor.team.threads());
    let mut parts = Vec::with_capacity(bounds.len());
    let mut rest = contexts;
    for pair in bounds.windows(2) {
        let (contexts, after) = rest.split_at_mut((pair[1] - pair[0]) * heads.d_kv);
        parts.push(Part { first_unit: pair[0], contexts });
        rest = after;
    }
    let job = Job { heads, queries };
    processor.team.each(&mut parts, |part, scratch| {
        let job = &job;
        with_simd!(processor.set, run_part(job: &Job<'_>, part: &mut Part<'_>, scratch: &mut Scratch));
    });
}

struct Job<'a> {
    heads: Heads,
    queries: &'a [Query<'a>],
}

/// Some (query, head) pairs.
struct Part<'a> {
    first_unit: usize,
    contexts: &'a mut [f32],
}

#[inline(always)]
fn run_part<S: Simd>(job: &Job<'_>, part: &mut Part<'_>, scratch: &mut Scratch) {
    let d_kv = job.heads.d_kv;
    for (unit, context) in (part.first_unit..).zip(part.contexts.chunks_exact_mut(d_kv)) {
        let (query, head) = (&job.queries[unit / job.heads.count], unit % job.heads.count);
        let cache = query.cache;
        let of_head = head * cache.capacity * d_kv..(head * cache.capacity + query.length) * d_kv;
        let q = &query.q[head * d_kv..][..d_kv];
        let scores = &mut scratch.scores;
        scores.clear();
        scores.extend(cache.keys[of_head.clone()].chunks_exact(d_kv).map(|key| dot(q, key)));
        if let Some(Bias { table, width, start }) = query.bias {
            let bias = &table[head * width + start..][..query.length];
            scores.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
        }
        softmax(scores);
        context.fill(0.0);
        for (&weight, value) in scores.iter().zip(cache.values[of_head].chunks_exact(d_kv)) {
            context.iter_mut().zip(value).for_each(|(context, value)| *context += weight * value);
        }
    }
}
