use super::{Decision, Policy, PolicyKind, StepPolicy};
use crate::error::DecodeError;
use crate::layer::Layer;

pub(super) static FULL: PolicyKind = PolicyKind {
    name: "full",
    about: "all layers for every token",
    parameters: &[],
    make: |_, _| Ok(Box::new(Full)),
    is_full: |_, _| true,
    head_flops: |_, shape, _| shape.flops.head,
    defers: false,
};

/// Every token leaves after the last layer.
#[derive(Debug, Clone, Copy)]
pub struct Full;

impl Policy for Full {
    fn begin_step(&self, _: usize) -> Box<dyn StepPolicy + '_> {
        Box::new(NoTests)
    }
}

/// Nobody leaves before the last layer that runs.
pub(super) struct NoTests;

impl StepPolicy for NoTests {
    fn decide(&mut self, _: &mut Layer<'_>, _: &mut [Decision]) -> Result<(), DecodeError> {
        Ok(())
    }
}
