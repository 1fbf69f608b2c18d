//! Engines that fail, or break their side of the contract.

use calm_core::{
    Backbone, BackboneShape, CacheEntry, DecodeError, DecodeOptions, DecoderSession, ExitClassifier, Matrix,
    Measure, Policy, PolicyError, Propagation, Threshold, Token, decode,
};

/// Gives one answer too few or an error, in one method; elsewhere every state is `[1]` and the best token is
/// 0.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    Error,
    Hidden,
    Top2,
    Predict,
}

struct Flawed {
    shape: BackboneShape,
    flaw: Flaw,
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("out of memory")]
struct OutOfMemory;

impl Backbone for Flawed {
    type Error = OutOfMemory;
    type Encoded = ();
    type Session<'a> = FlawedSession;

    fn shape(&self) -> &BackboneShape {
        &self.shape
    }

    fn exit_classifier(&self) -> Option<&ExitClassifier> {
        None
    }

    fn encode(&self, _: &[&[Token]]) -> Result<(), OutOfMemory> {
        Ok(())
    }

    fn start(&self, (): &(), _: usize) -> Result<FlawedSession, OutOfMemory> {
        Ok(FlawedSession { flaw: self.flaw })
    }
}

struct FlawedSession {
    flaw: Flaw,
}

impl FlawedSession {
    fn answers(&self, flaw: Flaw, rows: &[usize]) -> usize {
        rows.len() - usize::from(self.flaw == flaw)
    }
}

impl DecoderSession for FlawedSession {
    type Error = OutOfMemory;

    fn begin_step(&mut self, _: usize, _: &[usize], _: &[Token]) -> Result<(), OutOfMemory> {
        Ok(())
    }

    fn run_layer(&mut self, layer: usize, _: &[usize]) -> Result<(), OutOfMemory> {
        if self.flaw == Flaw::Error && layer == 2 { Err(OutOfMemory) } else { Ok(()) }
    }

    fn hidden(&mut self, _: usize, rows: &[usize]) -> Result<Matrix, OutOfMemory> {
        Ok(Matrix { data: vec![1.0; self.answers(Flaw::Hidden, rows)], columns: 1 })
    }

    fn logits(&mut self, _: usize, rows: &[usize]) -> Result<Matrix, OutOfMemory> {
        Ok(Matrix { data: [1.0, 0.0].repeat(self.answers(Flaw::Top2, rows)), columns: 2 })
    }

    fn keep(&mut self, _: usize, _: &[usize]) -> Result<(), OutOfMemory> {
        Ok(())
    }

    fn predict(&mut self, rows: &[usize]) -> Result<Vec<Token>, OutOfMemory> {
        Ok(vec![0; self.answers(Flaw::Predict, rows)])
    }

    fn propagate(&mut self, _: usize, _: &[CacheEntry]) -> Result<(), OutOfMemory> {
        Ok(())
    }
}

fn failure(flaw: Flaw, policy: &Policy) -> String {
    let shape = BackboneShape {
        num_encoder_layers: 1,
        num_decoder_layers: 3,
        d_model: 1,
        inner: 1,
        d_ff: 1,
        gated: false,
        vocab_size: 2,
        start_token: 0,
        eos_token: 1,
    };
    let options = DecodeOptions { max_tokens: 4, propagation: Propagation::Lazy };
    decode(&Flawed { shape, flaw }, &(), 2, policy, &options).unwrap_err().to_string()
}

fn calm(measure: Measure) -> Policy {
    let threshold = Threshold::new(0.999, None).unwrap();
    Policy::Calm { measure: measure.resolve(None).unwrap(), threshold }
}

#[test]
fn failures_of_the_engine_are_passed_on() {
    assert_eq!(failure(Flaw::Error, &Policy::Full), "out of memory");
    assert_eq!(failure(Flaw::Error, &Policy::Oracle), "out of memory");
    assert_eq!(failure(Flaw::Error, &calm(Measure::Softmax)), "out of memory");
}

#[test]
fn missing_answers_are_noticed() {
    let check = |flaw: Flaw, policy: Policy, call: &str| {
        let message = format!("the engine's {call} answered for 1 rows instead of 2");
        assert_eq!(failure(flaw, &policy), message);
    };
    check(Flaw::Hidden, calm(Measure::State), "hidden");
    check(Flaw::Top2, calm(Measure::Softmax), "top2");
    check(Flaw::Top2, Policy::Oracle, "top2");
    check(Flaw::Predict, Policy::Full, "predict");
}

#[test]
fn a_depth_that_the_decoder_has_not_is_refused() {
    for layers in [0, 4] {
        let expected: DecodeError<OutOfMemory> =
            DecodeError::Policy(PolicyError::StaticLayers { layers, available: 3 });
        assert_eq!(failure(Flaw::Error, &Policy::Static { layers }), expected.to_string());
    }
}
