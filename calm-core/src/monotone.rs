//! Functions that never fall, and fitting them: isotonic regression.

use serde::{Deserialize, Serialize};

/// Levels of agreement from 0 to 1 that [`MonotoneMap::fit_levels`] tells apart, but for one.
const LEVELS: f64 = 1000.0;

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
        let sorted = sorted(observations);
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

    /// Finds the highest level of agreement at which a value of `x` passes, where each level has the lowest
    /// cut-off that keeps it: the share of observations with `y` = 1, among those whose `x` is at or above
    /// the cut-off. `None` if no observation has numbers.
    ///
    /// With A(v) for that share from the cut-off v on, the lowest cut-off of the level e is the least v with
    /// A(v) >= e. So x passes at e exactly if some v <= x has A(v) >= e, and its level is the largest of the
    /// A(v) up to it; below all observations it is A of all of them. Levels are thousandths, rounded down, so
    /// that there are no more steps than these, and at thresholds of whole thousandths the same values pass.
    pub fn fit_levels(observations: impl IntoIterator<Item = Observation>) -> Option<Self> {
        let sorted = sorted(observations);
        let mut shares = Vec::new();
        let (mut agreeing, mut count) = (0.0, 0.0);
        for equal in sorted.chunk_by(|a, b| a.0 == b.0).rev() {
            agreeing += equal.iter().map(|(_, y)| f64::from(*y)).sum::<f64>();
            count += equal.len() as f64;
            shares.push((equal[0].0, (LEVELS * agreeing / count).floor()));
        }
        let (mut x, mut y) = (Vec::<f32>::new(), Vec::<f32>::new());
        let mut highest = f64::NEG_INFINITY;
        for (value, level) in shares.into_iter().rev() {
            if level <= highest {
                continue;
            }
            // The function is a step: it keeps its value up to the last number below the next cut-off.
            if let (Some(&last), Some(&level)) = (x.last(), y.last())
                && value.next_down() > last
            {
                x.push(value.next_down());
                y.push(level);
            }
            x.push(value);
            y.push(at_least(level / LEVELS));
            highest = level;
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
            (_, Some(&y)) if x == self.x[above] => y,
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

/// Observations that have numbers, ascending.
fn sorted(observations: impl IntoIterator<Item = Observation>) -> Vec<(f32, f32)> {
    let mut sorted: Vec<(f32, f32)> = observations
        .into_iter()
        .filter(|Observation { x, y }| x.is_finite() && y.is_finite())
        // The sum turns -0 into 0: both are the same x.
        .map(|Observation { x, y }| (x + 0.0, y))
        .collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    sorted
}

/// The least f32 that is not below a number: thresholds are compared in f64.
fn at_least(number: f64) -> f32 {
    let nearest = number as f32;
    if f64::from(nearest) < number { nearest.next_up() } else { nearest }
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
