//! Figures of one look, each saved as SVG and as PNG.
//!
//! A [`Figure`] says how large it is and draws [`Panel`]s and legends on a [`Canvas`]; [`save`] calls it once
//! for each format. Colours come from [`palette`], the font is part of the crate.
//!
//! ```
//! use calm_plots::{Canvas, DrawingBackend, Drawn, Figure, Look, Panel, Place, Point, palette, save};
//!
//! struct Parabola;
//!
//! impl Figure for Parabola {
//!     fn name(&self) -> &str {
//!         "parabola"
//!     }
//!
//!     fn size(&self) -> (u32, u32) {
//!         (320, 240)
//!     }
//!
//!     fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>) -> Drawn<DB> {
//!         let panel = Panel {
//!             place: Place { left: 8.0, top: 8.0, width: 304.0, height: 224.0 },
//!             title: "a parabola",
//!             x_label: "x",
//!             y_label: "square of x",
//!             x: 0.0..10.0,
//!             y: 0.0..100.0,
//!             x_ticks: 6,
//!             y_ticks: 6,
//!         };
//!         let points = (0..=10).map(f64::from).map(|x| Point::new(x, x * x)).collect();
//!         canvas.panel(&panel, &[(Look::solid(palette::BLUE), points)])
//!     }
//! }
//!
//! # let folder = std::env::temp_dir().join(format!("parabola-{}", std::process::id()));
//! let [svg, png] = save(&Parabola, &folder)?;
//! assert!(svg.ends_with("parabola.svg") && png.ends_with("parabola.png"));
//! # std::fs::remove_dir_all(folder).ok();
//! # Ok::<(), calm_plots::Error>(())
//! ```

mod canvas;
mod chart;
mod clip;
mod error;
mod look;
pub mod palette;
mod save;

pub use plotters::prelude::{DrawingBackend, RGBColor};

pub use crate::canvas::{Canvas, Drawn, LegendEntry, Panel, Place, Point, legend_width};
pub use crate::chart::Chart;
pub use crate::error::Error;
pub use crate::look::{Line, Look, Marker, REFERENCE};
pub use crate::save::{Figure, save};
