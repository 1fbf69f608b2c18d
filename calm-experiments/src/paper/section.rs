//! What a section of the page consists of.

use serde::Serialize;

use crate::report::charts::ChartView;

/// One figure or table of the paper with its counterpart.
#[derive(Debug, Serialize)]
pub(super) struct Section {
    /// The name of the figure or table, such as `Figure 2a`.
    pub(super) title: &'static str,
    /// What the paper shows there.
    pub(super) about: String,
    pub(super) charts: Vec<TitledChart>,
    pub(super) tables: Vec<Table>,
    pub(super) claims: Vec<Claim>,
    pub(super) examples: Vec<Example>,
    /// Whether charts come in pairs that belong side by side.
    pub(super) has_pairs: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct TitledChart {
    pub(super) title: String,
    pub(super) chart: ChartView,
}

/// A table whose first column has words.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    pub(super) title: String,
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// What the paper says of the shape, and whether it is so here.
#[derive(Debug, Serialize)]
pub(super) struct Claim {
    pub(super) paper: String,
    pub(super) holds: bool,
    /// What was found here.
    pub(super) here: String,
}

/// An example with some of its outputs.
#[derive(Debug, Serialize)]
pub(super) struct Example {
    pub(super) title: String,
    pub(super) source: String,
    pub(super) reference: String,
    pub(super) outputs: Vec<Output>,
}

/// An output with the exit layer of each token.
#[derive(Debug, Serialize)]
pub(super) struct Output {
    pub(super) policy: String,
    pub(super) layers: f64,
    /// Textual distance from the full model's output.
    pub(super) distance: f64,
    pub(super) tokens: Vec<Token>,
}

#[derive(Debug, Serialize)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) layer: usize,
}

impl Section {
    /// A section without anything but its words.
    pub(super) fn new(title: &'static str, about: impl Into<String>) -> Self {
        let (charts, tables, claims, examples) = Default::default();
        Self { title, about: about.into(), charts, tables, claims, examples, has_pairs: false }
    }

    /// Adds a chart.
    pub(super) fn chart(&mut self, title: &str, chart: &calm_plots::Chart) -> anyhow::Result<()> {
        let spoken = format!("{}, {title}: {} against {}", self.title, chart.y_label, chart.x_label);
        self.charts.push(TitledChart { title: title.to_owned(), chart: ChartView::new(chart, &spoken)? });
        Ok(())
    }

    /// Adds what the paper says, and what was found here.
    pub(super) fn claim(&mut self, paper: impl Into<String>, holds: bool, here: impl Into<String>) {
        self.claims.push(Claim { paper: paper.into(), holds, here: here.into() });
    }
}
