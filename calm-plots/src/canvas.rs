//! What figures consist of: panels with axes and lines, and legends.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::clip::{is_inside, pieces};
use crate::look::{Line, Look, Marker};
use crate::palette::{GRID, INK};

/// The font family, which is registered before anything is drawn.
///
/// Viewers of an SVG take their own font of it.
pub(crate) const FONT: &str = "sans-serif";

const TEXT_SIZE: f64 = 12.0;
const TITLE_SIZE: f64 = 13.0;
const LINE_WIDTH: f64 = 1.8;
const BAND_OPACITY: f64 = 0.16;

/// Distance from one entry of a legend to the next.
const ENTRY_HEIGHT: f64 = 20.0;
/// Distance from the left edge of an entry of a legend to its text.
const ENTRY_INDENT: f64 = 38.0;

pub(crate) type Area<DB> = DrawingArea<DB, Shift>;

/// The result of drawing, whose error is that of the format.
pub type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

/// The area that a figure draws on. All lengths are in units of the figure, from its top left corner.
pub struct Canvas<'a, DB: DrawingBackend> {
    area: &'a Area<DB>,
    /// Size of a unit, in what the format calls a pixel.
    scale: f64,
}

/// One panel of a figure.
#[derive(Debug, Clone)]
pub struct Panel<'a> {
    /// The rectangle of the panel, with everything that is written around its axes.
    pub place: Place,
    /// The text above the axes, which may be empty.
    pub title: &'a str,
    /// The text below the horizontal axis.
    pub x_label: &'a str,
    /// The text next to the vertical axis.
    pub y_label: &'a str,
    /// The horizontal axis, which has to reach over all points.
    pub x: Range<f64>,
    /// The vertical axis. Parts of lines that are above or below it are not drawn.
    pub y: Range<f64>,
    /// Approximate number of numbers on the horizontal axis.
    pub x_ticks: usize,
    /// Approximate number of numbers on the vertical axis.
    pub y_ticks: usize,
}

/// A rectangle, in units of the figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// Position of the left edge.
    pub left: f64,
    /// Position of the upper edge, from the top.
    pub top: f64,
    /// Distance from left to right.
    pub width: f64,
    /// Distance from top to bottom.
    pub height: f64,
}

/// A point of a line, in units of the axes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Position along the horizontal axis.
    pub x: f64,
    /// Position along the vertical axis.
    pub y: f64,
    /// Half the height of the band around the line. Lines whose points all have 0 have no band.
    pub spread: f64,
    /// Whether the point is drawn as an outline.
    pub open: bool,
}

/// A line of a legend.
#[derive(Debug, Clone, PartialEq)]
pub struct LegendEntry {
    /// Look of the line and of the marker on it.
    pub look: Look,
    /// Whether the marker is drawn as an outline.
    pub open: bool,
    /// Description of the line.
    pub text: String,
}

impl Point {
    /// Creates a filled point without a band.
    pub fn new(x: f64, y: f64) -> Self {
        Self { x, y, spread: 0.0, open: false }
    }
}

impl LegendEntry {
    /// Creates an entry with a filled marker.
    pub fn new(look: Look, text: impl Into<String>) -> Self {
        Self { look, open: false, text: text.into() }
    }
}

/// Estimates the width of a legend, in units of the figure. Viewers of an SVG have a font of their own.
pub fn legend_width(entries: &[LegendEntry]) -> f64 {
    // In DejaVu Sans the mean letter is 0.46 of the size in plotters' sense wide, and few fonts are wider.
    let characters = entries.iter().map(|entry| entry.text.chars().count()).max().unwrap_or(0);
    ENTRY_INDENT + 0.5 * TEXT_SIZE * characters as f64
}

type Chart<'a, DB> = ChartContext<'a, DB, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

impl<'a, DB: DrawingBackend> Canvas<'a, DB> {
    pub(crate) fn new(area: &'a Area<DB>, scale: f64) -> Self {
        Self { area, scale }
    }

    /// Draws axes and grid of a panel, then bands, then lines.
    ///
    /// `lines` are drawn in order, the last one on top. A point that is not finite interrupts its line.
    ///
    /// # Errors
    /// Fails if the canvas cannot be drawn on.
    pub fn panel(&self, panel: &Panel<'_>, lines: &[(Look, Vec<Point>)]) -> Drawn<DB> {
        let Place { left, top, width, height } = panel.place;
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
                // The band is not drawn outside its panel.
                let height =
                    move |point: &Point| (point.y + sign * point.spread).clamp(panel.y.start, panel.y.end);
                points.iter().map(move |point| (point.x, height(point)))
            };
            let around = edge(1.0).chain(edge(-1.0).rev());
            let corners: Vec<(i32, i32)> = around.map(|corner| chart.backend_coord(&corner)).collect();
            self.area.draw(&Polygon::new(corners, look.colour.mix(BAND_OPACITY)))?;
        }
        for (look, points) in lines {
            self.line(look, points, panel, &chart)?;
        }
        Ok(())
    }

    /// Draws a legend: entries one below the other, with the line of the first one at `top`.
    ///
    /// # Errors
    /// Fails if the canvas cannot be drawn on.
    pub fn legend(&self, left: f64, top: f64, entries: &[LegendEntry]) -> Drawn<DB> {
        for (index, LegendEntry { look, open, text }) in entries.iter().enumerate() {
            let (x, y) = (self.px(left), self.px(top + ENTRY_HEIGHT * index as f64));
            let end = self.px(left + 30.0);
            let middle = (x + end) / 2;
            self.path(look, vec![(x, y), (end, y)])?;
            self.marker(look, (middle, y), *open)?;
            let style = self.text_style(TEXT_SIZE).pos(Pos::new(HPos::Left, VPos::Center));
            // The line then passes between the middles of letters with and without a descender.
            let text_y = y + self.px(1.5);
            self.area.draw(&Text::new(text.clone(), (self.px(left + ENTRY_INDENT), text_y), style))?;
        }
        Ok(())
    }

    fn px(&self, units: f64) -> i32 {
        (units * self.scale).round() as i32
    }

    fn text_style(&self, size: f64) -> TextStyle<'static> {
        TextStyle::from((FONT, size * self.scale).into_font()).color(&INK)
    }

    /// Draws a line with its markers on top.
    fn line(&self, look: &Look, points: &[Point], panel: &Panel<'_>, chart: &Chart<'_, DB>) -> Drawn<DB> {
        for piece in pieces(points, &panel.y) {
            self.path(look, piece.iter().map(|point| chart.backend_coord(point)).collect())?;
        }
        for point in points.iter().filter(|point| is_inside(point, &panel.y)) {
            self.marker(look, chart.backend_coord(&(point.x, point.y)), point.open)?;
        }
        Ok(())
    }

    /// Draws a line through points in pixels.
    fn path(&self, look: &Look, path: Vec<(i32, i32)>) -> Drawn<DB> {
        let style = look.colour.stroke_width(self.px(LINE_WIDTH).max(1) as u32);
        match look.line {
            Line::None => Ok(()),
            Line::Solid => self.area.draw(&PathElement::new(path, style)),
            Line::Dashed => {
                let (dash, gap) = (self.px(5.0), self.px(4.0));
                self.area.draw(&DashedPathElement::new(path, dash, gap, style))
            }
        }
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
}

/// Computes corners around the unit circle from `turn` (in full turns) on, at radii that repeat in this
/// order.
fn regular(corners: usize, turn: f64, radii: &[f64]) -> Vec<(f64, f64)> {
    let corner = |index: usize| {
        let angle = std::f64::consts::TAU * (turn + index as f64 / corners as f64);
        let radius = radii[index % radii.len()];
        (radius * angle.cos(), radius * angle.sin())
    };
    (0..corners).map(corner).collect()
}

/// Writes a number on an axis, with at most three decimals and no zeros at the end.
fn tick(value: &f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}
