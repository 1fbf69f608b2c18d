//! Lists of entries as tensors: where the entries stand in caches, and how their queries are laid out for
//! attention.

use calm_core::Entry;
use tch::{Device, Tensor};

use super::layers::{SCALE, merge_heads, split_heads};
use super::position::CausalBias;
use super::prompt::Encoded;
use crate::device::{upload, upload_lists};

/// Where entries stand in a tensor over all rows and positions, [rows, max_tokens, width].
pub(super) enum Places {
    /// All rows at this position.
    Column(i64),
    /// Anywhere, as an index into [rows * max_tokens, width].
    Index(Tensor),
}

impl Places {
    /// Finds entries in a tensor of `max_tokens` positions.
    pub(super) fn new(entries: &[Entry], max_tokens: usize, device: Device) -> Self {
        Places::Index(upload(&place_index(entries, max_tokens), device))
    }

    /// What stands there: [entries, width].
    pub(super) fn read(&self, cache: &Tensor) -> Tensor {
        match self {
            Places::Column(position) => cache.select(1, *position),
            Places::Index(index) => cache.flatten(0, 1).index_select(0, index),
        }
    }

    /// Puts `values` [entries, width] there.
    pub(super) fn write(&self, cache: &Tensor, values: &Tensor) {
        match self {
            Places::Column(position) => cache.select(1, *position).copy_(values),
            Places::Index(index) => drop(cache.flatten(0, 1).index_copy_(0, index, values)),
        }
    }
}

fn place_index(entries: &[Entry], max_tokens: usize) -> Vec<i64> {
    entries.iter().map(|entry| (entry.row * max_tokens + entry.position) as i64).collect()
}

/// A list of entries, with all that follows from it and is the same in every layer.
///
/// Attention takes as many queries from each row. Rows that have fewer entries than others are filled up.
pub(super) struct Layout {
    pub(super) entries: Vec<Entry>,
    pub(super) places: Places,
    /// Positions of self-attention's keys, which reach to the last one of any entry.
    pub(super) keys: i64,
    /// Bias of self-attention: [1 or rows, heads, queries, keys].
    pub(super) bias: Tensor,
    /// Mask of cross-attention: [rows, 1, 1, source length].
    pub(super) source_mask: Tensor,
    /// The position of all entries, where they have only one.
    position: Option<usize>,
    /// Rows of the batch that take part. `None` for all of them.
    rows: Option<Tensor>,
    /// Most entries of a row.
    queries: i64,
    /// `None` where every row has as many entries.
    filling: Option<Filling>,
}

/// How entries are put in order for attention and back.
struct Filling {
    /// The entry whose query stands at each place: [rows * queries].
    entries: Tensor,
    /// The place of each entry: [entries].
    places: Tensor,
}

impl Layout {
    /// Lays out entries of a session over what was `encoded`, whose outputs have `max_tokens` positions.
    /// `before` is the layout of entries that came before, from which this one takes what they have in
    /// common.
    pub(super) fn new(
        entries: &[Entry],
        encoded: &Encoded<'_>,
        max_tokens: usize,
        causal: &CausalBias,
        before: Option<&Layout>,
    ) -> Self {
        let by_row: Vec<&[Entry]> = entries.chunk_by(|a, b| a.row == b.row).collect();
        let queries = by_row.iter().map(|entries| entries.len()).max().unwrap_or(0);
        let keys = entries.iter().map(|entry| entry.position + 1).max().unwrap_or(0) as i64;
        let is_one_position = entries.iter().all(|entry| entry.position == entries[0].position);
        let position = is_one_position.then(|| entries[0].position);
        let has_all_rows = by_row.len() == encoded.num_rows();

        let [mut rows, mut places, mut starts, mut filling, mut filled] = [const { Vec::new() }; 5];
        if !has_all_rows {
            rows = by_row.iter().map(|entries| entries[0].row as i64).collect();
        }
        if !(has_all_rows && is_one_position) {
            places = place_index(entries, max_tokens);
        }
        if !is_one_position {
            // What fills a row up is its first entry once more.
            let mut first = 0;
            for (row, entries) in by_row.iter().enumerate() {
                for place in 0..queries {
                    let entry = if place < entries.len() { place } else { 0 };
                    starts.push(causal.start(entries[entry].position as i64));
                    filling.push((first + entry) as i64);
                }
                filled.extend((row * queries..).take(entries.len()).map(|place| place as i64));
                first += entries.len();
            }
            if first == starts.len() {
                (filling, filled) = (Vec::new(), Vec::new());
            }
        }
        let lists = upload_lists([rows, places, starts, filling, filled], encoded.device());
        let [rows, places, starts, filling, filled] = lists;

        let queries = queries as i64;
        let bias = match (position, before, starts) {
            (_, _, Some(starts)) => causal.at_starts(&starts, queries, keys),
            (Some(_), Some(before), None) if before.position == position => before.bias.shallow_clone(),
            _ => causal.at(keys - 1),
        };
        Layout {
            entries: entries.to_vec(),
            places: places.map_or(Places::Column(keys - 1), Places::Index),
            keys,
            bias,
            source_mask: encoded.mask(rows.as_ref()),
            position,
            rows,
            queries,
            filling: filling.zip(filled).map(|(entries, places)| Filling { entries, places }),
        }
    }

    /// The first dimension of a tensor over all rows of the batch, cut down to those that take part.
    pub(super) fn of_rows(&self, x: &Tensor) -> Tensor {
        of_rows(x, self.rows.as_ref())
    }

    /// q [entries, inner], k and v [rows, heads, keys, d_kv], bias broadcastable to [rows, heads, queries,
    /// keys] -> [entries, inner]
    pub(super) fn attend(&self, q: &Tensor, [k, v]: &[Tensor; 2], bias: &Tensor) -> Tensor {
        let (heads, inner) = (k.size()[1], q.size()[1]);
        let q = match &self.filling {
            Some(filling) => q.index_select(0, &filling.entries),
            None => q.shallow_clone(),
        };
        // [rows * queries, inner] -> [rows, heads, queries, d_kv]
        let q = split_heads(&q.view([-1, self.queries, inner]), heads);
        let context = Tensor::scaled_dot_product_attention(&q, k, v, Some(bias), 0.0, false, SCALE, false);
        // [rows, heads, queries, d_kv] -> [rows * queries, inner]
        let context = merge_heads(&context).flatten(0, 1);
        match &self.filling {
            Some(filling) => context.index_select(0, &filling.places),
            None => context,
        }
    }
}

/// The first dimension of a tensor, cut down to some rows of it; `None` stands for all.
pub(super) fn of_rows(x: &Tensor, rows: Option<&Tensor>) -> Tensor {
    rows.map_or_else(|| x.shallow_clone(), |rows| x.index_select(0, rows))
}
