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

/// Five colours of matplotlib's viridis at equal distances. Its lightness grows evenly, so that it is in
/// order for colour-blind readers and in print too.
const VIRIDIS: [RGBColor; 5] = [
    RGBColor(68, 1, 84),
    RGBColor(59, 82, 139),
    RGBColor(33, 145, 140),
    RGBColor(94, 201, 98),
    RGBColor(253, 231, 37),
];

/// Returns a colour for each of several things without an order; from the eighth on the colours repeat.
pub fn categorical(index: usize) -> RGBColor {
    [BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY_BLUE, BLACK][index % 7]
}

/// Returns a colour for the `index`-th of `count` things with an order, from light blue (0) to dark blue
/// (`count` - 1).
///
/// If there is only one thing, it is dark.
pub fn sequential(index: usize, count: usize) -> RGBColor {
    between(&BLUES, index, count)
}

/// Returns a colour for the `index`-th of `count` things with an order, from dark violet (0) over green to
/// light yellow (`count` - 1), where more than a few have to be told apart.
///
/// If there is only one thing, it is light.
pub fn viridis(index: usize, count: usize) -> RGBColor {
    between(&VIRIDIS, index, count)
}

/// Whether black text on a colour has more contrast than white text, by the relative luminance of WCAG 2. The
/// contrast of the better one is never below 4.5.
pub fn is_light(RGBColor(red, green, blue): RGBColor) -> bool {
    let linear = |value: u8| {
        let value = f64::from(value) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    let luminance = 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
    // Where (luminance + 0.05) / 0.05 and 1.05 / (luminance + 0.05) are equal.
    luminance > 0.179
}

/// Returns the `index`-th of `count` colours at equal distances from the first of `colours` to the last.
fn between(colours: &[RGBColor], index: usize, count: usize) -> RGBColor {
    let (steps, last) = (colours.len() - 1, count.saturating_sub(1));
    let position = if last == 0 { steps as f64 } else { steps as f64 * index.min(last) as f64 / last as f64 };
    let below = (position as usize).min(steps - 1);
    let (from, to, part) = (colours[below], colours[below + 1], position - below as f64);
    let mix = |from: u8, to: u8| (f64::from(from) + part * (f64::from(to) - f64::from(from))).round() as u8;
    RGBColor(mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}
