//! Table D.1: the two objectives of the exit classifier, each fitted to full-depth outputs for calibration
//! sources and tried on those for test sources.
//!
//! *Independent* classifiers learn at each layer whether its token is the last layer's. *Geometric-like* ones
//! (Elbayad et al., Depth-Adaptive Transformer, 2020) maximise the probability of leaving at the first layer
//! where it is, which counts no layer above that one.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use calm_checkpoint::Model;
use calm_core::{
    Decision, DecodeError, DecodeOptions, ExitClassifier, Layer, Policy, StepPolicy, Token, decode,
};
use calm_engine::decoding::map_batches;
use calm_engine::engine::{Engine, SourceForm, encode_source};
use serde::{Deserialize, Serialize};

use super::TaskResult;
use super::published::{self, name_of};
use super::section::{Section, Table};
use crate::config::{PaperDataset, Plan};
use crate::dataset::Dataset;

/// The objectives by the paper's names.
const OBJECTIVES: [&str; 2] = ["independent", "geometric-like"];
/// Examples of each split whose outputs are looked at.
const EXAMPLES: usize = 100;
/// Steps of the fit, over all samples each.
const STEPS: usize = 200;
/// Learning rate of the fit (Adam), for states that are scaled to a mean square of 1.
const LEARNING_RATE: f32 = 0.05;

/// F1 of "do not exit" at a layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ClassifierScore {
    pub(super) dataset: PaperDataset,
    pub(super) objective: String,
    /// Number of the layer, from 1.
    pub(super) layer: usize,
    pub(super) f1: f64,
}

/// What is known of one token: its states after the layers below the last, and whether each one's token is
/// the last layer's.
#[derive(Debug, Clone, Default)]
struct Sample {
    states: Vec<Vec<f32>>,
    agrees: Vec<bool>,
}

/// Fits both classifiers and scores them at each layer.
pub(super) fn score(
    dataset: PaperDataset,
    plan: &Plan,
    mut engine: Engine,
    calibration: &Dataset,
    test: &Dataset,
) -> anyhow::Result<Vec<ClassifierScore>> {
    let mut samples = |examples: &Dataset| -> anyhow::Result<Vec<Sample>> {
        let codec = engine.text_codec()?;
        let examples = examples.examples.iter().take(EXAMPLES);
        let sources = examples.map(|example| {
            let form = SourceForm { chat: example.chat, limit: plan.max_source_tokens };
            encode_source(codec, &example.source, form)
        });
        let sources = sources.collect::<anyhow::Result<Vec<_>>>()?;
        let samples = map_batches(&mut engine.models, &sources, plan.batch_size, |model, sources| {
            observe(model, sources, plan.max_tokens)
        })?;
        Ok(samples.into_iter().flatten().collect())
    };
    let (seen, unseen) = (samples(calibration)?, samples(test)?);
    let mut scores = Vec::new();
    for objective in OBJECTIVES {
        let classifier = fit(&seen, objective == "geometric-like");
        let layers = seen.first().map_or(0, |sample| sample.agrees.len());
        for layer in 1..=layers {
            let f1 = do_not_exit_f1(&classifier, &unseen, layer);
            scores.push(ClassifierScore { dataset, objective: objective.to_owned(), layer, f1 });
        }
    }
    Ok(scores)
}

/// The samples of each row, at full depth.
fn observe(
    model: &dyn Model,
    sources: &[&[Token]],
    max_tokens: usize,
) -> Result<Vec<Vec<Sample>>, DecodeError> {
    let prompt = model.read(sources)?;
    let observer = Observer { rows: Mutex::new(vec![Vec::new(); sources.len()]) };
    decode(&*prompt, &observer, &DecodeOptions::new(max_tokens))?;
    Ok(observer.rows.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// A policy under which no token leaves early, and states are recorded.
struct Observer {
    rows: Mutex<Vec<Vec<Sample>>>,
}

struct Step<'a> {
    observer: &'a Observer,
    /// By layer, the states and the tokens of all entries.
    layers: Vec<(Vec<Vec<f32>>, Vec<Token>)>,
}

impl Policy for Observer {
    fn begin_step(&self, _max_tokens: usize) -> Box<dyn StepPolicy + '_> {
        Box::new(Step { observer: self, layers: Vec::new() })
    }
}

impl StepPolicy for Step<'_> {
    fn decide(&mut self, layer: &mut Layer<'_>, _: &mut [Decision]) -> Result<(), DecodeError> {
        let tokens: Vec<Token> = layer.top2()?.into_iter().map(|top2| top2.token).collect();
        if !layer.is_last() {
            let states = layer.hidden()?.rows().map(<[f32]>::to_vec).collect();
            self.layers.push((states, tokens));
            return Ok(());
        }
        let mut rows = self.observer.rows.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, (entry, last)) in layer.entries().iter().zip(tokens).enumerate() {
            rows[entry.row].push(Sample {
                states: self
                    .layers
                    .iter_mut()
                    .map(|(states, _)| std::mem::take(&mut states[index]))
                    .collect(),
                agrees: self.layers.iter().map(|(_, tokens)| tokens[index] == last).collect(),
            });
        }
        Ok(())
    }
}

/// Fits a classifier by Adam on all samples at once.
fn fit(samples: &[Sample], geometric: bool) -> ExitClassifier {
    let width = samples.first().and_then(|sample| sample.states.first()).map_or(0, Vec::len);
    // The states with their labels that the objective counts.
    let mut counted: Vec<(&[f32], f32)> = Vec::new();
    for sample in samples {
        let first = sample.agrees.iter().position(|agrees| *agrees);
        let layers = match first {
            Some(first) if geometric => first + 1,
            _ => sample.agrees.len(),
        };
        let labels = sample.agrees.iter().map(|&agrees| f32::from(u8::from(agrees)));
        counted.extend(sample.states.iter().map(Vec::as_slice).zip(labels).take(layers));
    }
    let squares: f64 =
        counted.iter().flat_map(|(state, _)| *state).map(|&x| f64::from(x) * f64::from(x)).sum();
    let scale = (counted.len() * width) as f64 / squares.max(f64::MIN_POSITIVE);
    let scale = scale.sqrt() as f32;

    let mut parameters = vec![0.0_f32; width + 1];
    let (mut first_moment, mut second_moment) = (vec![0.0_f32; width + 1], vec![0.0_f32; width + 1]);
    let (beta1, beta2) = (0.9_f32, 0.999_f32);
    for step in 1..=STEPS {
        let mut gradient = vec![0.0_f32; width + 1];
        for (state, label) in &counted {
            let logit = parameters[width] + dot(&parameters[..width], state) * scale;
            let error = (1.0 / (1.0 + (-logit).exp()) - label) / counted.len() as f32;
            gradient[width] += error;
            for (gradient, x) in gradient.iter_mut().zip(*state) {
                *gradient += error * scale * x;
            }
        }
        let corrections = (1.0 - beta1.powi(step as i32), 1.0 - beta2.powi(step as i32));
        for (place, gradient) in gradient.into_iter().enumerate() {
            first_moment[place] = beta1 * first_moment[place] + (1.0 - beta1) * gradient;
            second_moment[place] = beta2 * second_moment[place] + (1.0 - beta2) * gradient * gradient;
            let size = (second_moment[place] / corrections.1).sqrt() + 1e-8;
            parameters[place] -= LEARNING_RATE * first_moment[place] / corrections.0 / size;
        }
    }
    let bias = parameters.pop().unwrap_or_default();
    ExitClassifier { weight: parameters.into_iter().map(|weight| weight * scale).collect(), bias }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// F1 of the class "do not exit", which a classifier says below one half.
fn do_not_exit_f1(classifier: &ExitClassifier, samples: &[Sample], layer: usize) -> f64 {
    let (mut right, mut said, mut are) = (0_usize, 0_usize, 0_usize);
    for sample in samples {
        let stays = classifier.probability(&sample.states[layer - 1]) < 0.5;
        let should = !sample.agrees[layer - 1];
        said += usize::from(stays);
        are += usize::from(should);
        right += usize::from(stays && should);
    }
    if said + are == 0 { 0.0 } else { 2.0 * right as f64 / (said + are) as f64 }
}

/// Writes all scores as CSV.
pub(super) fn write(path: &Path, scores: &[ClassifierScore]) -> anyhow::Result<()> {
    crate::summary::write_csv(path, scores)
}

/// Reads what [`write`] has written.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<ClassifierScore>> {
    let text = calm_files::read_to_string(path)?;
    let rows = csv::Reader::from_reader(text.as_bytes()).into_deserialize();
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The section of the page.
pub(super) fn section(main: &[&TaskResult<'_>], scores: &[ClassifierScore]) -> Section {
    let mut section = Section::new(
        "Table D.1",
        format!(
            "F1 of the class \"do not exit\" at 0.5, after the first, the middle and the last layer below the last one (the \
             paper's layers 1, 4 and 7 of 8). Both classifiers are fitted here, to the full-depth outputs for {EXAMPLES} \
             calibration sources, and scored on {EXAMPLES} test sources."
        ),
    );
    for task in main {
        let of = |objective: &str, layer: usize| {
            let same = |score: &&ClassifierScore| {
                score.dataset == task.dataset && score.objective == objective && score.layer == layer
            };
            scores.iter().find(same).map(|score| score.f1)
        };
        let last = task.results.num_layers - 1;
        let layers = [1, last.div_ceil(2), last];
        let mut rows = Vec::new();
        let mut found = Vec::new();
        for objective in OBJECTIVES {
            let Some(f1) = layers.map(|layer| of(objective, layer)).into_iter().collect::<Option<Vec<_>>>()
            else {
                continue;
            };
            let text =
                |numbers: &[f64]| numbers.iter().map(|f1| format!("{f1:.2}")).collect::<Vec<_>>().join(" / ");
            let papers = published::classifier_f1(task.dataset, objective);
            rows.push(vec![objective.to_owned(), text(&f1), text(&papers)]);
            found.push(f1);
        }
        let [independent, geometric] = &found[..] else { continue };
        let head = vec![
            "objective".to_owned(),
            format!("layers {}, {}, {}", layers[0], layers[1], layers[2]),
            format!("the paper's ({})", name_of(task.dataset)),
        ];
        section.tables.push(Table { title: task.title(), head, rows });
        let better = independent.iter().zip(geometric).filter(|(a, b)| a >= b).count();
        section.claim(
            format!("{}: independent classifiers are better at each layer", task.title()),
            better == layers.len(),
            format!("at {better} of {}", layers.len()),
        );
        section.claim(
            format!("{}: F1 falls from layer to layer", task.title()),
            independent.is_sorted_by(|a, b| a >= b),
            independent.iter().map(|f1| format!("{f1:.2}")).collect::<Vec<_>>().join(", "),
        );
    }
    section
}
