//! How a policy looks in all figures.

use calm_core::{MEASURES, POLICIES, PolicySpec};
use calm_plots::{Line, Look, Marker, REFERENCE, palette};

/// Static depths.
pub(super) const STATIC: Look = Look { colour: palette::INK, marker: Marker::Diamond, line: Line::Dashed };
/// The oracle's point.
pub(crate) const ORACLE: Look = Look { colour: palette::PURPLE, marker: Marker::Star, line: Line::None };

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

/// The look of a family of policies: that of its measure, with a broken line for policies other than calm.
pub(crate) fn look_of(family: &str) -> Look {
    let Ok(policy) = PolicySpec::of_family(family, 1.0) else { return REFERENCE };
    let measure = policy.parameters().measure;
    let place = MEASURES.all().iter().position(|&kind| Some(kind) == measure);
    let look = MEASURES_IN_ORDER[place.unwrap_or_default() % MEASURES_IN_ORDER.len()];
    let kinds = POLICIES.all().into_iter().filter(|kind| kind.defers);
    match kinds.map(|kind| kind.name).position(|name| name == policy.kind().name) {
        None => look,
        Some(0) => Look { line: Line::Dashed, ..look },
        Some(index) => {
            let like = MEASURES_IN_ORDER[(index + 2) % MEASURES_IN_ORDER.len()];
            Look { line: Line::Dashed, ..like }
        }
    }
}

/// The look of a method in a comparison, by its number among these: all differ in colour or marker.
pub(crate) fn look_of_method(number: usize) -> Look {
    const MARKERS: [Marker; 5] =
        [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::Star];
    let colours = MEASURES_IN_ORDER.len();
    // Five markers and six colours have no common factor: 30 pairs before any comes again.
    let Look { colour, .. } = MEASURES_IN_ORDER[number % colours];
    Look { colour, marker: MARKERS[number % MARKERS.len()], line: Line::None }
}

/// The look of a policy that is one point, by its number among these.
pub(super) fn look_of_point(number: usize) -> Look {
    // Backwards, so that few of them look like a measure.
    let like = MEASURES_IN_ORDER[MEASURES_IN_ORDER.len() - 1 - number % MEASURES_IN_ORDER.len()];
    Look { marker: Marker::Star, line: Line::None, ..like }
}
