//! Examples that come in groups, such as the sentences of a document.
//!
//! Guarantees suppose that examples are exchangeable, which those of one group are not with those of another:
//! they resemble each other. Where groups are known, a group has the mean loss of its examples, groups are
//! what is calibrated on and divided into trials, and the guarantee is about the mean loss of a new group.

use std::collections::HashMap;
use std::iter::Sum;

use calm_data::Example;
use calm_files::hex;
use sha2::{Digest, Sha256};

/// Which examples belong together. Each is a group of its own where nothing else is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// Names, in the order of their first examples.
    names: Vec<String>,
    /// The group of each example.
    of_examples: Vec<usize>,
}

impl Groups {
    /// The groups of examples.
    pub fn new(examples: &[Example]) -> Self {
        let mut indices = HashMap::new();
        let (mut names, mut of_examples): (Vec<String>, Vec<usize>) = Default::default();
        for Example { id, group, .. } in examples {
            let new = names.len();
            // Two examples without a group are two groups, even if they have one id.
            let index = group.as_ref().map_or(new, |group| *indices.entry(group.clone()).or_insert(new));
            if index == new {
                names.push(group.as_ref().unwrap_or(id).clone());
            }
            of_examples.push(index);
        }
        Self { names, of_examples }
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are no groups.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names of the groups.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The mean value of each group, from values of the examples.
    pub fn means(&self, values: &[f64]) -> Vec<f64> {
        let mut sums = vec![(0.0, 0_usize); self.len()];
        for (&group, value) in self.of_examples.iter().zip(values) {
            let (sum, count) = &mut sums[group];
            (*sum, *count) = (*sum + value, *count + 1);
        }
        sums.into_iter().map(|(sum, count)| sum / count as f64).collect()
    }

    /// The sum over each group, from values of the examples.
    pub fn sums<'v, T: Sum<&'v T> + 'v>(&self, values: &'v [T]) -> Vec<T> {
        let mut members: Vec<Vec<&T>> = self.names.iter().map(|_| Vec::new()).collect();
        for (&group, value) in self.of_examples.iter().zip(values) {
            members[group].push(value);
        }
        members.into_iter().map(|members| members.into_iter().sum()).collect()
    }

    /// The groups in a random order, which is that of the hashes of their names under the seed.
    pub fn random_order(&self, seed: u64) -> Vec<usize> {
        let hash = |name: &String| hex(&Sha256::digest(format!("{seed} {name}")));
        let mut order: Vec<(String, usize)> = self.names.iter().map(hash).zip(0..).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, index)| index).collect()
    }

    /// The places of the examples, group by group in a random order.
    pub fn random_examples(&self, seed: u64) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); self.len()];
        for (place, &group) in self.of_examples.iter().enumerate() {
            members[group].push(place);
        }
        self.random_order(seed).into_iter().map(|group| std::mem::take(&mut members[group])).collect()
    }
}
