//! How a policy looks in all figures.

use calm_core::MEASURES;
use calm_plots::{Line, Look, Marker, palette};

/// Static depths.
pub(super) const STATIC: Look = Look { colour: palette::INK, marker: Marker::Diamond, line: Line::Dashed };
/// The oracle's point.
pub(super) const ORACLE: Look = Look { colour: palette::PURPLE, marker: Marker::Star, line: Line::None };

/// Colours and markers of the measures in the order of their table, from the start again where there are
/// more.
const MEASURES_IN_ORDER: [Look; 6] = [
    Look { colour: palette::BLUE, marker: Marker::Circle, line: Line::Solid },
    Look { colour: palette::SKY_BLUE, marker: Marker::Diamond, line: Line::Solid },
    Look { colour: palette::VERMILLION, marker: Marker::Square, line: Line::Solid },
    Look { colour: palette::GREEN, marker: Marker::Triangle, line: Line::Solid },
    Look { colour: palette::ORANGE, marker: Marker::Circle, line: Line::Solid },
    Look { colour: palette::BLACK, marker: Marker::Square, line: Line::Solid },
];

/// The look of a confidence measure.
pub(super) fn look_of(measure: &str) -> Look {
    let place = MEASURES.all().iter().position(|kind| kind.name == measure);
    MEASURES_IN_ORDER[place.unwrap_or_default() % MEASURES_IN_ORDER.len()]
}

/// The look of a policy that is one point, by its number among these.
pub(super) fn look_of_point(number: usize) -> Look {
    // Backwards, so that few of them look like a measure.
    let like = MEASURES_IN_ORDER[MEASURES_IN_ORDER.len() - 1 - number % MEASURES_IN_ORDER.len()];
    Look { marker: Marker::Star, line: Line::None, ..like }
}

/// The name of a measure in a legend.
pub(super) fn measure_label(measure: &str, decay: Option<f64>, exits: Option<&str>) -> String {
    let decay = decay.filter(|decay| *decay > 0.0).map(|decay| format!("τ = {decay}"));
    let exits = exits.map(|exits| format!("at {exits}"));
    let parts: Vec<String> = decay.into_iter().chain(exits).collect();
    if parts.is_empty() { measure.to_owned() } else { format!("{measure} ({})", parts.join(", ")) }
}
