//! The rotary position embedding: numbers `i` and `i + head_dim / 2` of each query and key are a point of the
//! plane, which the position turns (`apply_rotary_pos_emb` of transformers).

use tch::{Device, Kind, Tensor};

/// Angles of all positions.
pub(crate) struct Rope {
    /// [positions, 1, head_dim]
    cos: Tensor,
    /// The sine, which is negative for the first half of a head: [positions, 1, head_dim].
    sin: Tensor,
}

/// Angles of some entries: [entries, 1, head_dim] each.
pub(crate) struct Turn {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// For positions below `positions`. `frequencies` are radians a position: `[head_dim / 2]`.
    pub(crate) fn new(frequencies: &[f64], positions: i64, (kind, device): (Kind, Device)) -> Self {
        // In f64: at position 8000 an angle of f32 is a thousandth of a radian off.
        let positions = Tensor::arange(positions, (Kind::Double, Device::Cpu));
        let angles = positions.outer(&Tensor::from_slice(frequencies));
        let of = |halves: [Tensor; 2]| Tensor::cat(&halves, -1).unsqueeze(1).to_kind(kind).to_device(device);
        let (cos, sin) = (angles.cos(), angles.sin());
        Rope { cos: of([cos.shallow_clone(), cos]), sin: of([-&sin, sin]) }
    }

    /// Angles of entries at these positions: [entries].
    pub(crate) fn at(&self, positions: &Tensor) -> Turn {
        let [cos, sin] = [&self.cos, &self.sin].map(|table| table.index_select(0, positions));
        Turn { cos, sin }
    }

    /// Angles of any number of entries that are all at one position.
    pub(crate) fn at_one(&self, position: i64) -> Turn {
        let [cos, sin] = [&self.cos, &self.sin].map(|table| table.narrow(0, position, 1));
        Turn { cos, sin }
    }
}

impl Turn {
    /// Turns the first `heads` heads of each entry and leaves the rest: [entries, width] -> [entries, width].
    pub(crate) fn apply(&self, x: &Tensor, heads: i64) -> Tensor {
        let head_dim = self.cos.size()[2];
        let (turned, width) = (heads * head_dim, x.size()[1]);
        let pairs = x.narrow(1, 0, turned).unflatten(1, [heads, head_dim]);
        // The other number of each pair stands half a head away.
        let pairs = &pairs * &self.cos + pairs.roll([head_dim / 2], [-1]) * &self.sin;
        Tensor::cat(&[pairs.flatten(1, 2), x.narrow(1, turned, width - turned)], 1)
    }
}
