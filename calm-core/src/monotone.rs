//! Functions that never fall, and fitting them: isotonic regression.

use serde::{Deserialize, Serialize};

/// A piecewise linear function that never falls, constant beyond its first and last knot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Knots")]
pub struct MonotoneMap {
    x: Vec<f32>,
    y: Vec<f32>,
}

/// A map as it is in a file.
#[derive(Deserialize)]
struct Knots {
    x: Vec<f32>,
    y: Vec<f32>,
}

/// One observation: a value and what it led to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// What the function is of.
    pub x: f32,
    /// What it is to give on average, such as 0 or 1.
    pub y: f32,
}

impl MonotoneMap {
    /// Finds the function that never falls and has the least squares to the observations, with knots where
    /// its slope changes; `None` if no observation has numbers.
    ///
    /// It is the mean of the observations with equal `x`, of which neighbours that fall are pooled until none
    /// does (pool adjacent violators), and linear between these: what scikit-learn's `IsotonicRegression`
    /// gives. The order of the observations does not matter.
    pub fn fit(observations: impl IntoIterator<Item = Observation>) -> Option<Self> {
        let mut sorted: Vec<(f32, f32)> = observations
            .into_iter()
            .filter(|Observation { x, y }| x.is_finite() && y.is_finite())
            // The sum turns -0 into 0: both are the same x.
            .map(|Observation { x, y }| (x + 0.0, y))
            .collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut blocks: Vec<Block> = Vec::new();
        for equal in sorted.chunk_by(|a, b| a.0 == b.0) {
            let (x, sum) = (equal[0].0, equal.iter().map(|(_, y)| f64::from(*y)).sum());
            let mut block = Block { first: x, last: x, sum, weight: equal.len() as f64 };
            while let Some(before) = blocks.pop_if(|before| before.mean() >= block.mean()) {
                block = Block {
                    first: before.first,
                    sum: before.sum + block.sum,
                    weight: before.weight + block.weight,
                    ..block
                };
            }
            blocks.push(block);
        }
        let (mut x, mut y) = (Vec::new(), Vec::new());
        for block in &blocks {
            let ends = if block.first < block.last { &[block.first, block.last][..] } else { &[block.last] };
            x.extend_from_slice(ends);
            y.extend(ends.iter().map(|_| block.mean() as f32));
        }
        (!x.is_empty()).then_some(Self { x, y })
    }

    /// Makes a function of its knots.
    ///
    /// # Errors
    /// The message says what is wrong: lists of other lengths or without elements, numbers that are none, an
    /// `x` that does not rise, a `y` that falls.
    pub fn from_knots(x: Vec<f32>, y: Vec<f32>) -> Result<Self, String> {
        let problem = if x.len() != y.len() || x.is_empty() {
            "x and y must be as long as each other, and have a knot at least"
        } else if !x.iter().chain(&y).all(|number| number.is_finite()) {
            "knots must be numbers"
        } else if !x.is_sorted_by(|a, b| a < b) {
            "x must rise"
        } else if !y.is_sorted() {
            "y must not fall"
        } else {
            return Ok(Self { x, y });
        };
        Err(problem.to_owned())
    }

    /// The function at `x`; what is no number stays none.
    pub fn at(&self, x: f32) -> f32 {
        let above = self.x.partition_point(|&knot| knot < x);
        match (above.checked_sub(1), self.y.get(above)) {
            _ if x.is_nan() => x,
            (None, _) => self.y[0],
            (Some(below), None) => self.y[below],
            (Some(below), Some(&y)) => {
                let share = (x - self.x[below]) / (self.x[above] - self.x[below]);
                // Rounding must not lead outside of the two knots.
                (self.y[below] + share * (y - self.y[below])).clamp(self.y[below], y)
            }
        }
    }

    /// The knots, `x` and `y`, ascending.
    pub fn knots(&self) -> impl ExactSizeIterator<Item = (f32, f32)> {
        self.x.iter().copied().zip(self.y.iter().copied())
    }
}

impl TryFrom<Knots> for MonotoneMap {
    type Error = String;

    fn try_from(Knots { x, y }: Knots) -> Result<Self, String> {
        Self::from_knots(x, y)
    }
}

/// Neighbouring observations that have one value.
struct Block {
    first: f32,
    last: f32,
    sum: f64,
    weight: f64,
}

impl Block {
    fn mean(&self) -> f64 {
        self.sum / self.weight
    }
}
