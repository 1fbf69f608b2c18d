//! A corpus that a network of a few thousand parameters learns in a second.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use calm_train::TrainConfig;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

const NUMBERS: [(&str, &str); 10] = [
    ("one", "un"),
    ("two", "deux"),
    ("three", "trois"),
    ("four", "quatre"),
    ("five", "cinq"),
    ("six", "six"),
    ("seven", "sept"),
    ("eight", "huit"),
    ("nine", "neuf"),
    ("ten", "dix"),
];

/// Takes the lock that a test holds while it draws random numbers of libtorch.
///
/// They belong to the process, so that two runs would disturb each other.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static RUN: Mutex<()> = Mutex::new(());
    RUN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder with a corpus of numbers in two languages, its tokenizer, and the runs on it.
pub(crate) struct Tiny {
    folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Tiny {
    pub(crate) fn new() -> Tiny {
        tch::set_num_threads(1);
        let tiny = Tiny { _alone: alone(), folder: tempfile::tempdir().unwrap() };
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut corpus = String::new();
        for _ in 0..150 {
            let length = random.random_range(1..=4);
            let pairs: Vec<_> = (0..length).map(|_| NUMBERS[random.random_range(0..10)]).collect();
            let (sources, targets): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            let line = serde_json::json!({ "source": sources.join(" "), "target": targets.join(" ") });
            corpus += &format!("{line}\n");
        }
        std::fs::write(tiny.path("corpus.jsonl"), corpus).unwrap();
        let texts: Vec<(&str, u32)> =
            NUMBERS.iter().flat_map(|&(source, target)| [(source, 1), (target, 1)]).collect();
        let tokenizer = calm_data::tokenizer::train(&texts, 35).unwrap();
        calm_data::tokenizer::save(&tokenizer, &tiny.path("tokenizer.json")).unwrap();
        tiny
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes the configuration of a run that writes to `NAME` and `NAME.checkpoints`.
    pub(crate) fn config(&self, name: &str) -> TrainConfig {
        let file = self.path("run.toml");
        std::fs::write(&file, configuration(self.folder.path(), name)).unwrap();
        TrainConfig::load(&file, &[]).unwrap()
    }
}

/// Writes the text of a complete configuration.
pub(crate) fn configuration(folder: &Path, name: &str) -> String {
    let folder = folder.display();
    format!(
        r#"seed = 1
output = "{folder}/{name}"
checkpoints = "{folder}/{name}.checkpoints"
tokenizer = "{folder}/tokenizer.json"
checkpoint_every = 5

[model]
d_model = 32
d_kv = 8
d_ff = 32
num_heads = 2
num_layers = 1
num_decoder_layers = 3

[data]
max_source_tokens = 16
max_target_tokens = 16
batch_tokens = 500

[[data.tasks]]
name = "numbers"
train = "{folder}/corpus.jsonl"

[objective]
sampled_exits = 1
label_smoothing = 0.1
dropout = 0.1

[optimizer]
learning_rate = 0.01

[schedule]
steps = 12
warmup_steps = 4
curve = "stable"

[classifier]
steps = 5

[validation]
examples = 4
batch_size = 4

[confidence]
examples = 0
"#
    )
}
