//! The colours of all figures.

use plotters::style::RGBColor;

/// Colour of text and axes.
pub const INK: RGBColor = RGBColor(40, 40, 40);
/// Colour of reference lines.
pub const GREY: RGBColor = RGBColor(120, 120, 120);
/// Colour of the lines behind a panel at the numbers of its axes.
pub(crate) const GRID: RGBColor = RGBColor(225, 225, 225);

// Okabe and Ito's colours remain distinct for colour-blind readers. Their yellow is left out, since it is too
// faint for lines on white.

/// Okabe and Ito's black.
pub const BLACK: RGBColor = RGBColor(0, 0, 0);
/// Okabe and Ito's blue.
pub const BLUE: RGBColor = RGBColor(0, 114, 178);
/// Okabe and Ito's vermillion.
pub const VERMILLION: RGBColor = RGBColor(213, 94, 0);
/// Okabe and Ito's bluish green.
pub const GREEN: RGBColor = RGBColor(0, 158, 115);
/// Okabe and Ito's reddish purple.
pub const PURPLE: RGBColor = RGBColor(204, 121, 167);
/// Okabe and Ito's orange.
pub const ORANGE: RGBColor = RGBColor(230, 159, 0);
/// Okabe and Ito's sky blue.
pub const SKY_BLUE: RGBColor = RGBColor(86, 180, 233);

/// The ends and the middle of [`sequential`], from ColorBrewer's Blues.
const BLUES: [RGBColor; 3] = [RGBColor(170, 207, 230), RGBColor(66, 146, 198), RGBColor(8, 48, 107)];

/// Returns a colour for each of several things without an order; from the eighth on the colours repeat.
pub fn categorical(index: usize) -> RGBColor {
    [BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY_BLUE, BLACK][index % 7]
}

/// Returns a colour for the `index`-th of `count` things with an order, from light blue (0) to dark blue
/// (`count` - 1).
///
/// If there is only one thing, it is dark.
pub fn sequential(index: usize, count: usize) -> RGBColor {
    let last = count.saturating_sub(1);
    let position = if last == 0 { 2.0 } else { 2.0 * index.min(last) as f64 / last as f64 };
    let (from, to, part) =
        if position < 1.0 { (BLUES[0], BLUES[1], position) } else { (BLUES[1], BLUES[2], position - 1.0) };
    let mix = |from: u8, to: u8| (f64::from(from) + part * (f64::from(to) - f64::from(from))).round() as u8;
    RGBColor(mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}
