//! Engines that fail, or break their side of the contract.

use calm_core::{
    Backbone, BackboneShape, BeamOptions, Cost, DecodeError, DecodeOptions, DecoderSession, EngineError,
    Entry, ExitClassifier, Matrix, PolicyError, PolicySpec, Prompt, StaticDepth, Token, beam_search, decode,
};

/// Gives one answer too few or an error, in one method, or numbers that are too large; elsewhere every state
/// is `[1]` and the best token is 0.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    Error,
    Hidden,
    Top2,
    Predict,
    /// States from layer 2 on.
    States(f32),
    /// Logits of layer 2, of states that are finite.
    Logits,
}

struct Flawed {
    shape: BackboneShape,
    flaw: Flaw,
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("out of memory")]
struct OutOfMemory;

impl Backbone for Flawed {
    fn shape(&self) -> &BackboneShape {
        &self.shape
    }

    fn exit_classifier(&self) -> Option<&ExitClassifier> {
        None
    }

    fn read<'a>(&'a self, _: &[&[Token]]) -> Result<Box<dyn Prompt + 'a>, EngineError> {
        Ok(Box::new(FlawedPrompt(self)))
    }
}

struct FlawedPrompt<'a>(&'a Flawed);

impl Prompt for FlawedPrompt<'_> {
    fn shape(&self) -> &BackboneShape {
        &self.0.shape
    }

    fn first_inputs(&self) -> Vec<Token> {
        vec![0; 2]
    }

    fn start(&self, _: usize) -> Result<Box<dyn DecoderSession + '_>, EngineError> {
        Ok(Box::new(FlawedSession { flaw: self.0.flaw, layer: 0 }))
    }
}

struct FlawedSession {
    flaw: Flaw,
    layer: usize,
}

impl FlawedSession {
    fn answers(&self, flaw: Flaw, entries: &[Entry]) -> usize {
        entries.len() - usize::from(self.flaw == flaw)
    }
}

impl DecoderSession for FlawedSession {
    fn embed(&mut self, _: &[Entry], _: &[Token]) -> Result<(), EngineError> {
        self.layer = 0;
        Ok(())
    }

    fn run_layer(&mut self, layer: usize, _: &[Entry]) -> Result<(), EngineError> {
        self.layer = layer;
        if self.flaw == Flaw::Error && layer == 2 { Err(EngineError::new(OutOfMemory)) } else { Ok(()) }
    }

    fn propagate(&mut self, _: usize, _: &[Entry]) -> Result<(), EngineError> {
        Ok(())
    }

    fn hidden(&mut self, entries: &[Entry]) -> Result<Matrix, EngineError> {
        let state = match self.flaw {
            Flaw::States(state) if self.layer >= 2 => state,
            _ => 1.0,
        };
        Ok(Matrix { data: vec![state; self.answers(Flaw::Hidden, entries)], columns: 1 })
    }

    fn set_hidden(&mut self, _: &[Entry], _: &Matrix) -> Result<(), EngineError> {
        Ok(())
    }

    fn logits(&mut self, entries: &[Entry]) -> Result<Matrix, EngineError> {
        let logits = match self.flaw {
            // A norm of zeros if the square is infinite.
            Flaw::States(state) if self.layer >= 2 => [0.0 * state; 2],
            Flaw::Logits if self.layer == 2 => [f32::INFINITY; 2],
            _ => [1.0, 0.0],
        };
        Ok(Matrix { data: logits.repeat(self.answers(Flaw::Top2, entries)), columns: 2 })
    }

    fn logits_of(&mut self, states: &Matrix) -> Result<Matrix, EngineError> {
        let count = states.num_rows() - usize::from(self.flaw == Flaw::Top2);
        let logits = if self.flaw == Flaw::Logits { [f32::INFINITY; 2] } else { [1.0, 0.0] };
        Ok(Matrix { data: logits.repeat(count), columns: 2 })
    }

    fn predict(&mut self, entries: &[Entry]) -> Result<Vec<Token>, EngineError> {
        Ok(vec![0; self.answers(Flaw::Predict, entries)])
    }

    fn crop(&mut self, _: usize, _: usize) -> Result<(), EngineError> {
        Ok(())
    }
}

fn flawed(flaw: Flaw) -> Flawed {
    let (flops, bytes) = (Cost::default(), Cost::default());
    let shape = BackboneShape { num_layers: 3, d_model: 1, vocab_size: 2, eos_tokens: vec![1], flops, bytes };
    Flawed { shape, flaw }
}

fn failure(flaw: Flaw, policy: &str) -> String {
    let (flawed, policy) = (flawed(flaw), policy.parse::<PolicySpec>().unwrap());
    let policy = policy.make(&flawed).unwrap();
    decode(&FlawedPrompt(&flawed), &*policy, &DecodeOptions::new(4)).unwrap_err().to_string()
}

#[test]
fn failures_of_the_engine_are_passed_on() {
    for policy in ["full", "oracle", "calm-softmax-0.999"] {
        assert_eq!(failure(Flaw::Error, policy), "out of memory");
    }
}

#[test]
fn missing_answers_are_noticed() {
    let check = |flaw: Flaw, policy: &str, call: &str| {
        let message = format!("the engine's {call} answered for 1 rows instead of 2");
        assert_eq!(failure(flaw, policy), message);
    };
    check(Flaw::Hidden, "calm-state-0.999", "hidden");
    check(Flaw::Top2, "calm-softmax-0.999", "top2");
    check(Flaw::Top2, "oracle", "top2");
    check(Flaw::Predict, "full", "predict");
}

#[test]
fn a_depth_that_the_decoder_has_not_is_refused() {
    let flawed = flawed(Flaw::Error);
    for layers in [0, 4] {
        let failed =
            decode(&FlawedPrompt(&flawed), &StaticDepth { layers }, &DecodeOptions::new(4)).unwrap_err();
        let expected = PolicyError::StaticLayers { layers, available: 3 };
        assert!(matches!(&failed, DecodeError::Policy(error) if *error == expected), "{failed}");
    }
}

/// Whoever asks first, and wherever a token leaves: the layer that made the state is named.
#[test]
fn numbers_that_are_not_finite_are_an_error_of_layer_and_step() {
    let what = |of: &str| format!("{of} of row 0 of the batch are not finite after layer 2 at step 1: ");
    for state in [f32::NAN, f32::INFINITY, -1e25] {
        for policy in [
            "full",
            "static-2",
            "oracle",
            "patience-1",
            "calm-softmax-0.999",
            "calm-pruned-0.999",
            "calm-state-0.999",
            "calm-state-0-exits2",
            "shallow-cache-1",
            "oracle-copied",
            "perturbed-sampling-0",
            // It uses nothing of what the last layer makes of the first token.
            "perturbed-layer-1",
        ] {
            let message = failure(Flaw::States(state), policy);
            assert!(message.starts_with(&what("the states")), "{state} {policy}: {message}");
        }
    }
    for policy in ["oracle", "calm-softmax-0.999", "calm-pruned-0.999"] {
        let message = failure(Flaw::Logits, policy);
        assert!(message.starts_with(&what("the logits")), "{policy}: {message}");
    }
    let beams = |flaw: Flaw| {
        let mut flawed = flawed(flaw);
        // Both tokens go on.
        flawed.shape.eos_tokens.clear();
        beam_search(&FlawedPrompt(&flawed), &BeamOptions::new(2, 4)).unwrap_err().to_string()
    };
    let message = beams(Flaw::States(f32::NAN));
    let expected = "the states of row 0 of the batch are not finite after layer 3 at step 1: ";
    assert!(message.starts_with(expected), "{message}");
    // Token 0 is an answer like others where nothing is wrong.
    assert_eq!(beams(Flaw::States(1.0)), "this engine does not copy rows, which beam search needs");
    let (flawed, policy) = (flawed(Flaw::States(1.0)), "full".parse::<PolicySpec>().unwrap());
    let policy = policy.make(&flawed).unwrap();
    let decoded = decode(&FlawedPrompt(&flawed), &*policy, &DecodeOptions::new(4)).unwrap();
    assert_eq!(decoded[1].tokens, [0; 4]);
}
