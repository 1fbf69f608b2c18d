use std::path::{Path, PathBuf};

use calm_checkpoint::{SpecialTokens, T5Config};
use calm_engine::limits::{LAYERS, ROWS, TOKENS, WIDTH};
use calm_files::{Document, Error};

use super::{ExitSampling, ExitWeights, ModelConfig, ShallowDeepConfig, TrainConfig};

impl TrainConfig {
    /// Reads a configuration, applies `overrides` (each `KEY.PATH=VALUE`, a TOML value or else a string) and
    /// checks it.
    ///
    /// # Errors
    /// The file is missing, is not TOML, has an unknown or missing key, or a value out of range; the message
    /// has the file and the line, or the override, and the key's path.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, Error> {
        let document = Document::read(path, overrides)?;
        let config: TrainConfig = document.deserialize()?;
        config.check().map_err(|(key, reason)| document.invalid(&key, reason))?;
        Ok(config)
    }

    /// `tokenizer.json`.
    pub fn tokenizer_file(&self) -> PathBuf {
        match (&self.tokenizer, &self.init) {
            (Some(file), _) => file.clone(),
            (None, Some(init)) => init.join("tokenizer.json"),
            (None, None) => PathBuf::from("tokenizer.json"),
        }
    }

    /// Checks the keys of the objective of two exits, which leaves nothing to what others say of exits.
    fn check_shallow_deep(&self, shallow_deep: &ShallowDeepConfig) -> Result<(), (String, String)> {
        let fail = |key: &str, reason: String| Err((format!("objective.{key}"), reason));
        let objective = &self.objective;
        let others = [
            ("exit_weights", objective.exit_weights != ExitWeights::Linear),
            ("last_weight", objective.last_weight.is_some()),
            ("sampled_exits", objective.sampled_exits.is_some()),
            ("sampling", objective.sampling != ExitSampling::Random),
            ("distillation", objective.distillation > 0.0),
        ];
        if let Some((key, _)) = others.into_iter().find(|(_, is_set)| *is_set) {
            return fail(key, "is excluded by objective.shallow_deep, which has two exits".to_owned());
        }
        let ShallowDeepConfig { layer, distillation, .. } = *shallow_deep;
        if layer == 0 {
            return fail("shallow_deep.layer", "is 0, but layers count from 1".to_owned());
        }
        if let Some(model) = self.model.as_ref().filter(|model| layer as i64 >= model.num_decoder_layers) {
            let layers = model.num_decoder_layers;
            let reason = format!("is {layer}, but must be below the last of the decoder's {layers} layers");
            return fail("shallow_deep.layer", reason);
        }
        if !(distillation.is_finite() && distillation >= 0.0) {
            let reason = format!("is {distillation}, but must be at least 0");
            return fail("shallow_deep.distillation", reason);
        }
        Ok(())
    }

    /// The first key whose value makes no sense, and why.
    fn check(&self) -> Result<(), (String, String)> {
        let fail = |key: &str, reason: String| Err((key.to_owned(), reason));
        let fractions = [
            ("objective.label_smoothing", self.objective.label_smoothing),
            ("objective.dropout", self.objective.dropout),
            ("objective.layer_dropout", self.objective.layer_dropout),
            ("objective.distillation", self.objective.distillation),
            ("objective.last_weight", self.objective.last_weight.unwrap_or(0.0)),
        ];
        if let Some((key, value)) = fractions.into_iter().find(|(_, value)| !(0.0..1.0).contains(value)) {
            return fail(key, format!("is {value}, but must be at least 0 and below 1"));
        }
        match (&self.model, &self.init) {
            (Some(_), Some(_)) => return fail("init", "excludes the table model".to_owned()),
            (None, None) => return fail("model", "is missing, and so is init".to_owned()),
            (Some(_), None) if self.tokenizer.is_none() => {
                return fail("tokenizer", "is missing, which only init makes up for".to_owned());
            }
            _ => {}
        }
        let model = self.model.iter().flat_map(|model| {
            [
                ("model.d_model", model.d_model as f64),
                ("model.d_kv", model.d_kv as f64),
                ("model.d_ff", model.d_ff as f64),
                ("model.num_heads", model.num_heads as f64),
                ("model.num_layers", model.num_layers as f64),
                ("model.num_decoder_layers", model.num_decoder_layers as f64),
            ]
        });
        let others = [
            ("classifier.learning_rate", self.classifier.learning_rate),
            ("data.max_source_tokens", self.data.max_source_tokens as f64),
            ("data.max_target_tokens", self.data.max_target_tokens as f64),
            ("validation.batch_size", self.validation.batch_size as f64),
            ("checkpoint_every", self.checkpoint_every as f64),
            ("max_file_bytes", self.max_file_bytes as f64),
        ];
        let unfit = |(_, value): &(&str, f64)| !(value.is_finite() && *value > 0.0);
        if let Some((key, value)) = model.chain(others).find(unfit) {
            return fail(key, format!("is {value}, but must be positive"));
        }
        let model = self.model.iter().flat_map(|model| {
            [
                ("model.d_model", model.d_model, WIDTH),
                ("model.d_kv", model.d_kv, WIDTH),
                ("model.d_ff", model.d_ff, WIDTH),
                ("model.num_heads", model.num_heads, WIDTH),
                ("model.num_layers", model.num_layers, LAYERS),
                ("model.num_decoder_layers", model.num_decoder_layers, LAYERS),
            ]
        });
        for (key, value, limit) in model {
            limit.check(value).map_err(|reason| (key.to_owned(), reason))?;
        }
        let others = [
            ("data.max_source_tokens", self.data.max_source_tokens, TOKENS),
            ("data.max_target_tokens", self.data.max_target_tokens, TOKENS),
            ("validation.batch_size", self.validation.batch_size, ROWS),
        ];
        for (key, value, limit) in others {
            limit.check(value).map_err(|reason| (key.to_owned(), reason))?;
        }
        self.optimizer.check()?;
        self.schedule.check()?;
        if !(self.loss_spike.is_finite() && self.loss_spike >= 0.0) {
            return fail("loss_spike", format!("is {}, but must be at least 0", self.loss_spike));
        }
        if self.data.tasks.is_empty() {
            return fail("data.tasks", "lists no tasks".to_owned());
        }
        for (number, task) in self.data.tasks.iter().enumerate() {
            let key = |key: &str| format!("data.tasks[{number}].{key}");
            if task.name.is_empty() || !task.name.chars().all(|c| c.is_alphanumeric() || "-_".contains(c)) {
                let reason = "may have letters, digits, - and _, and must have one of them";
                return fail(&key("name"), format!("is {:?}, but {reason}", task.name));
            }
            if self.data.tasks[..number].iter().any(|other| other.name == task.name) {
                return fail(&key("name"), format!("is {:?}, as that of an earlier task", task.name));
            }
            if !(task.weight.is_finite() && task.weight > 0.0) {
                return fail(&key("weight"), format!("is {}, but must be positive", task.weight));
            }
        }
        let (batch, source) = (self.data.batch_tokens, self.data.max_source_tokens);
        let longest = source.saturating_add(self.data.max_target_tokens);
        if batch < longest {
            return fail("data.batch_tokens", format!("is {batch}, but one example may have {longest}"));
        }
        if self.objective.sampled_exits == Some(0) {
            let reason = "is 0, which leaves the last exit alone: that is exit_weights = \"last\"";
            return fail("objective.sampled_exits", reason.to_owned());
        }
        if let Some(shallow_deep) = &self.objective.shallow_deep {
            self.check_shallow_deep(shallow_deep)?;
        }
        let one_layer = self.model.as_ref().is_some_and(|model| model.num_decoder_layers == 1);
        if one_layer && self.classifier.steps > 0 {
            let reason = "must be 0 for a decoder of one layer, which has no early exit";
            return fail("classifier.steps", reason.to_owned());
        }
        if self.validation.patience > 0 && self.validation.every == 0 {
            return fail("validation.patience", "needs validation.every".to_owned());
        }
        if self.schedule.steps == 0 && (self.init.is_none() || self.classifier.steps == 0) {
            let reason = "is 0, which is allowed only with init and classifier.steps above 0";
            return fail("schedule.steps", reason.to_owned());
        }
        Ok(())
    }
}

impl ModelConfig {
    /// The network's `config.json` over a vocabulary of the given size with the given special tokens.
    pub fn t5_config(&self, vocab_size: usize, tokens: SpecialTokens) -> T5Config {
        T5Config {
            d_model: self.d_model,
            d_kv: self.d_kv,
            d_ff: self.d_ff,
            num_layers: self.num_layers,
            num_decoder_layers: Some(self.num_decoder_layers),
            num_heads: self.num_heads,
            vocab_size: vocab_size as i64,
            tie_word_embeddings: self.tie_word_embeddings,
            scale_decoder_outputs: Some(self.tie_word_embeddings),
            feed_forward_proj: calm_checkpoint::FeedForward::GatedGelu,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            pad_token_id: tokens.pad,
            eos_token_id: vec![tokens.end],
            decoder_start_token_id: Some(tokens.pad),
            generation_eos_token_id: None,
        }
    }
}
