use calm_plots::RGBColor;
use calm_plots::palette::{self, categorical, sequential};

/// Computes the relative luminance (ITU-R BT.709), from 0 to 255.
fn luminance(RGBColor(red, green, blue): RGBColor) -> f64 {
    0.2126 * f64::from(red) + 0.7152 * f64::from(green) + 0.0722 * f64::from(blue)
}

#[test]
fn sequential_colours_get_darker_and_stay_visible_on_white() {
    for count in 1..=24 {
        let luminances: Vec<f64> = (0..count).map(|index| luminance(sequential(index, count))).collect();
        assert!(luminances.is_sorted_by(|a, b| a > b), "{count}: {luminances:?}");
        assert!(luminances[0] < 210.0, "{count}: {luminances:?}");
        assert_eq!(sequential(count - 1, count), sequential(0, 1), "the last one is the darkest of all");
    }
    assert_eq!(sequential(9, 3), sequential(2, 3), "an index too large is the last one");
}

#[test]
fn categorical_colours_are_distinct_until_they_repeat() {
    let colours: Vec<RGBColor> = (0..14).map(categorical).collect();
    for index in 0..7 {
        assert!(!colours[..index].contains(&colours[index]), "{index}");
        assert_eq!(colours[index], colours[index + 7]);
    }
}

/// The lightness of viridis grows, and text on each of its colours has enough contrast in black or in white.
#[test]
fn viridis_is_in_order_and_can_be_written_on() {
    let linear = |value: u8| {
        let value = f64::from(value) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    for count in [1, 2, 8, 30] {
        let colours: Vec<RGBColor> = (0..count).map(|index| palette::viridis(index, count)).collect();
        let luminance = |RGBColor(red, green, blue): &RGBColor| {
            0.2126 * linear(*red) + 0.7152 * linear(*green) + 0.0722 * linear(*blue)
        };
        assert!(colours.is_sorted_by(|a, b| luminance(a) < luminance(b)), "{count}");
        for colour in &colours {
            let contrast = match palette::is_light(*colour) {
                true => (luminance(colour) + 0.05) / 0.05,
                false => 1.05 / (luminance(colour) + 0.05),
            };
            assert!(contrast >= 4.5, "{colour:?}: {contrast}");
        }
    }
}
