//! What the steps of a checkpoint were made with, and which of it a run that goes on from there may change.

use std::collections::BTreeMap;

use calm_files::hex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::config::TrainConfig;

/// What the steps up to a checkpoint depend on, besides the numbers of its `RunState`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MadeWith {
    /// SHA-256 of the weights of `init`, in hexadecimal; `None` if the run began with random weights.
    pub init: Option<String>,
    /// SHA-256 of `tokenizer.json`, in hexadecimal.
    pub tokenizer: String,
    /// The values of the configuration that decide a step, by their keys.
    pub settings: BTreeMap<String, Value>,
}

/// The parts of a configuration that decide a step. Network and data are compared by what they contain.
const OF_A_STEP: [&str; 4] = ["precision", "objective", "optimizer", "schedule"];

/// The keys that no run changes on its way, and why.
const FIXED: [(&str, &str); 1] =
    [("optimizer.accumulate", "its place in the data is counted in steps of so many batches")];

impl MadeWith {
    /// Describes the steps of a run, where `init` is the hash of the weights that it begins with.
    ///
    /// # Errors
    /// Fails if the tokenizer cannot be read.
    pub(crate) fn new(config: &TrainConfig, init: Option<String>) -> Result<Self, Error> {
        let path = config.tokenizer_file();
        let tokenizer = hex(&Sha256::digest(calm_files::read(&path)?));
        let values = serde_json::to_value(config).map_err(calm_files::Error::json(&config.checkpoints))?;
        let mut settings = BTreeMap::new();
        for key in OF_A_STEP {
            flatten(key, &values[key], &mut settings);
        }
        Ok(MadeWith { init, tokenizer, settings })
    }

    /// Lists what differs in a run that goes on from here, as lines for its user.
    ///
    /// # Errors
    /// Fails with the reason if the run cannot go on with such a difference.
    pub(crate) fn changes(&self, now: &MadeWith) -> Result<Vec<String>, String> {
        match (&self.init, &now.init) {
            (before, now) if before == now => {}
            (None, Some(_)) => return Err("it began with random weights, not with those of init".to_owned()),
            (Some(_), None) => return Err("it began with the weights of an init".to_owned()),
            _ => return Err("it began with other weights than those of init".to_owned()),
        }
        let mut changes = Vec::new();
        if self.tokenizer != now.tokenizer {
            changes.push("tokenizer.json is another one, which divides the data alike".to_owned());
        }
        for (key, value) in &now.settings {
            // An earlier version may not have had the key.
            let Some(before) = self.settings.get(key).filter(|before| *before != value) else { continue };
            if let Some((_, reason)) = FIXED.iter().find(|(fixed, _)| fixed == key) {
                return Err(format!("{key} was {}, not {}: {reason}", shown(before), shown(value)));
            }
            changes.push(format!("{key} is {} from here on; it was {}", shown(value), shown(before)));
        }
        Ok(changes)
    }
}

/// Adds the values below `key`, each by its whole key.
fn flatten(key: &str, value: &Value, settings: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(table) => {
            for (name, value) in table {
                flatten(&format!("{key}.{name}"), value, settings);
            }
        }
        value => {
            settings.insert(key.to_owned(), value.clone());
        }
    }
}

fn shown(value: &Value) -> String {
    if value.is_null() { "not set".to_owned() } else { value.to_string() }
}
