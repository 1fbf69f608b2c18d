//! Sums of exponentials, panel by panel, so that they are the same for any number of threads.

use crate::elementwise::{exp, sum};
use crate::linear::Processor;
use crate::panels::PANEL;
use crate::simd::{Simd, with_simd};
use crate::team::{Columns, bounds};

/// Sums up e^(logit - best) in each panel.
pub(super) fn panel_sums(processor: &Processor, logits: &[f32], best: f32) -> Vec<f32> {
    let mut sums = vec![0.0; logits.len() / PANEL];
    let count = sums.len();
    let bounds = bounds(count, 1, processor.team.threads());
    let mut parts = Columns::split(&mut sums, count, &bounds);
    processor.team.each(&mut parts, |part, _| {
        with_simd!(processor.set, sums_part(logits: &[f32], best: f32, part: &mut Columns<'_>));
    });
    sums
}

#[inline(always)]
fn sums_part<S: Simd>(logits: &[f32], best: f32, part: &mut Columns<'_>) {
    let panels = logits.chunks_exact(PANEL).skip(part.range.start);
    for (logits, total) in panels.zip(part.row(0)) {
        *total = sum_of_exponentials(logits, best);
    }
}

/// Sums up e^(logit - best) in one panel.
#[inline(always)]
pub(super) fn sum_of_exponentials(logits: &[f32], best: f32) -> f32 {
    let mut exponentials = [0.0; PANEL];
    for (exponential, logit) in exponentials.iter_mut().zip(logits) {
        *exponential = exp(logit - best);
    }
    sum(&exponentials)
}
