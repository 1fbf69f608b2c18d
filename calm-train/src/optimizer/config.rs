use calm_names::names;
use serde::{Deserialize, Serialize};

/// How the parameters follow the gradient. Keys without a value have the default of the kind.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// The rule of the optimiser.
    pub kind: OptimizerKind,
    /// The largest learning rate of the schedule.
    pub learning_rate: f64,
    /// Decay of the mean of gradients, in [0,1). AdamW has 0.9; Adafactor has none, which saves the memory of
    /// a mean.
    pub beta1: Option<f64>,
    /// Decay of AdamW's mean of the gradients' squares, in [0,1); 0.98 by default.
    pub beta2: Option<f64>,
    /// Number that AdamW adds to the root of that mean; 1e-8 by default.
    pub epsilon: Option<f64>,
    /// Exponent x of Adafactor, in (0,1], whose mean of squares decays by 1 - t^-x in step t; 0.8 by default.
    pub decay_exponent: Option<f64>,
    /// Largest root mean square of Adafactor's updates, to which larger ones are shortened; 1.0 by default.
    pub clip_threshold: Option<f64>,
    /// Number that Adafactor adds to the squares of gradients; 1e-30 by default.
    pub epsilon1: Option<f64>,
    /// Least root mean square that `parameter_scale` assumes.
    ///
    /// With it a tensor that is all zero can leave zero.
    pub epsilon2: f64,
    /// Factor on the learning rate by which matrices (not the norms' weights) shrink in each step.
    ///
    /// AdamW has 0.01, Adafactor 0.
    pub weight_decay: Option<f64>,
    /// Largest norm of a gradient, to which longer ones are shortened.
    pub clip_norm: f64,
    /// Whether the learning rate is relative: each tensor moves by `learning_rate` times its own root mean
    /// square.
    ///
    /// See Shazeer and Stern 2018, section 8. T5's initialisation counts on that: its queries start seven
    /// times smaller than other matrices and its embedding fourteen times larger (at d_kv 48 and d_model
    /// 192), so that one absolute rate saturates the attention while the embedding stands still.
    pub parameter_scale: bool,
    /// Decay of an exponential moving average of the parameters, in [0,1).
    ///
    /// With it, the average is what is validated and published. In step t the decay is at most
    /// (1 + t) / (10 + t), so that the start is forgotten. Without a value there is no average.
    pub ema_decay: Option<f64>,
    /// Number of batches whose gradients make one step.
    ///
    /// The gradient is that of their mean loss per target token, as if they were one batch.
    pub accumulate: u32,
}

/// The kinds of optimisers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum OptimizerKind {
    /// The rule of Loshchilov and Hutter 2019.
    #[default]
    AdamW,
    /// The rule of Shazeer and Stern 2018.
    ///
    /// It keeps only the means over rows and columns of a matrix's second moments.
    Adafactor,
}

impl OptimizerConfig {
    /// Finds the first key whose value makes no sense, and says why.
    pub(crate) fn check(&self) -> Result<(), (String, String)> {
        let fail = |key: &str, reason: String| Err((format!("optimizer.{key}"), reason));
        let of_one_kind = [
            ("beta2", self.beta2, OptimizerKind::AdamW),
            ("epsilon", self.epsilon, OptimizerKind::AdamW),
            ("decay_exponent", self.decay_exponent, OptimizerKind::Adafactor),
            ("clip_threshold", self.clip_threshold, OptimizerKind::Adafactor),
            ("epsilon1", self.epsilon1, OptimizerKind::Adafactor),
        ];
        if let Some((key, _, kind)) =
            of_one_kind.into_iter().find(|(_, value, kind)| value.is_some() && *kind != self.kind)
        {
            return fail(key, format!("has a meaning for {kind} alone"));
        }
        let fractions = [("beta1", self.beta1), ("beta2", self.beta2), ("ema_decay", self.ema_decay)];
        for (key, value) in fractions {
            if let Some(value) = value.filter(|value| !(0.0..1.0).contains(value)) {
                return fail(key, format!("is {value}, but must be at least 0 and below 1"));
            }
        }
        let positive = [
            ("learning_rate", Some(self.learning_rate)),
            ("epsilon", self.epsilon),
            ("clip_threshold", self.clip_threshold),
            ("epsilon1", self.epsilon1),
            ("epsilon2", Some(self.epsilon2)),
            ("clip_norm", Some(self.clip_norm)),
            ("accumulate", Some(f64::from(self.accumulate))),
        ];
        for (key, value) in positive {
            if let Some(value) = value.filter(|value| !(value.is_finite() && *value > 0.0)) {
                return fail(key, format!("is {value}, but must be positive"));
            }
        }
        if let Some(exponent) = self.decay_exponent.filter(|value| !(*value > 0.0 && *value <= 1.0)) {
            return fail("decay_exponent", format!("is {exponent}, but must be above 0 and at most 1"));
        }
        if let Some(decay) = self.weight_decay.filter(|value| !(value.is_finite() && *value >= 0.0)) {
            return fail("weight_decay", format!("is {decay}, but must be at least 0"));
        }
        Ok(())
    }

    /// The weight decay in force.
    pub(super) fn weight_decay(&self) -> f64 {
        self.weight_decay.unwrap_or(match self.kind {
            OptimizerKind::AdamW => 0.01,
            OptimizerKind::Adafactor => 0.0,
        })
    }
}

impl OptimizerKind {
    /// Start of the names that the kind's tensors have in a checkpoint.
    pub(super) fn state_prefix(self) -> &'static str {
        match self {
            OptimizerKind::AdamW => "adam.",
            OptimizerKind::Adafactor => "adafactor.",
        }
    }
}

names!(OptimizerKind, "optimiser", { AdamW => "adamw", Adafactor => "adafactor" });

impl Default for OptimizerConfig {
    fn default() -> Self {
        OptimizerConfig {
            kind: OptimizerKind::default(),
            learning_rate: 1e-3,
            beta1: None,
            beta2: None,
            epsilon: None,
            decay_exponent: None,
            clip_threshold: None,
            epsilon1: None,
            epsilon2: 1e-3,
            weight_decay: None,
            clip_norm: 1.0,
            parameter_scale: false,
            ema_decay: None,
            accumulate: 1,
        }
    }
}
