//! What all figures have in common: font, colours, markers, axes, legend.

use std::ops::Range;

use calm_core::Measure;
use plotters::coord::types::RangedCoordf64;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Area, Drawn};

/// Registered by [`super::draw_all`]; viewers of an SVG take their own font of this family.
pub(super) const FONT: &str = "sans-serif";

/// Text and axes.
pub(super) const INK: RGBColor = RGBColor(40, 40, 40);
/// Reference lines.
pub(super) const GREY: RGBColor = RGBColor(120, 120, 120);
const GRID: RGBColor = RGBColor(225, 225, 225);

const TEXT_SIZE: f64 = 12.0;
const TITLE_SIZE: f64 = 13.0;
const LINE_WIDTH: f64 = 1.8;
const BAND_OPACITY: f64 = 0.16;

/// The shape of a point, so that lines can be told apart without colours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Marker {
    None,
    Circle,
    Square,
    Triangle,
    Diamond,
    Star,
}

/// The look of a line and its points.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) colour: RGBColor,
    pub(super) marker: Marker,
    pub(super) line: Line,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Line {
    None,
    Solid,
    Dashed,
}

/// Okabe and Ito's colours, which remain distinct for colour-blind readers.
pub(super) fn look_of(measure: &str) -> Look {
    let (colour, marker) = match measure.parse() {
        Ok(Measure::Softmax) => (RGBColor(0, 114, 178), Marker::Circle),
        Ok(Measure::State) => (RGBColor(213, 94, 0), Marker::Square),
        Ok(Measure::Classifier) => (RGBColor(0, 158, 115), Marker::Triangle),
        Err(_) => (RGBColor(0, 0, 0), Marker::Diamond),
    };
    Look { colour, marker, line: Line::Solid }
}
/// Static depths.
pub(super) const STATIC: Look = Look { colour: INK, marker: Marker::Diamond, line: Line::Dashed };
/// The oracle's point.
pub(super) const ORACLE: Look =
    Look { colour: RGBColor(204, 121, 167), marker: Marker::Star, line: Line::None };
/// Reference lines such as the full model's quality.
pub(super) const REFERENCE: Look = Look { colour: GREY, marker: Marker::None, line: Line::Dashed };

/// An area with the scale it is drawn at.
pub(super) struct Canvas<'a, DB: DrawingBackend> {
    pub(super) area: &'a Area<DB>,
    pub(super) scale: f64,
}

/// One panel of a figure.
pub(super) struct Panel<'a> {
    /// Left, top, width, height in units of the figure.
    pub(super) place: (f64, f64, f64, f64),
    pub(super) title: &'a str,
    pub(super) x_label: &'a str,
    pub(super) y_label: &'a str,
    pub(super) x: Range<f64>,
    pub(super) y: Range<f64>,
    /// About how many numbers an axis has.
    pub(super) x_ticks: usize,
    pub(super) y_ticks: usize,
}

/// A point of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    /// Half the height of the band around the line; lines whose points have 0 have no band.
    pub(super) spread: f64,
    /// Drawn as an outline.
    pub(super) open: bool,
}

impl Point {
    pub(super) fn new(x: f64, y: f64) -> Self {
        Self { x, y, spread: 0.0, open: false }
    }
}

impl<DB: DrawingBackend> Canvas<'_, DB> {
    fn px(&self, units: f64) -> i32 {
        (units * self.scale).round() as i32
    }

    fn text_style(&self, size: f64) -> TextStyle<'static> {
        TextStyle::from((FONT, size * self.scale).into_font()).color(&INK)
    }

    /// Axes and grid of a panel, then bands, then lines. `lines` are drawn in order, the last one on top.
    pub(super) fn panel(&self, panel: &Panel<'_>, lines: &[(Look, Vec<Point>)]) -> Drawn<DB> {
        let (left, top, width, height) = panel.place;
        let place =
            self.area.clone().shrink((self.px(left), self.px(top)), (self.px(width), self.px(height)));
        let mut builder = ChartBuilder::on(&place);
        builder.margin_right(self.px(10.0)).margin_top(self.px(6.0));
        builder.x_label_area_size(self.px(40.0)).y_label_area_size(self.px(52.0));
        if !panel.title.is_empty() {
            let title = self.text_style(TITLE_SIZE);
            builder.caption(panel.title, title);
        }
        let mut chart = builder.build_cartesian_2d(panel.x.clone(), panel.y.clone())?;
        chart
            .configure_mesh()
            .x_desc(panel.x_label)
            .y_desc(panel.y_label)
            .x_labels(panel.x_ticks)
            .y_labels(panel.y_ticks)
            .x_label_formatter(&tick)
            .y_label_formatter(&tick)
            .max_light_lines(0)
            .bold_line_style(GRID.stroke_width(self.px(0.8).max(1) as u32))
            .axis_style(INK.stroke_width(self.px(1.0).max(1) as u32))
            .label_style(self.text_style(TEXT_SIZE))
            .axis_desc_style(self.text_style(TITLE_SIZE))
            .set_all_tick_mark_size(self.px(4.0))
            .draw()?;
        for (look, points) in lines.iter().filter(|(_, points)| points.iter().any(|point| point.spread > 0.0))
        {
            let edge = |sign: f64| {
                // A band is not drawn outside its panel.
                let height =
                    move |point: &Point| (point.y + sign * point.spread).clamp(panel.y.start, panel.y.end);
                points.iter().map(move |point| (point.x, height(point)))
            };
            let around = edge(1.0).chain(edge(-1.0).rev());
            let corners: Vec<(i32, i32)> = around.map(|corner| chart.backend_coord(&corner)).collect();
            self.area.draw(&Polygon::new(corners, look.colour.mix(BAND_OPACITY)))?;
        }
        for (look, points) in lines {
            self.line(look, &self.pixels(&chart, points))?;
        }
        Ok(())
    }

    fn pixels(
        &self,
        chart: &ChartContext<'_, DB, Cartesian2d<RangedCoordf64, RangedCoordf64>>,
        points: &[Point],
    ) -> Vec<((i32, i32), bool)> {
        points.iter().map(|point| (chart.backend_coord(&(point.x, point.y)), point.open)).collect()
    }

    /// A line through points in pixels, with its markers on top.
    fn line(&self, look: &Look, points: &[((i32, i32), bool)]) -> Drawn<DB> {
        let path: Vec<(i32, i32)> = points.iter().map(|(point, _)| *point).collect();
        let style = look.colour.stroke_width(self.px(LINE_WIDTH).max(1) as u32);
        match look.line {
            Line::None => {}
            Line::Solid => self.area.draw(&PathElement::new(path, style))?,
            Line::Dashed => {
                let (dash, gap) = (self.px(5.0), self.px(4.0));
                self.area.draw(&DashedPathElement::new(path, dash, gap, style))?;
            }
        }
        for (point, open) in points {
            self.marker(look, *point, *open)?;
        }
        Ok(())
    }

    fn marker(&self, look: &Look, (x, y): (i32, i32), open: bool) -> Drawn<DB> {
        let size = self.scale * if look.marker == Marker::Star { 7.5 } else { 3.8 };
        let corners: Vec<(f64, f64)> = match look.marker {
            Marker::None => return Ok(()),
            Marker::Circle => regular(24, 0.0, &[1.0]),
            Marker::Square => regular(4, 0.125, &[1.25]),
            Marker::Triangle => regular(3, 0.25, &[1.35]),
            Marker::Diamond => regular(4, 0.0, &[1.3]),
            Marker::Star => regular(10, 0.25, &[1.0, 0.42]),
        };
        let at = |grown: f64| -> Vec<(i32, i32)> {
            let corner = |(dx, dy): &(f64, f64)| {
                (x + (dx * size * grown).round() as i32, y - (dy * size * grown).round() as i32)
            };
            corners.iter().map(corner).collect()
        };
        self.area.draw(&Polygon::new(at(1.0), look.colour.filled()))?;
        if open { self.area.draw(&Polygon::new(at(0.55), WHITE.filled())) } else { Ok(()) }
    }

    /// Entries one below the other, from `(left, top)` in units of the figure.
    pub(super) fn legend(&self, (left, top): (f64, f64), entries: &[(Look, bool, String)]) -> Drawn<DB> {
        for (index, (look, open, text)) in entries.iter().enumerate() {
            let (x, y) = (self.px(left), self.px(top + 20.0 * index as f64));
            let end = self.px(left + 30.0);
            let middle = (x + end) / 2;
            self.line(&Look { marker: Marker::None, ..*look }, &[((x, y), false), ((end, y), false)])?;
            self.marker(look, (middle, y), *open)?;
            let style = self.text_style(TEXT_SIZE).pos(Pos::new(HPos::Left, VPos::Center));
            // Between letters with and without a descender.
            let text_y = y + self.px(1.5);
            self.area.draw(&Text::new(text.clone(), (self.px(left + 38.0), text_y), style))?;
        }
        Ok(())
    }
}

/// Corners around the unit circle from `turn` (in full turns) on, at the radii in turn.
fn regular(corners: usize, turn: f64, radii: &[f64]) -> Vec<(f64, f64)> {
    let corner = |index: usize| {
        let angle = std::f64::consts::TAU * (turn + index as f64 / corners as f64);
        let radius = radii[index % radii.len()];
        (radius * angle.cos(), radius * angle.sin())
    };
    (0..corners).map(corner).collect()
}

/// Numbers on an axis, without the zeros that floating point adds.
fn tick(value: &f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// The name of a measure in a legend.
pub(super) fn measure_label(measure: &str, decay: Option<f64>) -> String {
    match decay {
        Some(decay) if decay > 0.0 => format!("{measure} (τ = {decay})"),
        _ => measure.to_owned(),
    }
}
