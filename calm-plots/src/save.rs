//! Figures to files, drawn by one function that is generic over the format.

use std::path::{Path, PathBuf};
use std::sync::Once;

use plotters::prelude::*;
use plotters::style::register_font;

use crate::canvas::{Area, Canvas, Drawn, FONT};
use crate::error::Error;

/// Plotters places everything on whole numbers. An SVG is therefore drawn this much larger and shown smaller.
pub(crate) const SVG_SCALE: u32 = 10;

/// Pixels of a PNG for each unit of the SVG.
const PNG_SCALE: u32 = 2;

/// Plotters draws thin lines without smoothing: each pixel of a PNG is the mean of this many squared.
const SUPERSAMPLING: u32 = 2;

/// A figure of fixed size.
pub trait Figure {
    /// Name of the files, without extension.
    fn name(&self) -> &str;

    /// Width and height in units of the SVG. A PNG has two pixels for each.
    fn size(&self) -> (u32, u32);

    /// Draws on a white canvas.
    ///
    /// # Errors
    /// The canvas could not be drawn on.
    fn draw<DB: DrawingBackend>(&self, canvas: &Canvas<'_, DB>) -> Drawn<DB>;
}

/// Draws `NAME.svg` and `NAME.png` into `folder`, which is made where there is none, and returns the two
/// files. A file appears under its name when it is complete. The same figure has the same bytes each time,
/// and a file that has them is left alone.
///
/// # Errors
/// A file cannot be written, or the figure cannot be drawn.
pub fn save(figure: &impl Figure, folder: &Path) -> Result<[PathBuf; 2], Error> {
    let file = |extension: &str| folder.join(format!("{}.{extension}", figure.name()));
    let (svg_path, png_path) = (file("svg"), file("png"));

    let svg = draw_svg(figure).map_err(|reason| Error::Draw { path: svg_path.clone(), reason })?;
    calm_files::write_changed(&svg_path, svg)?;
    let png = draw_png(figure).map_err(|reason| Error::Draw { path: png_path.clone(), reason })?;
    calm_files::write_changed(&png_path, png)?;
    Ok([svg_path, png_path])
}

/// Without fontconfig there are no fonts but those a program brings along, for the SVG's measures either.
fn register_bundled_font() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        let font = include_bytes!("../assets/DejaVuSans.ttf");
        let registered = register_font(FONT, FontStyle::Normal, font).is_ok();
        assert!(registered, "the font in the program is not a font");
    });
}

pub(crate) fn draw_svg(figure: &impl Figure) -> Result<String, String> {
    let (width, height) = figure.size();
    let (fine_width, fine_height) = scaled(figure.size(), SVG_SCALE);
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (fine_width, fine_height)).into_drawing_area();
    draw(figure, &area, SVG_SCALE)?;
    drop(area);
    let drawn_size = format!(r#"<svg width="{fine_width}" height="{fine_height}""#);
    Ok(svg.replacen(&drawn_size, &format!(r#"<svg width="{width}" height="{height}""#), 1))
}

fn draw_png(figure: &impl Figure) -> Result<Vec<u8>, String> {
    let (width, height) = scaled(figure.size(), PNG_SCALE);
    let (fine_width, fine_height) = scaled((width, height), SUPERSAMPLING);
    let mut fine = vec![0; (fine_width * fine_height * 3) as usize];
    let area = BitMapBackend::with_buffer(&mut fine, (fine_width, fine_height)).into_drawing_area();
    draw(figure, &area, PNG_SCALE * SUPERSAMPLING)?;
    drop(area);

    // Red, green and blue of every pixel, row by row.
    let mut pixels = Vec::with_capacity((width * height * 3) as usize);
    for rows in fine.chunks_exact((fine_width * 3 * SUPERSAMPLING) as usize) {
        let mut sums = vec![0_u32; (width * 3) as usize];
        for row in rows.chunks_exact((fine_width * 3) as usize) {
            let samples = row.chunks_exact(3 * SUPERSAMPLING as usize);
            for (sums, samples) in sums.chunks_exact_mut(3).zip(samples) {
                for (index, &sample) in samples.iter().enumerate() {
                    sums[index % 3] += u32::from(sample);
                }
            }
        }
        pixels.extend(sums.into_iter().map(|sum| (sum / SUPERSAMPLING.pow(2)) as u8));
    }
    encode_png((width, height), &pixels).map_err(|error| error.to_string())
}

fn encode_png((width, height): (u32, u32), pixels: &[u8]) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_adaptive_filter(png::AdaptiveFilterType::Adaptive);
    encoder.write_header()?.write_image_data(pixels)?;
    Ok(file)
}

fn draw<DB: DrawingBackend>(figure: &impl Figure, area: &Area<DB>, scale: u32) -> Result<(), String> {
    register_bundled_font();
    area.fill(&WHITE)
        .and_then(|()| figure.draw(&Canvas::new(area, f64::from(scale))))
        .and_then(|()| area.present())
        .map_err(|error| error.to_string())
}

fn scaled((width, height): (u32, u32), scale: u32) -> (u32, u32) {
    (width * scale, height * scale)
}
