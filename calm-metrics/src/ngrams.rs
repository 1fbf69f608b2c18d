//! Clipped n-gram matches, shared by BLEU and chrF.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Number that stands for a word that no reference holds.
const UNKNOWN: u32 = u32::MAX;

/// Numbers words, so that n-grams of words are compared as n-grams of numbers.
#[derive(Default)]
pub(crate) struct Vocabulary<'a> {
    ids: HashMap<&'a str, u32, BuildHasherDefault<FoldHasher>>,
}

impl<'a> Vocabulary<'a> {
    /// Creates a vocabulary with room for some words.
    pub(crate) fn with_capacity(words: usize) -> Self {
        Self { ids: HashMap::with_capacity_and_hasher(words, BuildHasherDefault::default()) }
    }

    /// Returns the numbers of `words`; new words get the next free number.
    pub(crate) fn learn(&mut self, words: impl Iterator<Item = &'a str>) -> Vec<u32> {
        words
            .map(|word| {
                let next = self.ids.len() as u32;
                *self.ids.entry(word).or_insert(next)
            })
            .collect()
    }

    /// Returns the numbers of `words`; all unknown words share one number that no known word has.
    pub(crate) fn look_up<'b>(&self, words: impl Iterator<Item = &'b str>) -> Vec<u32> {
        words.map(|word| self.ids.get(word).copied().unwrap_or(UNKNOWN)).collect()
    }

    /// Number of known words; they have the numbers `0..len()`.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }
}

/// All n-grams of a segment's references up to some order, as a trie.
///
/// A node is an n-gram, its parent the n-gram without the last symbol. So every n-gram costs one look-up of a
/// number, whatever its length.
pub(crate) struct ReferenceNgrams {
    max_order: usize,
    children: HashMap<u64, u32, BuildHasherDefault<FoldHasher>>,
    /// The largest number of occurrences in one reference, for each node.
    counts: Vec<u32>,
}

const ROOT: u32 = 0;

impl ReferenceNgrams {
    pub(crate) fn new(max_order: usize) -> Self {
        Self { max_order, children: HashMap::default(), counts: vec![0] }
    }

    /// Adds one reference.
    pub(crate) fn add(&mut self, symbols: &[u32]) {
        // A sentence hardly repeats an n-gram. A long line does, and a table that is mostly empty would be
        // slow to walk through.
        self.children.reserve((symbols.len() * self.max_order).min(1 << 12));
        let mut seen = vec![0u32; self.counts.len()];
        for start in 0..symbols.len() {
            let mut node = ROOT;
            for &symbol in symbols[start..].iter().take(self.max_order) {
                node = *self.children.entry(edge(node, symbol)).or_insert_with(|| {
                    seen.push(0);
                    seen.len() as u32 - 1
                });
                seen[node as usize] += 1;
            }
        }
        self.counts.resize(seen.len(), 0);
        for (count, seen) in self.counts.iter_mut().zip(seen) {
            *count = seen.max(*count);
        }
    }

    /// For each order from 1, counts how many n-grams of `hypothesis` the references account for.
    ///
    /// An n-gram counts at most as often as it occurs in one of the references.
    pub(crate) fn matches(&self, hypothesis: &[u32]) -> Vec<u64> {
        let mut matched = vec![0; self.max_order];
        let mut used = vec![0u32; self.counts.len()];
        for start in 0..hypothesis.len() {
            let mut node = ROOT;
            for (order, &symbol) in hypothesis[start..].iter().take(self.max_order).enumerate() {
                // A longer n-gram cannot occur where a shorter one does not.
                let Some(&child) = self.children.get(&edge(node, symbol)) else { break };
                node = child;
                let used = &mut used[node as usize];
                if *used < self.counts[node as usize] {
                    *used += 1;
                    matched[order] += 1;
                }
            }
        }
        matched
    }
}

/// Number of n-grams of order `order` (from 1) in a sequence of `length` symbols.
pub(crate) fn ngram_total(length: usize, order: usize) -> u64 {
    (length + 1).saturating_sub(order) as u64
}

fn edge(parent: u32, symbol: u32) -> u64 {
    u64::from(parent) << 32 | u64::from(symbol)
}

/// Multiplies, then folds the well mixed high half into the low one that the table indexes with.
///
/// The standard hasher would take most of the time of chrF and ROUGE.
#[derive(Default)]
struct FoldHasher(u64);

impl Hasher for FoldHasher {
    fn write_u64(&mut self, number: u64) {
        let product = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut number = [0; 8];
            number[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(number));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
