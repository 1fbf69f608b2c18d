//! The paper's figures and tables, each beside its counterpart on other tasks, on one page.
//!
//! A configuration with `[[tasks]]` whose tasks say what they stand for (`paper`) is such a page: each task
//! is an experiment of its own, and the page is made of what these have left. What the paper says of the
//! shape of a figure is a `Claim` (`section.rs`), which is tried on the numbers that were found.

mod classifiers;
mod errors;
mod examples;
mod guarantees;
mod published;
mod section;

use std::path::{Path, PathBuf};

use anyhow::Context;
use calm_engine::engine::load_codec;
use calm_files::{Document, Error};
use calm_names::counted;
use serde::Serialize;

use self::classifiers::ClassifierScore;
use self::published::name_of;
use self::section::Section;
use crate::config::{PaperDataset, PaperModel, Plan, RawPaper};
use crate::experiment::{Opened, Report};
use crate::outputs::SplitOutputs;
use crate::report::page;
use crate::report::view::LayerColour;
use crate::statistics::{Guarantee, Results, trials_on};
use crate::tasks::{LoadEngine, RunOptions, Task, run_task, tasks_of};
use crate::trials::TrialsRow;
use crate::unit::{Common, Store};

/// A checked configuration of the page.
#[derive(Debug, Clone)]
pub struct Paper {
    /// Name of the run.
    pub name: String,
    /// The tasks with what they stand for.
    tasks: Vec<(String, Plan, RawPaper)>,
}

impl Paper {
    /// Reads a configuration whose tasks stand for the paper's; `None` if it has none.
    ///
    /// # Errors
    /// [`Error`], for the first thing that is wrong.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Option<Self>, Error> {
        Self::new(&Document::read(path, overrides)?)
    }

    /// As [`load`](Self::load), for a text that is already read; `path` is only named in errors.
    ///
    /// # Errors
    /// [`Error::Document`]
    pub fn parse(path: &Path, text: String, overrides: &[String]) -> Result<Option<Self>, Error> {
        Self::new(&Document::new(path, text, overrides)?)
    }

    fn new(document: &Document) -> Result<Option<Self>, Error> {
        let (mut tasks, mut without): (Vec<(String, Plan, RawPaper)>, Vec<Task>) = Default::default();
        for task in tasks_of(document)? {
            let Some(paper) = task.plan.raw.paper.clone() else {
                without.push(task);
                continue;
            };
            let same = |(_, _, other): &&(String, Plan, RawPaper)| {
                (other.dataset, other.model) == (paper.dataset, paper.model)
            };
            if let Some((other, ..)) = tasks.iter().find(same) {
                let message = format!("the task {other} stands for the same dataset and model of the paper");
                return Err(task.document.invalid("paper", message));
            }
            if task.plan.raw.sweep.certified_only {
                let message = "must be false: the page shows thresholds that are not certified too";
                return Err(task.document.invalid("sweep.certified_only", message));
            }
            tasks.push((task.name, task.plan, paper));
        }
        let Some((_, first, _)) = tasks.first() else { return Ok(None) };
        if let Some(task) = without.first() {
            let message =
                format!("{} does not say what of the paper it stands for, as the other tasks do", task.name);
            return Err(task.document.invalid("paper", message));
        }
        Ok(Some(Self { name: first.name.clone(), tasks }))
    }

    /// The tasks by their names, at least one. All have the engine of the first one.
    pub fn tasks(&self) -> impl Iterator<Item = (&str, &Plan)> {
        self.tasks.iter().map(|(name, plan, _)| (name.as_str(), plan))
    }
}

/// What is known of one task once it has run.
struct TaskResult<'a> {
    name: &'a str,
    dataset: PaperDataset,
    model: PaperModel,
    plan: &'a Plan,
    results: &'a Results,
    test: SplitOutputs<'a>,
    units: (&'a Store, &'a Common),
    /// Trials on parts of the test split.
    test_trials: Vec<(Guarantee, TrialsRow)>,
    /// Length of each test example's reference in tokens, if the model's tokenizer is there.
    target_lengths: Option<Vec<usize>>,
}

impl<'a> TaskResult<'a> {
    fn new(
        (name, plan, paper): &'a (String, Plan, RawPaper),
        report: &'a Report,
        opened: &'a Opened,
    ) -> anyhow::Result<Self> {
        let test = opened.test()?;
        let test_trials = trials_on(plan, &test)?;
        let target_lengths = load_codec(&plan.model).ok().flatten().and_then(|codec| {
            let examples = test.dataset.examples.iter();
            examples.map(|example| Some(codec.encode(&example.target).ok()?.len())).collect()
        });
        let (dataset, model, results) = (paper.dataset, paper.model, &report.results);
        let units = opened.units();
        Ok(Self { name, dataset, model, plan, results, test, units, test_trials, target_lengths })
    }

    /// The name of the task with the dataset that it stands for.
    fn title(&self) -> String {
        format!("{} (for {})", self.name, name_of(self.dataset))
    }
}

/// The page.
#[derive(Serialize)]
struct View<'a> {
    name: &'a str,
    tasks: Vec<TaskView<'a>>,
    layers: Vec<LayerColour>,
    sections: Vec<Section>,
    holding: usize,
    claims: usize,
}

/// A task in the list at the top of the page.
#[derive(Serialize)]
struct TaskView<'a> {
    name: &'a str,
    stands_for: String,
    model: String,
    num_layers: usize,
    examples: usize,
}

/// Runs all tasks below the folder `out` and writes `report.html` there. `load` is called for each task, and
/// again for the classifiers of table D.1, whose scores are left in `classifiers.csv`.
///
/// # Errors
/// As [`crate::experiment::run`] has them, or a file cannot be written.
pub fn run(
    paper: &Paper,
    out: &Path,
    options: &RunOptions,
    load: LoadEngine<'_>,
) -> anyhow::Result<Vec<PathBuf>> {
    let (mut files, mut reports, mut opened) = (Vec::new(), Vec::new(), Vec::new());
    for (name, plan, _) in &paper.tasks {
        let (report, of_task) = run_task((name, plan), out, options, load)?;
        files.extend(of_task);
        reports.push(report);
        opened.push(Opened::new(plan, &out.join(name))?);
    }
    let scores_file = out.join("classifiers.csv");
    let scores = match options.statistics_only {
        true => classifiers::read(&scores_file)?,
        false => {
            let scores = score_classifiers(paper, &reports, &opened, options, load)?;
            classifiers::write(&scores_file, &scores)?;
            scores
        }
    };
    let mut tasks = Vec::new();
    for ((task, report), opened) in paper.tasks.iter().zip(&reports).zip(&opened) {
        tasks.push(TaskResult::new(task, report, opened).with_context(|| task.0.clone())?);
    }
    let page_file = out.join(crate::report::REPORT);
    let view = View::new(&paper.name, &tasks, &scores)?;
    calm_files::write_changed(&page_file, page::render(page::PAPER, &view)?)?;
    files.extend([scores_file, page_file]);
    Ok(files)
}

fn score_classifiers(
    paper: &Paper,
    reports: &[Report],
    opened: &[Opened],
    options: &RunOptions,
    load: LoadEngine<'_>,
) -> anyhow::Result<Vec<ClassifierScore>> {
    let mut scores = Vec::new();
    for (((name, plan, stands_for), report), opened) in paper.tasks.iter().zip(reports).zip(opened) {
        if stands_for.model == PaperModel::Main {
            calm_files::tell(format_args!("classifiers of {name}"));
            let engine = load(&plan.model, &options.engine)?;
            let (calibration, test) = (opened.calibration_examples(), &report.test);
            scores.extend(classifiers::score(stands_for.dataset, plan, engine, calibration, test)?);
        }
    }
    Ok(scores)
}

impl<'a> View<'a> {
    fn new(name: &'a str, tasks: &[TaskResult<'a>], scores: &[ClassifierScore]) -> anyhow::Result<Self> {
        let of = |model: PaperModel| -> Vec<&TaskResult<'a>> {
            let mut tasks: Vec<_> = tasks.iter().filter(|task| task.model == model).collect();
            tasks.sort_by_key(|task| task.dataset);
            tasks
        };
        let (main, second) = (of(PaperModel::Main), of(PaperModel::Second));
        let on_test = |task: &TaskResult<'_>| task.test_trials.clone();
        let on_calibration = |task: &TaskResult<'_>| task.results.trials.clone();
        let mut second_models: Vec<String> = second
            .iter()
            .map(|task| {
                let layers = counted(task.results.num_layers, "decoder layer");
                format!("{} with {layers}", task.plan.model.display())
            })
            .collect();
        second_models.sort_unstable();
        second_models.dedup();
        let second_note = format!(
            "The paper's has twelve decoder layers; here it is {}.",
            if second_models.is_empty() { "missing".to_owned() } else { second_models.join(" and ") }
        );
        let repeated = |split: &str, objective: &str| {
            format!(
                "{objective} consistency over repeated calibrations, each on a random part of the {split} examples and measured \
                 on the rest: mean and standard deviation of loss and layers."
            )
        };
        let sections = vec![
            errors::propagation(&main),
            errors::perturbation(&main)?,
            errors::decays(&main)?,
            errors::trade_off(&main)?,
            guarantees::target_lengths(&main),
            guarantees::quality(
                "Figure 3",
                &main,
                "Quality against layers of each measure, of fixed depths and of the oracle.",
            )?,
            guarantees::operating_points(&main),
            examples::section(&main)?,
            guarantees::trials("Figure B.1", &main, "textual", on_test, &repeated("test", "Textual"))?,
            guarantees::trials("Figure B.2", &main, "risk", on_test, &repeated("test", "Risk"))?,
            guarantees::trials(
                "Figure B.3",
                &main,
                "textual",
                on_calibration,
                &repeated("calibration", "Textual"),
            )?,
            guarantees::trials(
                "Figure B.4",
                &main,
                "risk",
                on_calibration,
                &repeated("calibration", "Risk"),
            )?,
            guarantees::quality(
                "Figure B.6",
                &second,
                &format!("As figure 3, for the second model. {second_note}"),
            )?,
            guarantees::trials(
                "Figure B.7",
                &second,
                "textual",
                on_calibration,
                &format!("As figure B.3, for the second model. {second_note}"),
            )?,
            guarantees::trials(
                "Figure B.8",
                &second,
                "risk",
                on_calibration,
                &format!("As figure B.4, for the second model. {second_note}"),
            )?,
            classifiers::section(&main, scores),
        ];
        let claims = || sections.iter().flat_map(|section| &section.claims);
        let (holding, claims) = (claims().filter(|claim| claim.holds).count(), claims().count());
        let most_layers = tasks.iter().map(|task| task.results.num_layers).max().unwrap_or(1);
        let view = |task: &TaskResult<'a>| TaskView {
            name: task.name,
            stands_for: name_of(task.dataset).to_owned(),
            model: task.plan.model.display().to_string(),
            num_layers: task.results.num_layers,
            examples: task.test.dataset.examples.len(),
        };
        Ok(Self {
            name,
            tasks: main.iter().chain(&second).map(|task| view(task)).collect(),
            layers: (1..=most_layers).map(|layer| LayerColour::new(layer, most_layers)).collect(),
            sections,
            holding,
            claims,
        })
    }
}
