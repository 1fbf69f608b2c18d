//! `report.html`: a run on one page, which opens offline and needs nothing beside it.
//!
//! [`view`] says what stands on the page, [`explorer`] what its explorer knows of each output, [`charts`]
//! draws, and [`page`] puts all of it into the templates below `templates/`.

pub(crate) mod charts;
pub(crate) mod explorer;
pub(crate) mod page;
pub(crate) mod shown;
pub(crate) mod view;

use std::path::Path;

use crate::config::Plan;
use crate::outputs::SplitOutputs;
use crate::statistics::Results;
use crate::summary::Summary;
use crate::unit::{Common, Store};

/// The name of the page in the folder of a run.
pub(crate) const REPORT: &str = "report.html";

/// What a report is made of.
pub(crate) struct Material<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) results: &'a Results,
    pub(crate) test: &'a SplitOutputs<'a>,
    /// The files of units, whose outputs the explorer shows.
    pub(crate) store: &'a Store,
    pub(crate) common: &'a Common,
    pub(crate) summary: &'a Summary<'a>,
}

/// Writes the page.
///
/// # Errors
/// A unit's file is not there any more, or the page cannot be written.
pub(crate) fn write(material: &Material<'_>, path: &Path) -> anyhow::Result<()> {
    let view = view::View::new(material)?;
    Ok(calm_files::write_changed(path, page::render(page::REPORT, &view)?)?)
}
