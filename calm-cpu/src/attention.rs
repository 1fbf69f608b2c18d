//! Attention of single queries.
//!
//! The keys of a head lie with one element of all positions after the other, so that a vector holds the
//! scores of sixteen positions and nothing has to be added up across it. Values lie position after position
//! for the same reason.

use crate::elementwise::softmax;
use crate::linear::Processor;
use crate::simd::{LANES, Simd, weighted_sums, with_simd};
use crate::team::{Scratch, bounds};

/// Positions that a cache has room for when it gets its first entry.
const SMALLEST_CAPACITY: usize = 32;

/// Keys and values of one row in one layer.
#[derive(Clone)]
pub(crate) struct KeysValues {
    heads: Heads,
    /// [key heads, d_kv, capacity]
    keys: Vec<f32>,
    /// [key heads, capacity, d_kv]
    values: Vec<f32>,
    capacity: usize,
    is_empty: bool,
}

/// The heads of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    /// Number of heads of the queries.
    pub(crate) count: usize,
    /// Number of queries' heads that have the same head of the keys and values, one beside the other.
    pub(crate) group: usize,
    pub(crate) d_kv: usize,
    /// What scores are multiplied with. T5 does not divide them by sqrt(d_kv).
    pub(crate) scale: f32,
}

impl Heads {
    /// Width of all heads of the queries together.
    pub(crate) fn inner(self) -> usize {
        self.count * self.d_kv
    }

    /// Width of all heads of the keys together, and of those of the values.
    pub(crate) fn kv_inner(self) -> usize {
        self.inner() / self.group
    }
}

/// One query position of one row: all heads look at the first `length` positions of `cache`.
pub(crate) struct Query<'a> {
    /// [heads * d_kv]
    pub(crate) q: &'a [f32],
    pub(crate) cache: &'a KeysValues,
    pub(crate) length: usize,
    /// Added to the scores: for each head `length` numbers, which more may follow.
    pub(crate) bias: Option<Bias<'a>>,
}

/// A row of biases for each head, which ends with as many numbers as a vector that are no biases:
/// [heads, width].
#[derive(Clone, Copy)]
pub(crate) struct Bias<'a> {
    pub(crate) table: &'a [f32],
    pub(crate) width: usize,
    /// Where in a row the first position's is.
    pub(crate) start: usize,
}

impl KeysValues {
    /// Has no entries and no room for any.
    pub(crate) fn new(heads: Heads) -> Self {
        Self::with_capacity(heads, 0)
    }

    /// Makes room for `capacity` positions, in whole vectors.
    fn with_capacity(heads: Heads, capacity: usize) -> Self {
        let capacity = capacity.next_multiple_of(LANES);
        let size = capacity * heads.kv_inner();
        KeysValues { heads, keys: vec![0.0; size], values: vec![0.0; size], capacity, is_empty: true }
    }

    /// Forgets all entries but keeps their room, and makes sure that it is enough for `capacity` positions.
    pub(crate) fn clear(&mut self, capacity: usize) {
        if capacity > self.capacity {
            *self = Self::with_capacity(self.heads, capacity);
        }
        self.is_empty = true;
    }

    /// Whether it has no entries.
    pub(crate) fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Writes the key and the value of one position, [key heads * d_kv] each, and makes room where there is
    /// none.
    pub(crate) fn write(&mut self, position: usize, key: &[f32], value: &[f32]) {
        if position >= self.capacity {
            self.grow(position + 1);
        }
        self.is_empty = false;
        for (element, of_positions) in key.iter().zip(self.keys.chunks_exact_mut(self.capacity)) {
            of_positions[position] = *element;
        }
        let width = self.heads.d_kv;
        let of_heads = self.values.chunks_exact_mut(self.capacity * width);
        for (value, of_head) in value.chunks_exact(width).zip(of_heads) {
            of_head[position * width..][..width].copy_from_slice(value);
        }
    }

    /// Makes twice the room, so that each entry is moved once on average.
    fn grow(&mut self, least: usize) {
        let capacity = least.max(2 * self.capacity).max(SMALLEST_CAPACITY);
        let larger = KeysValues::with_capacity(self.heads, capacity);
        let smaller = std::mem::replace(self, larger);
        if smaller.is_empty() {
            return;
        }
        // Whatever there is of one head, or of one element of it, moves to the front of its new room.
        let widths =
            [(&smaller.keys, &mut self.keys, 1), (&smaller.values, &mut self.values, self.heads.d_kv)];
        for (from, to, width) in widths {
            let from_rows = from.chunks_exact(smaller.capacity * width);
            for (from, to) in from_rows.zip(to.chunks_exact_mut(self.capacity * width)) {
                to[..from.len()].copy_from_slice(from);
            }
        }
    }
}

/// Computes the contexts of some queries: [queries, heads * d_kv], in place of what was there.
pub(crate) fn attend(processor: &Processor, heads: Heads, queries: &[Query<'_>], contexts: &mut Vec<f32>) {
    let units = queries.len() * heads.count;
    contexts.resize(units * heads.d_kv, 0.0);
    // Whole queries if there are enough, since those of one source are computed together.
    let unit = if queries.len() < processor.team.threads() { 1 } else { heads.count };
    let bounds = bounds(units, unit, processor.team.threads());
    let mut parts = Vec::with_capacity(bounds.len());
    let mut rest = contexts.as_mut_slice();
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
    let Heads { count, group, d_kv, .. } = job.heads;
    let end = part.first_unit + part.contexts.len() / d_kv;
    let mut unit = part.first_unit;
    while unit < end {
        let (query, head, left) = (unit / count, unit % count, end - unit);
        if head == 0 && left >= TOGETHER * count && job.are_of_one_source(query) {
            for head in 0..count {
                run_together::<S, TOGETHER, true>(
                    job,
                    std::array::from_fn(|i| unit + i * count + head),
                    part,
                    scratch,
                );
            }
            unit += TOGETHER * count;
            continue;
        }
        // The heads of a query look at equally many positions, and those of a group at the same ones.
        if group > 1 {
            unit += match left.min(group - head % group) {
                4.. => run_together::<S, 4, true>(job, std::array::from_fn(|i| unit + i), part, scratch),
                3 => run_together::<S, 3, true>(job, std::array::from_fn(|i| unit + i), part, scratch),
                2 => run_together::<S, 2, true>(job, std::array::from_fn(|i| unit + i), part, scratch),
                _ => run_together::<S, 1, true>(job, [unit], part, scratch),
            };
            continue;
        }
        unit += match left.min(count - head) {
            4.. => run_together::<S, 4, false>(job, std::array::from_fn(|i| unit + i), part, scratch),
            3 => run_together::<S, 3, false>(job, std::array::from_fn(|i| unit + i), part, scratch),
            2 => run_together::<S, 2, false>(job, std::array::from_fn(|i| unit + i), part, scratch),
            _ => run_together::<S, 1, false>(job, [unit], part, scratch),
        };
    }
}

/// Number of queries of one source that are computed together, so that keys and values are read once for all.
const TOGETHER: usize = 4;

impl Job<'_> {
    /// Whether as many queries from this one on read the same positions of the same cache.
    fn are_of_one_source(&self, query: usize) -> bool {
        let first = &self.queries[query];
        let is_alike =
            |other: &Query<'_>| std::ptr::eq(other.cache, first.cache) && other.length == first.length;
        self.queries[query + 1..query + TOGETHER].iter().all(is_alike)
    }
}

/// Computes the contexts of `R` pairs that look at equally many positions, and, if `SHARED`, at the same
/// ones. Returns their number.
#[inline(always)]
fn run_together<S: Simd, const R: usize, const SHARED: bool>(
    job: &Job<'_>,
    units: [usize; R],
    part: &mut Part<'_>,
    scratch: &mut Scratch,
) -> usize {
    let Heads { count, group, d_kv, scale } = job.heads;
    let query = |unit: usize| (&job.queries[unit / count], unit % count);
    let key_head = |unit: usize| unit % count / group;
    let length = query(units[0]).0.length;
    let capacity = query(units[0]).0.cache.capacity;
    let padded = length.next_multiple_of(LANES);
    scratch.scores.resize(R * padded, 0.0);
    let mut rows = scratch.scores.chunks_exact_mut(padded);
    let mut scores: [&mut [f32]; R] = std::array::from_fn(|_| rows.next().unwrap_or_default());
    weighted_sums::<S, R, SHARED>(
        units.map(|unit| &query(unit).0.q[query(unit).1 * d_kv..][..d_kv]),
        units.map(|unit| &query(unit).0.cache.keys[key_head(unit) * d_kv * capacity..]),
        capacity,
        scores.each_mut().map(|scores| &mut **scores),
    );
    for (scores, unit) in scores.iter_mut().zip(units) {
        let (query, head) = query(unit);
        if scale != 1.0 {
            for score in scores.iter_mut() {
                *score *= scale;
            }
        }
        // Whole vectors, the end of which is as good as not there.
        if let Some(Bias { table, width, start }) = query.bias {
            let bias = &table[head * width + start..][..padded];
            for (score, bias) in scores.iter_mut().zip(bias) {
                *score += bias;
            }
        }
        scores[length..].fill(f32::NEG_INFINITY);
        softmax(scores);
    }
    let mut rest = &mut *part.contexts;
    let mut end = 0;
    let contexts = units.map(|unit| {
        let start = (unit - part.first_unit) * d_kv;
        let (_, after) = std::mem::take(&mut rest).split_at_mut(start - end);
        let (context, after) = after.split_at_mut(d_kv);
        (rest, end) = (after, start + d_kv);
        context
    });
    weighted_sums::<S, R, SHARED>(
        scores.each_ref().map(|scores| &scores[..length]),
        units.map(|unit| &query(unit).0.cache.values[key_head(unit) * capacity * d_kv..]),
        d_kv,
        contexts,
    );
    R
}
