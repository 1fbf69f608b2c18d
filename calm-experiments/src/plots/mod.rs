//! Figures, each as SVG and as PNG, drawn by one function that is generic over the format.

mod guarantees;
mod quality;
mod style;

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;

use crate::config::Plan;
use crate::statistics::Results;
use crate::unit::write_atomically;

/// Plotters places everything on whole numbers. An SVG is therefore drawn this much larger and shown smaller.
const SVG_SCALE: u32 = 10;

/// Pixels of a PNG for each unit of the SVG.
const PNG_SCALE: u32 = 2;

/// Plotters draws thin lines without smoothing: each pixel of a PNG is the mean of this many squared.
const SUPERSAMPLING: u32 = 2;

/// A figure of fixed size.
trait Figure {
    /// Name of the files.
    fn name(&self) -> &'static str;

    /// Width and height in units of the SVG.
    fn size(&self) -> (u32, u32);

    /// Draws on a white area of `scale` times the size.
    fn draw<DB: DrawingBackend>(&self, area: &Area<DB>, scale: f64) -> Drawn<DB>;
}

type Area<DB> = DrawingArea<DB, Shift>;
type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

/// Draws all figures of a run into `folder` and returns the files.
///
/// # Errors
/// A file cannot be written.
pub fn draw_all(plan: &Plan, results: &Results, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    // Without fontconfig there are no fonts but those a program brings along, for the SVG's measures either.
    register_font(style::FONT, FontStyle::Normal, include_bytes!("../../assets/DejaVuSans.ttf"))
        .map_err(|_| anyhow!("the figures' font cannot be read"))?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut files = Vec::from(save(&quality::QualityVsLayers::new(plan, results), folder)?);
    let guarantees =
        [guarantees::GuaranteesFigure::certified(results), guarantees::GuaranteesFigure::trials(results)];
    for figure in guarantees.iter().flatten() {
        files.extend(save(figure, folder)?);
    }
    Ok(files)
}

fn save(figure: &impl Figure, folder: &Path) -> anyhow::Result<[PathBuf; 2]> {
    let svg_path = folder.join(format!("{}.svg", figure.name()));
    let png_path = folder.join(format!("{}.png", figure.name()));

    let (width, height) = figure.size();
    let (fine_width, fine_height) = (width * SVG_SCALE, height * SVG_SCALE);
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (fine_width, fine_height)).into_drawing_area();
    draw(figure, &area, f64::from(SVG_SCALE))
        .with_context(|| format!("cannot draw {}", svg_path.display()))?;
    drop(area);
    let drawn_size = format!(r#"<svg width="{fine_width}" height="{fine_height}""#);
    let svg = svg.replacen(&drawn_size, &format!(r#"<svg width="{width}" height="{height}""#), 1);
    write_atomically(&svg_path, |file| Ok(std::io::Write::write_all(file, svg.as_bytes())?))?;

    save_png(figure, &png_path).with_context(|| format!("cannot draw {}", png_path.display()))?;
    Ok([svg_path, png_path])
}

fn save_png(figure: &impl Figure, path: &Path) -> anyhow::Result<()> {
    let (width, height) = figure.size();
    let (width, height) = (width * PNG_SCALE, height * PNG_SCALE);
    let (fine_width, fine_height) = (width * SUPERSAMPLING, height * SUPERSAMPLING);
    let mut fine = vec![0; (fine_width * fine_height * 3) as usize];
    let area = BitMapBackend::with_buffer(&mut fine, (fine_width, fine_height)).into_drawing_area();
    draw(figure, &area, f64::from(PNG_SCALE * SUPERSAMPLING))?;
    drop(area);

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
    let mut file = BitMapBackend::new(path, (width, height));
    file.blit_bitmap((0, 0), (width, height), &pixels).map_err(|error| anyhow!("{error}"))?;
    file.present().map_err(|error| anyhow!("{error}"))
}

fn draw<DB: DrawingBackend>(figure: &impl Figure, area: &Area<DB>, scale: f64) -> anyhow::Result<()> {
    area.fill(&WHITE)
        .and_then(|()| figure.draw(area, scale))
        .and_then(|()| area.present())
        .map_err(|error| anyhow!("{error}"))
}
