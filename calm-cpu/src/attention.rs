//! Attention of single queries.
//!
//! The keys of a head lie with one element of all positions after the other, so that a vector holds the
//! scores of sixteen positions and nothing has to be added up across it. Values lie position after position
//! for the same reason. Both may be kept in 16 bits; scores and sums are f32 throughout.

use calm_checkpoint::CacheType;
use half::{bf16, f16};

use crate::caches::{CacheElement, KeysValues};
use crate::elementwise::softmax;
use crate::linear::Processor;
use crate::simd::{LANES, Simd, weighted_sums, with_simd};
use crate::team::{Scratch, bounds};

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
    /// How keys and values are kept.
    pub(crate) cache_type: CacheType,
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

/// Computes the contexts of some queries: [queries, heads * d_kv], in place of what was there.
pub(crate) fn attend(processor: &Processor, heads: Heads, queries: &[Query<'_>], contexts: &mut Vec<f32>) {
    let units = queries.len() * heads.count;
    contexts.resize(units * heads.d_kv, 0.0);
    let threads = processor.team.threads();
    // Whole queries if there are enough, since those of one source are computed together.
    let bounds = if queries.len() < threads {
        bounds(units, 1, threads)
    } else {
        bounds_by_length(queries, threads).into_iter().map(|bound| bound * heads.count).collect()
    };
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

/// Finds where to divide queries so that each part reads about as many positions. Those of a prompt read
/// more, the later they are. Empty parts are left out.
fn bounds_by_length(queries: &[Query<'_>], parts: usize) -> Vec<usize> {
    let total: usize = queries.iter().map(|query| query.length).sum();
    let mut bounds = vec![0];
    let mut read = 0;
    for (index, query) in queries.iter().enumerate() {
        read += query.length;
        if read * parts >= total * bounds.len() && bounds.len() < parts {
            bounds.push(index + 1);
        }
    }
    if bounds.last() != Some(&queries.len()) {
        bounds.push(queries.len());
    }
    bounds
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
    match job.heads.cache_type {
        CacheType::F32 => run_units::<S, f32>(job, part, scratch),
        CacheType::F16 => run_units::<S, f16>(job, part, scratch),
        CacheType::Bf16 => run_units::<S, bf16>(job, part, scratch),
    }
}

#[inline(always)]
fn run_units<S: Simd, E: CacheElement>(job: &Job<'_>, part: &mut Part<'_>, scratch: &mut Scratch) {
    let Heads { count, group, d_kv, .. } = job.heads;
    let end = part.first_unit + part.contexts.len() / d_kv;
    let mut unit = part.first_unit;
    while unit < end {
        let (query, head, left) = (unit / count, unit % count, end - unit);
        if head == 0 && left >= TOGETHER * count && job.are_of_one_source(query) {
            for head in 0..count {
                run_together::<S, E, TOGETHER, true>(
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
                4.. => run_together::<S, E, 4, true>(job, std::array::from_fn(|i| unit + i), part, scratch),
                3 => run_together::<S, E, 3, true>(job, std::array::from_fn(|i| unit + i), part, scratch),
                2 => run_together::<S, E, 2, true>(job, std::array::from_fn(|i| unit + i), part, scratch),
                _ => run_together::<S, E, 1, true>(job, [unit], part, scratch),
            };
            continue;
        }
        unit += match left.min(count - head) {
            4.. => run_together::<S, E, 4, false>(job, std::array::from_fn(|i| unit + i), part, scratch),
            3 => run_together::<S, E, 3, false>(job, std::array::from_fn(|i| unit + i), part, scratch),
            2 => run_together::<S, E, 2, false>(job, std::array::from_fn(|i| unit + i), part, scratch),
            _ => run_together::<S, E, 1, false>(job, [unit], part, scratch),
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
fn run_together<S: Simd, E: CacheElement, const R: usize, const SHARED: bool>(
    job: &Job<'_>,
    units: [usize; R],
    part: &mut Part<'_>,
    scratch: &mut Scratch,
) -> usize {
    let Heads { count, group, d_kv, scale, .. } = job.heads;
    let query = |unit: usize| (&job.queries[unit / count], unit % count);
    let key_head = |unit: usize| unit % count / group;
    let length = query(units[0]).0.length;
    let capacity = query(units[0]).0.cache.capacity();
    let padded = length.next_multiple_of(LANES);
    scratch.scores.resize(R * padded, 0.0);
    let mut rows = scratch.scores.chunks_exact_mut(padded);
    let mut scores: [&mut [f32]; R] = std::array::from_fn(|_| rows.next().unwrap_or_default());
    weighted_sums::<S, E, R, SHARED>(
        units.map(|unit| &query(unit).0.q[query(unit).1 * d_kv..][..d_kv]),
        units.map(|unit| &query(unit).0.cache.keys::<E>()[key_head(unit) * d_kv * capacity..]),
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
    weighted_sums::<S, E, R, SHARED>(
        scores.each_ref().map(|scores| &scores[..length]),
        units.map(|unit| &query(unit).0.cache.values::<E>()[key_head(unit) * capacity * d_kv..]),
        d_kv,
        contexts,
    );
    R
}
