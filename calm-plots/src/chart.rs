//! A panel by itself, for pages.

use std::ops::Range;

use plotters::prelude::DrawingBackend;
use plotters::style::{RGBColor, WHITE};

use crate::canvas::{Canvas, Drawn, LegendEntry, Panel, Place, Point};
use crate::error::Error;
use crate::look::Look;
use crate::palette::{BLACK, GRID, INK};
use crate::save::{Figure, SVG_SCALE, draw_svg};

/// Axes with lines and a legend, which have no place yet: a page shows them as a chart of its own, and a
/// figure puts several of them side by side.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// The text above the axes, which may be empty.
    pub title: String,
    /// The text below the horizontal axis.
    pub x_label: String,
    /// The text next to the vertical axis.
    pub y_label: String,
    /// The horizontal axis, which has to reach over all points.
    pub x: Range<f64>,
    /// The vertical axis. Parts of lines that are above or below it are not drawn.
    pub y: Range<f64>,
    /// Approximate number of numbers on the horizontal axis.
    pub x_ticks: usize,
    /// Approximate number of numbers on the vertical axis.
    pub y_ticks: usize,
    /// The lines in the order in which they are drawn, the last one on top.
    pub lines: Vec<(Look, Vec<Point>)>,
    /// What the lines are. A page sets it beside or below the chart.
    pub legend: Vec<LegendEntry>,
}

impl Chart {
    /// Returns the chart's panel at a place of a figure.
    pub fn panel(&self, place: Place) -> Panel<'_> {
        Panel {
            place,
            title: &self.title,
            x_label: &self.x_label,
            y_label: &self.y_label,
            x: self.x.clone(),
            y: self.y.clone(),
            x_ticks: self.x_ticks,
            y_ticks: self.y_ticks,
        }
    }

    /// Draws axes and lines as an `<svg>` element for a page, which decides how large it is shown; at this
    /// width and height, in CSS pixels, its text has the size of that in figures. Lines and points keep their
    /// colours; text and axes have the colour of the page's text, the grid that of the page's class `grid`,
    /// and outlines are filled by its class `page`. `description` is read to those who cannot see the chart.
    ///
    /// # Errors
    /// [`Error::Inline`] if the chart cannot be drawn.
    pub fn inline_svg(&self, size: (u32, u32), description: &str) -> Result<String, Error> {
        inline(&Alone { chart: self, size }, description)
    }
}

impl LegendEntry {
    /// Draws the line and the marker of the entry as an `<svg>` element for a page, which its text goes
    /// beside.
    ///
    /// # Errors
    /// [`Error::Inline`] if the entry cannot be drawn.
    pub fn swatch_svg(&self) -> Result<String, Error> {
        inline(&Swatch(self), "")
    }
}

/// A chart that fills its figure.
struct Alone<'a> {
    chart: &'a Chart,
    size: (u32, u32),
}

impl Figure for Alone<'_> {
    fn name(&self) -> &str {
        &self.chart.title
    }

    fn size(&self) -> (u32, u32) {
        self.size
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>) -> Drawn<DB> {
        let (width, height) = (f64::from(self.size.0), f64::from(self.size.1));
        canvas.panel(&self.chart.panel(Place { left: 0.0, top: 0.0, width, height }), &self.chart.lines)
    }
}

/// Line and marker of an entry of a legend.
struct Swatch<'a>(&'a LegendEntry);

impl Figure for Swatch<'_> {
    fn name(&self) -> &str {
        &self.0.text
    }

    fn size(&self) -> (u32, u32) {
        (30, 18)
    }

    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>) -> Drawn<DB> {
        let entry = LegendEntry { text: String::new(), ..self.0.clone() };
        canvas.legend(0.0, 9.0, &[entry])
    }
}

/// Takes from a figure what a page has itself: its size, its background, its font and the colour of its text.
fn inline(figure: &impl Figure, description: &str) -> Result<String, Error> {
    let (width, height) = figure.size();
    let svg = draw_svg(figure).map_err(Error::Inline)?;
    let after_root = svg.split_once('>').map_or("", |(_, rest)| rest);
    let drawn = match after_root.trim_start().strip_prefix("<rect") {
        Some(background) => background.split_once("/>").map_or("", |(_, rest)| rest),
        None => after_root,
    };
    let drawn = drawn
        .replace(" opacity=\"1\"", "")
        .replace(" font-family=\"sans-serif\"", "")
        .replace(&attribute("fill", WHITE), "class=\"page\"")
        .replace(&attribute("stroke", GRID), "class=\"grid\"");
    let text_colours =
        [INK, BLACK].into_iter().flat_map(|colour| ["fill", "stroke"].map(|name| (name, colour)));
    let drawn = text_colours.fold(drawn, |drawn, (name, colour)| {
        drawn.replace(&attribute(name, colour), &format!("{name}=\"currentColor\""))
    });
    let spoken = match description {
        "" => "aria-hidden=\"true\"".to_owned(),
        text => format!("role=\"img\" aria-label=\"{}\"", escaped(text)),
    };
    let (fine_width, fine_height) = (SVG_SCALE * width, SVG_SCALE * height);
    Ok(format!("<svg viewBox=\"0 0 {fine_width} {fine_height}\" {spoken}>{}", drawn.trim()))
}

/// Writes a colour as plotters does.
fn attribute(name: &str, RGBColor(red, green, blue): RGBColor) -> String {
    format!("{name}=\"#{red:02X}{green:02X}{blue:02X}\"")
}

/// Makes text fit for an attribute.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;")
}
