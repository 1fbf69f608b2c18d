//! How a policy looks in all figures.

use calm_core::Measure;
use calm_plots::{Line, Look, Marker, palette};

/// Static depths.
pub(super) const STATIC: Look = Look { colour: palette::INK, marker: Marker::Diamond, line: Line::Dashed };
/// The oracle's point.
pub(super) const ORACLE: Look = Look { colour: palette::PURPLE, marker: Marker::Star, line: Line::None };

/// The look of a confidence measure.
pub(super) fn look_of(measure: &str) -> Look {
    let (colour, marker) = match measure.parse() {
        Ok(Measure::Softmax) => (palette::BLUE, Marker::Circle),
        Ok(Measure::Pruned) => (palette::SKY_BLUE, Marker::Diamond),
        Ok(Measure::State) => (palette::VERMILLION, Marker::Square),
        Ok(Measure::Classifier) => (palette::GREEN, Marker::Triangle),
        Err(_) => (palette::BLACK, Marker::Diamond),
    };
    Look { colour, marker, line: Line::Solid }
}

/// The name of a measure in a legend.
pub(super) fn measure_label(measure: &str, decay: Option<f64>) -> String {
    match decay {
        Some(decay) if decay > 0.0 => format!("{measure} (τ = {decay})"),
        _ => measure.to_owned(),
    }
}
