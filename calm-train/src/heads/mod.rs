//! Exit heads on a frozen backbone, trained on its own predictions (Valade, Self-Supervised Early Exits).
//!
//! The backbone decodes sources at full depth, or reads a text. Along these tokens, each head learns the
//! distribution of the last layer from the state of its own: the loss is KL(last layer || head) at
//! temperature 1, the mean over tokens and heads. There are no labels, and the backbone's files stay as they
//! are. The backbone runs once: its states are kept in files, from which heads learn as often as they need.
//!
//! `states.rs` has the states, `vocabulary.rs` the tokens that heads know, `network.rs` what heads compute,
//! `training.rs` the steps, `confidence.rs` how likely a head's token is the last layer's.

mod confidence;
mod network;
mod states;
mod training;
mod vocabulary;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use calm_checkpoint::{HEADS_FILE, SharedHead, folder_of, source_hash, write_exit_heads};
use calm_core::{ExitHeads, Exits, FittedTo, HeadKind, Token};
use calm_engine::engine::{Engine, EngineOptions};
use serde::{Deserialize, Serialize};
use tch::Device;

use self::network::Network;
use self::states::{Recording, States};
use self::training::Training;
pub use self::vocabulary::Coverage;
use crate::Error;

/// One of so many sources is held out, to see what the heads have learned, and one more for what says how
/// likely they are right.
const HELD_OUT: usize = 8;

/// How exit heads are trained.
#[derive(Debug, Clone)]
pub struct HeadsConfig {
    /// What they compute.
    pub kind: HeadKind,
    /// Rank of those of low rank, at least 1.
    pub rank: usize,
    /// The layers that get a head, the last one among them only with a `vocabulary`; all below the last if
    /// there is nothing.
    pub layers: Option<Exits>,
    /// The heads know the tokens that make up this share of the model's own outputs, above 0 and at most 1;
    /// all tokens if there is nothing.
    pub vocabulary: Option<f64>,
    /// Steps of AdamW, at least 1.
    pub steps: u64,
    /// Learning rate of the first step, from which it falls in a line, to 0 after the last.
    pub learning_rate: f64,
    /// Output tokens of a step, at least 1.
    pub batch_tokens: usize,
    /// Longest output, at least 1.
    pub max_tokens: usize,
    /// Sources decoded together.
    pub batch_size: usize,
    /// Batches decoded side by side, where the device does so.
    pub workers: usize,
    /// Decides the order of the tokens and how heads begin.
    pub seed: u64,
    /// Whether heads that are there already may be replaced.
    pub overwrite: bool,
    /// Where states and the training's checkpoint are kept, so that it goes on where it was interrupted, and
    /// that another one with no other layers begins with them. If there is nothing they lie in `heads.work`
    /// beside the model, and are removed in the end.
    pub work: Option<PathBuf>,
}

/// What heads learn from.
#[derive(Debug, Clone, Copy)]
pub enum Material<'a> {
    /// The backbone's own outputs for these sources.
    Sources(&'a [Vec<Token>]),
    /// What the backbone predicts at each token of these texts, for a decoder without an encoder. Texts have
    /// two tokens or more.
    Texts(&'a [Vec<Token>]),
}

impl Material<'_> {
    fn rows(&self) -> &[Vec<Token>] {
        match self {
            Self::Sources(rows) | Self::Texts(rows) => rows,
        }
    }
}

/// What a head has learned, on outputs of sources that were held out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HeadScore {
    /// The layer, from 1.
    pub layer: usize,
    /// KL(last layer || shared head at this layer) in nats, the mean over the tokens, among the tokens that
    /// heads know.
    pub shared_divergence: f64,
    /// The same for the exit head.
    pub divergence: f64,
    /// Share of tokens whose best token by the shared head at this layer, of those that heads know, is that
    /// of the last layer.
    pub shared_agreement: f64,
    /// The same by the exit head.
    pub agreement: f64,
    /// Share of tokens that the trained confidence gives 0.9 or more.
    #[serde(default)]
    pub confident: f64,
    /// Share of these whose best token by the exit head is that of the last layer.
    #[serde(default)]
    pub confident_agreement: f64,
}

/// Heads that were trained and written.
#[derive(Debug, Clone)]
pub struct TrainedHeads {
    /// Where they are.
    pub path: PathBuf,
    /// Output tokens that were held out.
    pub held_out_tokens: usize,
    /// The tokens that heads know, if these are a part of the vocabulary.
    pub vocabulary: Option<Coverage>,
    /// How they fare there, by ascending layers.
    pub scores: Vec<HeadScore>,
}

/// Trains exit heads for the backbone in `model`, a directory or a GGUF file, and writes them beside it.
///
/// # Errors
/// Fails if the backbone cannot be read or decoded with, if there are too few sources or a layer that cannot
/// have a head, if heads are there already, if the training diverges, or if a file cannot be written.
pub fn train_heads(
    model: &Path,
    material: Material<'_>,
    config: &HeadsConfig,
    device: Device,
) -> Result<TrainedHeads, Error> {
    let folder = folder_of(model);
    let path = folder.join(HEADS_FILE);
    if path.exists() && !config.overwrite {
        return Err(Error::HeadsTaken { path });
    }
    let rows = material.rows();
    if rows.len() < HELD_OUT {
        let reason = format!("at least {HELD_OUT} sources are needed, and there are {}", rows.len());
        return Err(Error::Heads { reason });
    }
    let hash = calm_checkpoint::weights_hash(model)?;
    let mut engine = load(model, config, device)?;
    let shape = engine.model().shape().clone();
    let layers = layers(config, shape.num_layers)?;
    if matches!(material, Material::Texts(_)) && !engine.model().is_decoder_only() {
        let reason = "a model with an encoder learns from its outputs for sources, not from texts".to_owned();
        return Err(Error::Heads { reason });
    }

    let work = config.work.clone().unwrap_or_else(|| folder.join("heads.work"));
    std::fs::create_dir_all(&work).map_err(calm_files::Error::write(&work))?;
    let _lock = crate::checkpoint::lock(&work)?;
    let recording = Recording { weights: &hash, layers, config, work: &work };
    let states = recording.read_or_record(&mut engine, material)?;
    drop(engine);

    let divided = states.divide(HELD_OUT);
    let vocabulary = match config.vocabulary {
        Some(share) => Some(Coverage::new(share, &divided, &shape)?),
        None => None,
    };
    let known = vocabulary.as_ref().map(|coverage| &coverage.tokens[..]);
    let shared = SharedHead::read(model)?;
    let network = Network::new(&shared, &shape, known, config, layers, device);
    let training = Training { network: &network, config, device, work: &work, weights: &hash };
    let heads = training.learn(&divided.trained_on)?;
    let confidences = training.confidences(&heads, &divided.confidence);
    let scores = training.scores(&heads, &confidences, &divided.held_out);

    let invalid = |reason| Error::Heads { reason };
    let fitted_to = FittedTo { tokens: states.tokens(), sources: hashes(rows) };
    let exit_heads = ExitHeads::new(heads, known.map(<[Token]>::to_vec), fitted_to, &shape)
        .and_then(|heads| heads.with_confidences(confidences, &shape))
        .map_err(invalid)?;
    let about = serde_json::json!({ "layers": scores, "vocabulary": vocabulary });
    write_exit_heads(&folder, &exit_heads, &hash, about)?;
    if config.work.is_none() {
        std::fs::remove_dir_all(&work).map_err(calm_files::Error::write(&work))?;
    }
    Ok(TrainedHeads { path, held_out_tokens: divided.held_out.tokens(), vocabulary, scores })
}

/// The backbone without exit heads, whatever lies beside it.
fn load(model: &Path, config: &HeadsConfig, device: Device) -> Result<Engine, Error> {
    let device = match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    };
    let options = EngineOptions {
        device: Some(device),
        workers: config.workers.max(1),
        threads_per_worker: 1,
        without_exit_heads: true,
        ..EngineOptions::default()
    };
    // Sources are tokens already.
    Engine::with_codec(model, &options, None).map_err(|error| Error::Heads { reason: format!("{error:#}") })
}

/// The layers that get a head.
fn layers(config: &HeadsConfig, num_layers: usize) -> Result<Exits, Error> {
    let layers = config.layers.unwrap_or(Exits::all_below(num_layers));
    // A head that knows a part of the vocabulary saves something after the last layer, too.
    if config.vocabulary.is_none() {
        layers.check(num_layers).map_err(|error| Error::Heads { reason: error.to_string() })?;
    } else if layers.up_to(num_layers) != layers {
        let reason = format!("the decoder has {num_layers} layers, and not all of {layers}");
        return Err(Error::Heads { reason });
    }
    match layers.is_empty() {
        true => Err(Error::Heads { reason: "a decoder of one layer has no layer below its last".to_owned() }),
        false => Ok(layers),
    }
}

/// The hashes of sources, ascending, each once.
fn hashes(sources: &[Vec<Token>]) -> Vec<String> {
    let mut hashes: Vec<String> = sources.iter().map(|source| source_hash(source)).collect();
    hashes.sort();
    hashes.dedup();
    hashes
}

/// States that are trained on, that confidences are fitted to, and that are held out.
pub(crate) struct Divided {
    pub(crate) trained_on: States,
    pub(crate) confidence: States,
    pub(crate) held_out: States,
}

/// What is known of heads by their layers.
type ByLayer<T> = BTreeMap<usize, T>;
