//! What drafts are worth: how often the tokens of a layer are the last layer's, what layers and heads cost,
//! and which way of drafting is fastest by these.

use std::collections::BTreeMap;

use crate::exits::Exits;

/// A way of drafting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Plan {
    /// Layers of a draft.
    pub layers: usize,
    /// Tokens that are drafted before they are verified; 0 if nothing is drafted.
    pub length: usize,
    /// A row that is decoded on its own stops drafting at a token with a smaller margin. Rows of a batch
    /// draft in step with each other.
    pub margin: f32,
}

/// The longest draft that is thought of.
pub(super) const LONGEST: usize = 8;

/// How much faster drafting has to be than not drafting to be chosen, since what is measured is not exact.
const LEAST_GAIN: f64 = 1.02;

/// Borders of the margins that are counted apart. Most margins are near 1.
const MARGINS: [f32; 11] = [0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.995];

/// What is known.
#[derive(Debug, Clone)]
pub(super) struct Speculation {
    num_layers: usize,
    /// The layers that drafts are made after.
    drafting: Exits,
    /// Seconds of a layer, of the best tokens by the head, and of those by an exit head, if these draft.
    pub layer: Seconds,
    pub head: Seconds,
    pub exit_head: Seconds,
    /// By the number of layers, from 1 to all but the last.
    agreement: Vec<Agreement>,
}

/// How often a layer's token is the last layer's, by its margin.
#[derive(Debug, Clone, Default)]
struct Agreement {
    /// By the number of the margin's interval: weight of the tokens seen, and of those that agree.
    seen: [f64; MARGINS.len()],
    agreeing: [f64; MARGINS.len()],
}

impl Agreement {
    /// What is older counts less by this factor with each token.
    const FORGETTING: f64 = 0.9995;

    fn observe(&mut self, margin: f32, agrees: bool) {
        let interval = MARGINS.iter().rposition(|&border| margin >= border).unwrap_or(0);
        for (index, (seen, agreeing)) in self.seen.iter_mut().zip(&mut self.agreeing).enumerate() {
            *seen *= Self::FORGETTING;
            *agreeing *= Self::FORGETTING;
            if index == interval {
                *seen += 1.0;
                *agreeing += f64::from(u8::from(agrees));
            }
        }
    }

    /// The share of tokens whose margin is at least the border of this number, and how many of these agree.
    /// Where little was seen both are pulled towards one half.
    fn above(&self, interval: usize) -> (f64, f64) {
        let all: f64 = self.seen.iter().sum();
        let (seen, agreeing): (f64, f64) =
            (self.seen[interval..].iter().sum(), self.agreeing[interval..].iter().sum());
        ((seen + 0.5) / (all + 1.0), (agreeing + 0.5) / (seen + 1.0))
    }
}

/// Seconds of a call by the number of its entries.
#[derive(Debug, Clone, Default)]
pub(super) struct Seconds(BTreeMap<usize, f64>);

impl Seconds {
    pub(super) fn observe(&mut self, entries: usize, seconds: f64) {
        let usual = self.0.entry(entries).or_insert(seconds);
        // A call that was interrupted, or the first of its kind, says little about the next one.
        let share = if seconds < *usual { 0.2 } else { 0.02 };
        *usual += share * (seconds.min(3.0 * *usual) - *usual);
    }

    /// Between two numbers that were seen along the line between them; beyond, in proportion.
    pub(super) fn of(&self, entries: usize) -> f64 {
        let below = self.0.range(..=entries).next_back();
        let above = self.0.range(entries..).next();
        match (below, above) {
            (Some((&few, &low)), Some((&many, &high))) if few < many => {
                low + (high - low) * (entries - few) as f64 / (many - few) as f64
            }
            (Some((&few, &low)), _) => low * entries as f64 / few as f64,
            (None, Some((_, &high))) => high,
            (None, None) => 0.0,
        }
    }
}

impl Speculation {
    /// Knows nothing of a decoder of so many layers, some of which draft.
    pub(super) fn new(num_layers: usize, drafting: Exits) -> Self {
        let agreement = vec![Agreement::default(); num_layers.saturating_sub(1)];
        let [layer, head, exit_head] = Default::default();
        Self { num_layers, drafting, layer, head, exit_head, agreement }
    }

    /// The layers that drafts are made after.
    pub(super) fn drafting(&self) -> Exits {
        self.drafting
    }

    /// Counts a token of a layer below the last.
    pub(super) fn observe(&mut self, layers: usize, margin: f32, agrees: bool) {
        if let Some(agreement) = layers.checked_sub(1).and_then(|index| self.agreement.get_mut(index)) {
            agreement.observe(margin, agrees);
        }
    }

    /// The fastest plan for so many rows that drafts at all; `None` for a decoder without a layer to draft
    /// with.
    pub(super) fn best_draft(&self, rows: usize) -> Option<Plan> {
        self.rated_draft(rows, &Costs::new(self, rows)).map(|(_, plan)| plan)
    }

    /// The fastest plan for so many rows, which may be to draft nothing.
    pub(super) fn best(&self, rows: usize) -> Plan {
        let costs = Costs::new(self, rows);
        let plain = 1.0 / (self.num_layers as f64 * costs.layer[0] + costs.head[0]);
        let draft = self.rated_draft(rows, &costs).filter(|(rate, _)| *rate > LEAST_GAIN * plain);
        draft.map_or(Plan { layers: self.num_layers, length: 0, margin: 0.0 }, |(_, plan)| plan)
    }

    /// The fastest plan that drafts, with its expected tokens per second of each row.
    fn rated_draft(&self, rows: usize, costs: &Costs) -> Option<(f64, Plan)> {
        let intervals = if rows == 1 { MARGINS.len() } else { 1 };
        let mut best: Option<(f64, Plan)> = None;
        for layers in self.drafting.layers() {
            let agreement = &self.agreement[layers - 1];
            for (interval, &margin) in MARGINS.iter().enumerate().take(intervals) {
                let (goes_on, agrees) = agreement.above(interval);
                // Rows of a batch go on together.
                let goes_on = if rows == 1 { goes_on } else { 1.0 };
                for length in 1..=LONGEST {
                    let rate = self.rate(costs, layers, length, goes_on, agrees);
                    if best.is_none_or(|(best, _)| rate > best) {
                        best = Some((rate, Plan { layers, length, margin }));
                    }
                }
            }
        }
        best
    }

    /// Expected tokens per second of each row, where each token is drafted with the probability `goes_on` and
    /// agrees with the probability `agrees`.
    ///
    /// A cycle drafts `drafts` tokens, each at the cost of the lower layers and its head, and takes one
    /// more through the lower layers. Then the upper layers and the head run for all of them at once. Of
    /// the tokens as many stay as agree in a row, and one more, which is the last layer's own.
    fn rate(&self, costs: &Costs, layers: usize, length: usize, goes_on: f64, agrees: f64) -> f64 {
        let (lower, upper) = (layers as f64, (self.num_layers - layers) as f64);
        let step = lower * costs.layer[0];
        let (mut tokens, mut seconds) = (0.0, 0.0);
        // Of reaching so many drafts, and the tokens that stay of them.
        let (mut reaches, mut stay, mut power) = (1.0, 0.0, 1.0);
        for drafts in 0..=length {
            stay += power;
            power *= agrees;
            let probability = if drafts < length { reaches * (1.0 - goes_on) } else { reaches };
            reaches *= goes_on;
            let tested = length.min(drafts + 1) as f64;
            tokens += probability * stay;
            seconds += probability
                * ((drafts + 1) as f64 * step
                    + tested * costs.draft
                    + upper * costs.layer[drafts]
                    + costs.head[drafts]);
        }
        tokens / seconds
    }
}

/// What layer and head cost by the number of drafts that run with the token after them.
struct Costs {
    layer: [f64; LONGEST + 1],
    head: [f64; LONGEST + 1],
    /// What a draft's token costs.
    draft: f64,
}

impl Costs {
    fn new(speculation: &Speculation, rows: usize) -> Self {
        let of = |seconds: &Seconds| std::array::from_fn(|drafts| seconds.of(rows * (drafts + 1)));
        let Speculation { layer, head, exit_head, .. } = speculation;
        let draft = if exit_head.0.is_empty() { head } else { exit_head };
        Self { layer: of(layer), head: of(head), draft: draft.of(rows) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A decoder of 8 layers where a call costs `fixed` and `per_entry` for each entry, and the layers from
    /// `good` on always agree, with margins of 1.
    fn known(fixed: f64, per_entry: f64, head: f64, good: usize) -> Speculation {
        let mut speculation = Speculation::new(8, Exits::all_below(8));
        for entries in [1, 2, 4, 8, 16, 64] {
            speculation.layer.observe(entries, fixed + per_entry * entries as f64);
            speculation.head.observe(entries, head * (fixed + per_entry * entries as f64));
        }
        for layers in 1..8 {
            for _ in 0..200 {
                speculation.observe(layers, 0.999, layers >= good);
            }
        }
        speculation
    }

    #[test]
    fn drafts_are_as_shallow_as_they_may_be() {
        let plan = known(1.0, 0.0, 0.1, 3).best(1);
        assert_eq!((plan.layers, plan.length), (3, LONGEST));
    }

    #[test]
    fn nothing_is_drafted_where_it_costs_more_than_it_saves() {
        // Wider calls cost in proportion: a draft is paid for in addition.
        assert_eq!(known(0.0, 1.0, 0.5, 2).best(1).length, 0);
        // No layer below the last agrees.
        assert_eq!(known(1.0, 0.0, 0.1, 8).best(1).length, 0);
        // Nearly all of the layers are a draft's too, and then it takes the head once more.
        assert_eq!(known(1.0, 0.3, 3.0, 7).best(1).length, 0);
    }

    #[test]
    fn a_batch_drafts_only_where_its_calls_have_room() {
        assert!(known(1.0, 0.001, 0.1, 2).best(16).length > 0);
        assert_eq!(known(0.01, 1.0, 0.1, 2).best(16).length, 0);
    }

    #[test]
    fn a_row_stops_at_margins_that_do_not_agree() {
        let mut speculation = known(1.0, 0.02, 0.1, 9);
        for _ in 0..500 {
            for (margin, agrees) in [(0.97, true), (0.99, true), (0.3, false), (0.15, false)] {
                speculation.observe(2, margin, agrees);
            }
        }
        let plan = speculation.best(1);
        assert_eq!(plan.layers, 2);
        assert!((0.35..=0.95).contains(&plan.margin), "{plan:?}");
    }

    #[test]
    fn costs_are_interpolated() {
        let mut seconds = Seconds::default();
        seconds.observe(2, 4.0);
        seconds.observe(4, 6.0);
        assert_eq!([1, 2, 3, 4, 8].map(|entries| seconds.of(entries)), [4.0, 4.0, 5.0, 6.0, 12.0]);
    }
}
