//! Lists of entries as tensors: where the entries stand in caches, and how their queries are laid out for
//! attention.

use calm_core::Entry;
use tch::{Device, Tensor};

use super::rope::Turn;
use super::{Attention, CausalBias, Rope};
use crate::device::{upload, upload_lists};

/// Rows and positions of caches, [rows, positions, width], and which of them an entry has.
pub(super) struct Grid {
    /// The position of each row at which its output begins: what its prompt has before that.
    pub(super) offsets: Vec<usize>,
    /// Positions of each row.
    pub(super) positions: usize,
    pub(super) device: Device,
}

impl Grid {
    /// The position of an entry in its row, the prompt included.
    fn position(&self, entry: &Entry) -> i64 {
        (self.offsets[entry.row] + entry.position) as i64
    }

    /// Index of entries into [rows * positions, width].
    fn index(&self, entries: &[Entry]) -> Vec<i64> {
        let place = |entry: &Entry| (entry.row * self.positions) as i64 + self.position(entry);
        entries.iter().map(place).collect()
    }

    fn positions_of(&self, entries: &[Entry]) -> Vec<i64> {
        entries.iter().map(|entry| self.position(entry)).collect()
    }
}

/// Where entries stand in a tensor over all rows and positions, [rows, positions, width].
pub(super) enum Places {
    /// All rows at this position.
    Column(i64),
    /// Anywhere, as an index into [rows * positions, width].
    Index(Tensor),
}

impl Places {
    /// Finds entries in caches.
    pub(super) fn new(entries: &[Entry], grid: &Grid) -> Self {
        Places::Index(upload(&grid.index(entries), grid.device))
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

/// The angles of entries, where a network has a rotary position embedding.
pub(super) fn turn_of(entries: &[Entry], grid: &Grid, rope: Option<&Rope>) -> Option<Turn> {
    rope.map(|rope| rope.at(&upload(&grid.positions_of(entries), grid.device)))
}

/// What a layout is made of, beside the entries.
pub(super) struct Setting<'a> {
    pub(super) grid: &'a Grid,
    pub(super) attention: Attention,
    pub(super) bias: &'a CausalBias,
    pub(super) rope: Option<&'a Rope>,
    /// Mask of the sources of some rows, or of all.
    pub(super) source_mask: &'a dyn Fn(Option<&Tensor>) -> Option<Tensor>,
}

/// A list of entries, with all that follows from it and is the same in every layer.
///
/// Attention takes as many queries from each row. Rows that have fewer entries than others are filled up.
pub(crate) struct Layout {
    pub(super) entries: Vec<Entry>,
    pub(super) places: Places,
    /// Positions of self-attention's keys, which reach to the last one of any entry.
    pub(super) keys: i64,
    /// Bias of self-attention: [1 or rows, heads or 1, group * queries or 1, keys].
    bias: Tensor,
    /// The angles of the entries, where a network has a rotary position embedding.
    pub(super) turn: Option<Turn>,
    /// Mask of cross-attention, where there is any: [rows, 1, 1, source length].
    source_mask: Option<Tensor>,
    attention: Attention,
    /// The position of all entries, where they have only one.
    position: Option<i64>,
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
    /// Lays out entries. `before` is the layout of entries that came before, from which this one takes what
    /// they have in common.
    pub(super) fn new(entries: &[Entry], setting: &Setting<'_>, before: Option<&Layout>) -> Self {
        let Setting { grid, attention, bias: causal, rope, source_mask } = *setting;
        let by_row: Vec<&[Entry]> = entries.chunk_by(|a, b| a.row == b.row).collect();
        let queries = by_row.iter().map(|entries| entries.len()).max().unwrap_or(0);
        let positions = grid.positions_of(entries);
        let keys = positions.iter().max().map_or(0, |last| last + 1);
        let is_one_position = positions.iter().all(|position| *position == positions[0]);
        let position = is_one_position.then(|| keys - 1);
        let has_all_rows = by_row.len() == grid.offsets.len();

        let [mut rows, mut places, mut starts, mut filling, mut filled] = [const { Vec::new() }; 5];
        if !has_all_rows {
            rows = by_row.iter().map(|entries| entries[0].row as i64).collect();
        }
        if !(has_all_rows && is_one_position) {
            places = grid.index(entries);
        }
        if !is_one_position {
            // What fills a row up is its first entry once more.
            let mut first = 0;
            for (row, entries) in by_row.iter().enumerate() {
                let of_row = || (0..queries).map(|place| if place < entries.len() { place } else { 0 });
                let starts_of_row = of_row().map(|entry| causal.start(positions[first + entry]));
                starts.extend(std::iter::repeat_n(starts_of_row, attention.group() as usize).flatten());
                filling.extend(of_row().map(|entry| (first + entry) as i64));
                filled.extend((row * queries..).take(entries.len()).map(|place| place as i64));
                first += entries.len();
            }
            if first == filling.len() {
                (filling, filled) = (Vec::new(), Vec::new());
            }
        }
        let positions = if is_one_position || rope.is_none() { Vec::new() } else { positions };
        let lists = upload_lists([rows, places, starts, filling, filled, positions], grid.device);
        let [rows, places, starts, filling, filled, positions] = lists;

        let queries = queries as i64;
        let bias = match (position, before, starts) {
            (_, _, Some(starts)) => causal.at_starts(&starts, attention.group() * queries, keys),
            (Some(_), Some(before), None) if before.position == position => before.bias.shallow_clone(),
            _ => causal.at(keys - 1),
        };
        let turn = rope.map(|rope| match &positions {
            Some(positions) => rope.at(positions),
            None => rope.at_one(keys - 1),
        });
        Layout {
            entries: entries.to_vec(),
            places: places.map_or(Places::Column(keys - 1), Places::Index),
            keys,
            bias,
            turn,
            source_mask: source_mask(rows.as_ref()),
            attention,
            position,
            rows,
            queries,
            filling: filling.zip(filled).map(|(entries, places)| Filling { entries, places }),
        }
    }

    /// The first dimension of a tensor over all rows of the batch, cut down to those that take part.
    pub(crate) fn of_rows(&self, x: &Tensor) -> Tensor {
        of_rows(x, self.rows.as_ref())
    }

    /// Self-attention: q [entries, inner], k and v [rows, kv_heads, keys, head_dim] -> [entries, inner].
    pub(super) fn self_attention(&self, q: &Tensor, kv: &[Tensor; 2]) -> Tensor {
        self.attend(q, kv, Some(&self.bias))
    }

    /// Cross-attention: the same with keys and values of the sources.
    pub(crate) fn attend_to_sources(&self, q: &Tensor, kv: &[Tensor; 2]) -> Tensor {
        self.attend(q, kv, self.source_mask.as_ref())
    }

    fn attend(&self, q: &Tensor, [k, v]: &[Tensor; 2], bias: Option<&Tensor>) -> Tensor {
        let Attention { kv_heads, head_dim, scale, .. } = self.attention;
        let (group, queries) = (self.attention.group(), self.queries);
        let q = match &self.filling {
            Some(filling) => q.index_select(0, &filling.entries),
            None => q.shallow_clone(),
        };
        // Heads that share their keys are queries side by side: [rows * queries, inner] -> [rows, queries,
        // kv_heads, group, head_dim] -> [rows, kv_heads, group * queries, head_dim]
        let q = q.view([-1, queries, kv_heads, group, head_dim]).permute([0, 2, 3, 1, 4]).flatten(2, 3);
        let context = Tensor::scaled_dot_product_attention(&q, k, v, bias, 0.0, false, scale, false);
        // [rows, kv_heads, group * queries, head_dim] -> [rows * queries, inner]
        let context = context.unflatten(2, [group, queries]).permute([0, 3, 1, 2, 4]);
        let context = context.reshape([-1, self.attention.inner()]);
        match &self.filling {
            Some(filling) => context.index_select(0, &filling.places),
            None => context,
        }
    }
}

/// The first dimension of a tensor, cut down to some rows of it; `None` stands for all.
pub(crate) fn of_rows(x: &Tensor, rows: Option<&Tensor>) -> Tensor {
    rows.map_or_else(|| x.shallow_clone(), |rows| x.index_select(0, rows))
}
