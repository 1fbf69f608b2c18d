//! Finds the part of a line that lies within its panel.

use std::ops::Range;

use crate::canvas::Point;

/// Whether a point is drawn.
pub(crate) fn is_inside(point: &Point, y: &Range<f64>) -> bool {
    (y.start..=y.end).contains(&point.y)
}

/// Cuts the line through `points` into pieces with heights in `y`, where it crosses an edge.
///
/// A point that is not finite interrupts the line.
pub(crate) fn pieces(points: &[Point], y: &Range<f64>) -> Vec<Vec<(f64, f64)>> {
    if points.iter().all(|point| is_inside(point, y)) {
        return vec![points.iter().map(|point| (point.x, point.y)).collect()];
    }
    let mut pieces: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut continues = false;
    for (a, b) in points.iter().zip(points.iter().skip(1)) {
        let Some((from, to)) = visible_part(a.y, b.y, y) else {
            continues = false;
            continue;
        };
        let at = |part: f64| (a.x + part * (b.x - a.x), a.y + part * (b.y - a.y));
        match pieces.last_mut() {
            Some(piece) if continues && from == 0.0 => piece.push(at(to)),
            _ => pieces.push(vec![at(from), at(to)]),
        }
        continues = to == 1.0;
    }
    pieces
}

/// Finds the visible part of a segment from the height `a` to the height `b`.
///
/// Returns its start and end, in 0..=1.
fn visible_part(a: f64, b: f64, y: &Range<f64>) -> Option<(f64, f64)> {
    if !(a.is_finite() && b.is_finite()) {
        return None;
    }
    if a == b {
        return (y.start..=y.end).contains(&a).then_some((0.0, 1.0));
    }
    let crossing = |edge: f64| (edge - a) / (b - a);
    let (start, end) = (crossing(y.start), crossing(y.end));
    let (from, to) = (start.min(end).max(0.0), start.max(end).min(1.0));
    (from < to).then_some((from, to))
}
