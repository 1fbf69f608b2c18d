use calm_plots::RGBColor;
use calm_plots::palette::{categorical, sequential};

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
