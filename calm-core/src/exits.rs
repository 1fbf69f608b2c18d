//! The layers after which a policy tests.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::PolicyError;

/// A set of layers after which tokens may leave. In ids it is written as `2.4.6`, in files as a list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Exits(u64);

impl Exits {
    /// The last layer that a set can have.
    pub const MAX: usize = u64::BITS as usize;

    /// Makes a set of layers from 1 on, in any order.
    ///
    /// # Errors
    /// There are no layers, one is there twice, or one is not from 1 to [`Exits::MAX`].
    pub fn new(layers: &[usize]) -> Result<Self, PolicyError> {
        let mut set = Self(0);
        for &layer in layers {
            if !(1..=Self::MAX).contains(&layer) {
                return Err(PolicyError::Form(format!(
                    "exits are layers from 1 to {}, not {layer}",
                    Self::MAX
                )));
            }
            if set.contains(layer) {
                return Err(PolicyError::Form(format!("exits have the layer {layer} twice")));
            }
            set.0 |= bit(layer);
        }
        if layers.is_empty() {
            return Err(PolicyError::Form("exits must have a layer at least".to_owned()));
        }
        Ok(set)
    }

    /// All layers of a decoder but its last, after which there is nothing to decide.
    pub fn all_below(num_layers: usize) -> Self {
        (1..num_layers.min(Self::MAX + 1)).fold(Self(0), |set, layer| Self(set.0 | bit(layer)))
    }

    /// Whether the policy tests after this layer, counted from 1.
    pub fn contains(self, layer: usize) -> bool {
        (1..=Self::MAX).contains(&layer) && self.0 & bit(layer) != 0
    }

    /// The layers, counted from 1, ascending.
    pub fn layers(self) -> impl Iterator<Item = usize> {
        (1..=Self::MAX).filter(move |&layer| self.contains(layer))
    }

    /// The layers of the set up to `layer`.
    #[must_use]
    pub fn up_to(self, layer: usize) -> Self {
        Self(self.0 & all_bits(layer))
    }

    /// The layers of the set from `layer` on.
    #[must_use]
    pub fn from(self, layer: usize) -> Self {
        Self(self.0 & !all_bits(layer - 1))
    }

    /// Number of layers in the set.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether the set has no layers, which only [`all_below`](Self::all_below) and
    /// [`up_to`](Self::up_to) can cause.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The first layer, and `layer` itself.
    pub(crate) fn first_and(self, layer: usize) -> Self {
        Self(self.0 & self.0.wrapping_neg() | bit(layer))
    }

    /// The set of one layer.
    pub(crate) fn of(layer: usize) -> Self {
        Self(bit(layer))
    }

    /// Fails where a decoder of so many layers cannot test after each of them.
    ///
    /// # Errors
    /// [`PolicyError::Exits`] if a layer is the decoder's last or above.
    pub fn check(self, num_layers: usize) -> Result<(), PolicyError> {
        match self.layers().find(|&layer| layer >= num_layers) {
            Some(layer) => Err(PolicyError::Exits { layer, num_layers }),
            None => Ok(()),
        }
    }
}

fn bit(layer: usize) -> u64 {
    1 << (layer - 1)
}

fn all_bits(layers: usize) -> u64 {
    if layers >= Exits::MAX { u64::MAX } else { (1 << layers) - 1 }
}

impl fmt::Display for Exits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, layer) in self.layers().enumerate() {
            write!(formatter, "{}{layer}", if index == 0 { "" } else { "." })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Exits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

impl FromStr for Exits {
    type Err = PolicyError;

    /// Reads layers between dots or commas.
    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let layer = |part: &str| {
            let malformed = || PolicyError::Form(format!("exits are layers such as 2.4.6, not `{text}`"));
            part.trim().parse().map_err(|_| malformed())
        };
        Self::new(&text.split(['.', ',']).map(layer).collect::<Result<Vec<usize>, _>>()?)
    }
}

impl Serialize for Exits {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.layers())
    }
}

impl<'de> Deserialize<'de> for Exits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let layers = Vec::<usize>::deserialize(deserializer)?;
        Self::new(&layers).map_err(serde::de::Error::custom)
    }
}
