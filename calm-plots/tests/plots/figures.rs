use std::fs;
use std::ops::RangeInclusive;

use calm_plots::{
    Canvas, Chart, DrawingBackend, Drawn, Error, Figure, LegendEntry, Line, Look, Marker, Panel, Place,
    Point, REFERENCE, legend_width, palette, save,
};
use tempfile::TempDir;

const BLUE: &str = "#0072B2";
/// The place of a panel whose axes go from 0 to 10 and from 0 to 1.
const PLACE: Place = Place { left: 20.0, top: 10.0, width: 200.0, height: 180.0 };

struct OnePanel {
    lines: Vec<(Look, Vec<Point>)>,
    legend: Vec<LegendEntry>,
}

impl OnePanel {
    fn of(look: Look, points: &[(f64, f64)]) -> Self {
        let points = points.iter().map(|&(x, y)| Point::new(x, y)).collect();
        Self { lines: vec![(look, points)], legend: Vec::new() }
    }

    fn svg(&self) -> String {
        let folder = TempDir::new().unwrap();
        let [svg, _] = save(self, folder.path()).unwrap();
        fs::read_to_string(svg).unwrap()
    }
}

impl Figure for OnePanel {
    fn name(&self) -> &str {
        "one_panel"
    }

    fn size(&self) -> (u32, u32) {
        (320, 200)
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>) -> Drawn<DB> {
        let panel = Panel {
            place: PLACE,
            title: "",
            x_label: "across",
            y_label: "upwards",
            x: 0.0..10.0,
            y: 0.0..1.0,
            x_ticks: 5,
            y_ticks: 5,
        };
        canvas.panel(&panel, &self.lines)?;
        canvas.legend(230.0, 30.0, &self.legend)
    }
}

/// Finds the points of all elements `name` of a colour, in units of the figure: an SVG has ten steps for
/// each.
fn shapes(svg: &str, name: &str, colour: &str) -> Vec<Vec<(f64, f64)>> {
    let elements = svg.lines().filter(|line| line.starts_with(&format!("<{name} ")) && line.contains(colour));
    let number = |text: &str| text.parse::<f64>().unwrap() / 10.0;
    let points = |element: &str| {
        let (_, points) = element.split_once("points=\"").unwrap();
        let pairs = points.split_once('"').unwrap().0.split_whitespace();
        pairs.map(|pair| pair.split_once(',').map(|(x, y)| (number(x), number(y))).unwrap()).collect()
    };
    elements.map(points).collect()
}

/// Finds the heights of both ends of the vertical axis, from a line drawn at each of them.
fn edges() -> (f64, f64) {
    let look = Look::solid(palette::BLUE);
    let height = |y| shapes(&OnePanel::of(look, &[(0.0, y), (10.0, y)]).svg(), "polyline", BLUE)[0][0].1;
    (height(1.0), height(0.0))
}

#[test]
fn a_figure_is_saved_as_svg_and_png_of_its_size_with_nothing_beside_them() {
    let folder = TempDir::new().unwrap();
    let folder = folder.path().join("made/on/demand");
    let figure = OnePanel {
        legend: vec![LegendEntry::new(REFERENCE, "a < b & c"), LegendEntry::new(REFERENCE, "δ = 0.1")],
        ..OnePanel::of(Look::solid(palette::BLUE), &[(0.0, 0.0), (10.0, 1.0)])
    };
    let files = save(&figure, &folder).unwrap();
    assert_eq!(files, [folder.join("one_panel.svg"), folder.join("one_panel.png")]);
    let first = files.each_ref().map(|file| fs::read(file).unwrap());

    let svg = String::from_utf8(first[0].clone()).unwrap();
    assert!(svg.starts_with("<svg width=\"320\" height=\"200\" viewBox=\"0 0 3200 2000\""));
    for text in ["across", "upwards", "a &lt; b &amp; c", "δ = 0.1"] {
        assert!(svg.contains(text), "{text}");
    }
    // A PNG has a signature, then the first chunk: its length and name, then width and height.
    assert!(first[1].starts_with(b"\x89PNG\r\n\x1a\n"));
    assert_eq!(first[1][16..24], [0, 0, 2, 128, 0, 0, 1, 144]);

    save(&figure, &folder).unwrap();
    assert_eq!(files.each_ref().map(|file| fs::read(file).unwrap()), first, "drawn again");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
}

#[test]
fn obstacles_are_named() {
    let folder = TempDir::new().unwrap();
    let figure = OnePanel::of(REFERENCE, &[]);
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let cases = [
        (file.clone(), file.join("one_panel.svg")),
        (folder.path().join("svg"), folder.path().join("svg/one_panel.svg")),
        (folder.path().join("png"), folder.path().join("png/one_panel.png")),
    ];
    for (target, blamed) in cases {
        if target != file {
            fs::create_dir_all(&blamed).unwrap();
        }
        let error = save(&figure, &target).unwrap_err();
        assert!(
            matches!(&error, Error::File(calm_files::Error::Write { path, .. }) if *path == blamed),
            "{error}"
        );
        assert!(error.to_string().contains(&blamed.display().to_string()), "{error}");
        if target != file {
            let left = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name());
            assert!(left.into_iter().all(|name| !name.display().to_string().contains("tmp")));
        }
    }
}

#[test]
fn lines_are_cut_at_the_edges_of_their_panel() {
    let (top, bottom) = edges();
    assert!(top < bottom);
    let nan = f64::NAN;
    let cases: [(&str, &[f64], &[usize], usize); 9] = [
        ("inside", &[0.2, 0.4, 1.0, 0.0], &[4], 4),
        ("from far above", &[90.0, 0.5, 0.4], &[3], 2),
        ("above in the middle", &[0.5, 3.0, 4.0, 0.5], &[2, 2], 2),
        ("through both edges", &[-5.0, 5.0], &[2], 0),
        ("touching the edge from outside", &[2.0, 1.0, 2.0], &[], 1),
        ("outside", &[2.0, 3.0, -1.0], &[2], 0),
        ("interrupted", &[0.1, 0.2, nan, 0.3, 0.4], &[2, 2], 4),
        ("infinite", &[f64::INFINITY, 0.2, 0.3], &[2], 2),
        ("alone", &[nan, 0.2, nan], &[], 1),
    ];
    let look = Look { marker: Marker::Square, ..Look::solid(palette::BLUE) };
    for (name, heights, pieces, markers) in cases {
        let points: Vec<(f64, f64)> = (0..).map(f64::from).zip(heights.iter().copied()).collect();
        let svg = OnePanel::of(look, &points).svg();
        let lines = shapes(&svg, "polyline", BLUE);
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), pieces, "{name}: {lines:?}");
        assert!(lines.iter().flatten().all(|(_, y)| (top..=bottom).contains(y)), "{name}: {lines:?}");
        assert_eq!(shapes(&svg, "polygon", BLUE).len(), markers, "{name}");
    }
}

#[test]
fn a_cut_line_is_where_the_whole_one_was() {
    let (top, bottom) = edges();
    let look = Look::solid(palette::BLUE);
    let of = |points: &[(f64, f64)]| shapes(&OnePanel::of(look, points).svg(), "polyline", BLUE);
    assert_eq!(of(&[(0.0, 3.0), (4.0, -1.0)]), of(&[(2.0, 1.0), (3.0, 0.0)]));
    assert_eq!(of(&[(0.0, -1.0), (8.0, 1.0)])[0][0].1, bottom);
    assert_eq!(of(&[(0.0, 0.0), (8.0, 2.0)])[0][1].1, top);
}

#[test]
fn looks_tell_lines_apart() {
    let points = [(0.0, 0.5), (10.0, 0.5)];
    let lines = |line| {
        let look = Look { line, ..Look::solid(palette::BLUE) };
        shapes(&OnePanel::of(look, &points).svg(), "polyline", BLUE).len()
    };
    assert_eq!((lines(Line::None), lines(Line::Solid)), (0, 1));
    assert!(lines(Line::Dashed) > 10);
    let markers = [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond, Marker::Star];
    for (marker, corners) in markers.into_iter().zip([24, 4, 3, 4, 10]) {
        let mut figure = OnePanel::of(Look { marker, ..Look::solid(palette::BLUE) }, &points);
        let shape = shapes(&figure.svg(), "polygon", BLUE);
        assert_eq!(shape.iter().map(Vec::len).collect::<Vec<_>>(), [corners; 2], "{marker:?}");
        figure.lines[0].1[0].open = true;
        assert_eq!(shapes(&figure.svg(), "polygon", "#FFFFFF").len(), 1, "{marker:?}");
    }
}

#[test]
fn a_band_stays_in_its_panel() {
    let (top, bottom) = edges();
    let mut figure = OnePanel::of(Look::solid(palette::BLUE), &[(0.0, 0.1), (5.0, 0.5), (10.0, 0.9)]);
    figure.lines[0].1.iter_mut().for_each(|point| point.spread = 0.3);
    let bands = shapes(&figure.svg(), "polygon", BLUE);
    assert_eq!(bands.len(), 1);
    let heights: Vec<f64> = bands[0].iter().map(|(_, y)| *y).collect();
    assert_eq!(heights.len(), 6);
    let middle = heights[1]..=heights[4];
    let panel: RangeInclusive<f64> = top..=bottom;
    assert!(heights.iter().all(|y| panel.contains(y)) && middle.contains(&f64::midpoint(top, bottom)));
    assert_eq!((heights[2], heights[5]), (top, bottom));
}

#[test]
fn a_legend_is_as_wide_as_its_longest_text() {
    let entries = |texts: &[&str]| {
        texts.iter().map(|&text| LegendEntry::new(REFERENCE, text)).collect::<Vec<LegendEntry>>()
    };
    let width = |texts: &[&str]| legend_width(&entries(texts));
    assert_eq!(width(&["exit 1", "validation"]), width(&["validation"]));
    assert!(width(&["exit 1"]) < width(&["exit 10"]));
    assert_eq!(width(&["τ"]), width(&["t"]), "characters, not bytes");
}

/// In a page a chart has the page's colours for text and background, and its own for lines.
#[test]
fn a_chart_of_a_page_takes_its_colours_from_the_page() {
    let chart = Chart {
        title: String::new(),
        x_label: "across".to_owned(),
        y_label: "a < b".to_owned(),
        x: 0.0..10.0,
        y: 0.0..1.0,
        x_ticks: 5,
        y_ticks: 5,
        lines: vec![(
            Look { marker: Marker::Circle, ..Look::solid(palette::BLUE) },
            vec![Point::new(0.0, 0.0), Point { open: true, ..Point::new(10.0, 1.0) }],
        )],
        legend: vec![LegendEntry::new(Look::solid(palette::BLUE), "blue")],
    };
    let svg = chart.inline_svg((320, 200), "a \"line\" & more").unwrap();
    assert!(svg.starts_with(
        "<svg viewBox=\"0 0 3200 2000\" role=\"img\" aria-label=\"a &quot;line&quot; &amp; more\">"
    ));
    assert!(svg.ends_with("</svg>"));
    for part in [BLUE, "currentColor", "class=\"grid\"", "class=\"page\"", "across", "a &lt; b"] {
        assert!(svg.contains(part), "{part}");
    }
    for part in ["#FFFFFF", "#282828", "font-family", "xmlns", "http"] {
        assert!(!svg.contains(part), "{part}");
    }
    let swatch = chart.legend[0].swatch_svg().unwrap();
    assert!(swatch.contains(BLUE) && swatch.contains("aria-hidden") && !swatch.contains("blue"));
}
