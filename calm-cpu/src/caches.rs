//! Keys and values of a decoding, layer by layer.

use calm_checkpoint::CacheType;
use half::{bf16, f16};

use crate::attention::Heads;
use crate::simd::{Element, LANES};

/// Positions that a cache has room for when it gets its first entry.
const SMALLEST_CAPACITY: usize = 32;

/// Keys and values of one layer, by row. There may be more rows than those of the batch.
#[derive(Default)]
pub(crate) struct LayerCaches {
    /// Keys and values that self-attention reads. A token finds those of all positions up to its own, which
    /// have been written since the decoding began, or are those of a prompt.
    pub(crate) own: Vec<KeysValues>,
    /// Keys and values of the source that an encoder has read, empty until the row's first token reaches the
    /// layer.
    pub(crate) source: Vec<KeysValues>,
}

/// Keys and values of one row in one layer.
#[derive(Clone)]
pub(crate) struct KeysValues {
    heads: Heads,
    numbers: Numbers,
    capacity: usize,
    is_empty: bool,
}

#[derive(Clone)]
enum Numbers {
    F32(Tables<f32>),
    F16(Tables<f16>),
    Bf16(Tables<bf16>),
}

/// The numbers of a cache in some type.
#[derive(Clone)]
pub(crate) struct Tables<E> {
    /// [key heads, d_kv, capacity]
    keys: Vec<E>,
    /// [key heads, capacity, d_kv]
    values: Vec<E>,
}

/// What keys and values may consist of.
pub(crate) trait CacheElement: Element {
    /// Returns the tables of a cache that has this type.
    fn tables(cache: &KeysValues) -> Option<&Tables<Self>>;
}

macro_rules! cache_element {
    ($type:ty, $variant:ident) => {
        impl CacheElement for $type {
            #[inline(always)]
            fn tables(cache: &KeysValues) -> Option<&Tables<Self>> {
                match &cache.numbers {
                    Numbers::$variant(tables) => Some(tables),
                    _ => None,
                }
            }
        }
    };
}

cache_element!(f32, F32);
cache_element!(f16, F16);
cache_element!(bf16, Bf16);

impl LayerCaches {
    /// Makes sure that there are caches for as many rows. Those of sources are empty.
    pub(crate) fn begin(&mut self, rows: usize, own: Heads, source: Option<Heads>) {
        if self.own.len() < rows {
            self.own.resize(rows, KeysValues::new(own));
        }
        if let Some(heads) = source
            && self.source.len() < rows
        {
            self.source.resize(rows, KeysValues::new(heads));
        }
        self.source.iter_mut().for_each(|cache| cache.clear(0));
    }

    /// Lets each row have the keys and values of self-attention that row `from[row]` had. Those of the source
    /// are its own.
    pub(crate) fn copy_rows(&mut self, from: &[usize]) {
        let mut uses = vec![0; from.len()];
        from.iter().for_each(|&row| uses[row] += 1);
        let mut before: Vec<Option<KeysValues>> = self.own.drain(..from.len()).map(Some).collect();
        let copies = from.iter().filter_map(|&row| {
            uses[row] -= 1;
            // The last use needs no copy.
            if uses[row] == 0 { before[row].take() } else { before[row].clone() }
        });
        self.own.splice(..0, copies);
    }
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
        let numbers = match heads.cache_type {
            CacheType::F32 => Numbers::F32(Tables::new(size)),
            CacheType::F16 => Numbers::F16(Tables::new(size)),
            CacheType::Bf16 => Numbers::Bf16(Tables::new(size)),
        };
        KeysValues { heads, numbers, capacity, is_empty: true }
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

    /// Number of positions that it has room for.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the keys of all heads, [key heads, d_kv, capacity], if they are of this type, and none
    /// otherwise.
    #[inline(always)]
    pub(crate) fn keys<E: CacheElement>(&self) -> &[E] {
        E::tables(self).map_or(&[], |tables| &tables.keys)
    }

    /// Returns the values of all heads, [key heads, capacity, d_kv], if they are of this type, and none
    /// otherwise.
    #[inline(always)]
    pub(crate) fn values<E: CacheElement>(&self) -> &[E] {
        E::tables(self).map_or(&[], |tables| &tables.values)
    }

    /// Writes the key and the value of one position, [key heads * d_kv] each, and makes room where there is
    /// none.
    pub(crate) fn write(&mut self, position: usize, key: &[f32], value: &[f32]) {
        if position >= self.capacity {
            self.grow(position + 1);
        }
        self.is_empty = false;
        let (width, capacity) = (self.heads.d_kv, self.capacity);
        match &mut self.numbers {
            Numbers::F32(tables) => tables.write(position, key, value, width, capacity),
            Numbers::F16(tables) => tables.write(position, key, value, width, capacity),
            Numbers::Bf16(tables) => tables.write(position, key, value, width, capacity),
        }
    }

    /// Reads the key and the value of one position, [key heads * d_kv] each. Written again they are the same.
    pub(crate) fn read(&self, position: usize) -> [Vec<f32>; 2] {
        let (width, capacity) = (self.heads.d_kv, self.capacity);
        match &self.numbers {
            Numbers::F32(tables) => tables.read(position, width, capacity),
            Numbers::F16(tables) => tables.read(position, width, capacity),
            Numbers::Bf16(tables) => tables.read(position, width, capacity),
        }
    }

    /// Makes twice the room, so that each entry is moved once on average.
    fn grow(&mut self, least: usize) {
        let capacity = least.max(2 * self.capacity).max(SMALLEST_CAPACITY).next_multiple_of(LANES);
        if self.is_empty {
            return self.clear(capacity);
        }
        let (width, before) = (self.heads.d_kv, self.capacity);
        self.numbers = match &self.numbers {
            Numbers::F32(tables) => Numbers::F32(tables.grown(width, before, capacity)),
            Numbers::F16(tables) => Numbers::F16(tables.grown(width, before, capacity)),
            Numbers::Bf16(tables) => Numbers::Bf16(tables.grown(width, before, capacity)),
        };
        self.capacity = capacity;
    }
}

impl<E: Element> Tables<E> {
    fn new(size: usize) -> Self {
        Tables { keys: vec![E::default(); size], values: vec![E::default(); size] }
    }

    fn write(&mut self, position: usize, key: &[f32], value: &[f32], width: usize, capacity: usize) {
        for (element, of_positions) in key.iter().zip(self.keys.chunks_exact_mut(capacity)) {
            of_positions[position] = E::round(*element);
        }
        let of_heads = self.values.chunks_exact_mut(capacity * width);
        for (value, of_head) in value.chunks_exact(width).zip(of_heads) {
            for (value, to) in value.iter().zip(&mut of_head[position * width..][..width]) {
                *to = E::round(*value);
            }
        }
    }

    fn read(&self, position: usize, width: usize, capacity: usize) -> [Vec<f32>; 2] {
        let key = self.keys.chunks_exact(capacity).map(|of_positions| of_positions[position].widen());
        let of_heads = self.values.chunks_exact(capacity * width);
        let value = of_heads.flat_map(|of_head| &of_head[position * width..][..width]);
        [key.collect(), value.map(|element| element.widen()).collect()]
    }

    /// Copies whatever there is of one head, or of one element of it, to the front of its new room.
    fn grown(&self, width: usize, before: usize, capacity: usize) -> Self {
        let mut to = Tables::new(self.keys.len() / before * capacity);
        for (from, to, width) in [(&self.keys, &mut to.keys, 1), (&self.values, &mut to.values, width)] {
            let from_rows = from.chunks_exact(before * width);
            for (from, to) in from_rows.zip(to.chunks_exact_mut(capacity * width)) {
                to[..from.len()].copy_from_slice(from);
            }
        }
        to
    }
}
