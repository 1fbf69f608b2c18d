//! How lines and points look.

use plotters::style::RGBColor;

use crate::palette;

/// The look of a line and its points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// The colour of the line and its points.
    pub colour: RGBColor,
    /// The shape of the points.
    pub marker: Marker,
    /// The line through the points.
    pub line: Line,
}

/// The shape of a point, so that lines can be told apart without colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the shapes")]
pub enum Marker {
    None,
    Circle,
    Square,
    Triangle,
    Diamond,
    Star,
}

/// The line through the points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the patterns")]
pub enum Line {
    None,
    Solid,
    Dashed,
}

/// The look of reference lines such as the full model's quality.
pub const REFERENCE: Look = Look { colour: palette::GREY, marker: Marker::None, line: Line::Dashed };

impl Look {
    /// Makes the look of a solid line without markers.
    pub fn solid(colour: RGBColor) -> Self {
        Self { colour, marker: Marker::None, line: Line::Solid }
    }
}
