//! Exits at depths that were measured: a model of random weights takes the layers that a trained one needed.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use calm_core::{
    Backbone, Decision, DecodeError, Entry, Layer, Parameters, Policy, PolicyError, PolicySpec, StepPolicy,
    Threshold,
};
use calm_data::{JsonLines, open_text};
use serde::Deserialize;

/// Where the tokens of some outputs left.
#[derive(Clone)]
pub(super) struct ExitTrace {
    file: PathBuf,
    outputs: Vec<TracedOutput>,
}

#[derive(Clone)]
struct TracedOutput {
    /// Line of the file, from 1.
    line: usize,
    /// By position, at least one.
    exit_layers: Vec<usize>,
}

/// What is read of a line that `calm generate` wrote.
#[derive(Deserialize)]
#[serde(expecting = "an object with exit_layers")]
struct TraceLine {
    exit_layers: Vec<usize>,
}

/// Tests exits as another policy does, but has each token leave where the trace says.
struct Traced {
    trace: ExitTrace,
    /// Every test of this one would let its token leave.
    tests: Box<dyn Policy>,
}

struct Step<'a> {
    trace: &'a ExitTrace,
    tests: Box<dyn StepPolicy + 'a>,
}

impl ExitTrace {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let mut outputs = Vec::new();
        for line in JsonLines::<_, TraceLine>::new(open_text(path)?, path) {
            let (line, TraceLine { exit_layers }) = line?;
            ensure!(!exit_layers.is_empty(), "{}:{line}: no exit layers", path.display());
            outputs.push(TracedOutput { line, exit_layers });
        }
        ensure!(!outputs.is_empty(), "{} holds no line with exit layers", path.display());
        Ok(ExitTrace { file: path.to_owned(), outputs })
    }

    /// The policy that tests as `spec` does and exits as the trace does. All layers for every token remain
    /// what they are.
    pub(super) fn policy(
        &self,
        spec: &PolicySpec,
        backbone: &dyn Backbone,
    ) -> anyhow::Result<Box<dyn Policy>> {
        if *spec == PolicySpec::full() {
            return Ok(spec.make(backbone)?);
        }
        let num_layers = backbone.shape().num_layers;
        let parameters = spec.parameters();
        ensure!(
            parameters.measure.is_some() && !spec.is_full(num_layers),
            "{spec} tests no exits by a measure, which --exit-trace needs"
        );
        for TracedOutput { line, exit_layers } in &self.outputs {
            if let Some(layer) = exit_layers.iter().find(|layer| !(1..=num_layers).contains(layer)) {
                let file = self.file.display();
                bail!("{file}:{line}: an exit at layer {layer}, but the decoder has {num_layers}");
            }
        }
        // A test that lets its token leave also says which token that is, if it knows.
        let always = Threshold::new(0.0, None)?;
        let tests = PolicySpec::new(spec.kind().name, Parameters { threshold: Some(always), ..*parameters })?;
        Ok(Box::new(Traced { trace: self.clone(), tests: tests.make(backbone)? }))
    }

    /// Where the token at `entry` leaves, and the line that says so. Both outputs and their tokens come again
    /// when there are no more.
    fn exit(&self, entry: Entry) -> (usize, usize) {
        let TracedOutput { line, exit_layers } = &self.outputs[entry.row % self.outputs.len()];
        (exit_layers[entry.position % exit_layers.len()], *line)
    }
}

impl Policy for Traced {
    fn depth(&self, num_layers: usize) -> usize {
        self.tests.depth(num_layers)
    }

    fn begin_step(&self, max_tokens: usize) -> Box<dyn StepPolicy + '_> {
        Box::new(Step { trace: &self.trace, tests: self.tests.begin_step(max_tokens) })
    }
}

impl StepPolicy for Step<'_> {
    fn decide(&mut self, layer: &mut Layer<'_>, decisions: &mut [Decision]) -> Result<(), DecodeError> {
        self.tests.decide(layer, decisions)?;
        for (&entry, decision) in layer.entries().iter().zip(decisions) {
            let (exit, line) = self.trace.exit(entry);
            if exit != layer.number() {
                (decision.exit_layer, decision.token) = (None, None);
                continue;
            }
            if decision.confidence.is_none() && !layer.is_last() {
                let file = self.trace.file.display();
                let message = format!("{file}:{line}: an exit at layer {exit}, where the policy tests none");
                return Err(PolicyError::Form(message).into());
            }
            decision.exit_layer = Some(exit);
        }
        Ok(())
    }
}
