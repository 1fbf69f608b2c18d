use calm_names::names;

/// How an engine holds weights in memory. Inputs and sums are f32 throughout; with `Int8` inputs are rounded
/// to 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// As in most published checkpoints.
    F32,
    /// Half the bytes. A checkpoint that is stored in bf16 gives the outputs it has in f32.
    Bf16,
    /// A quarter of the bytes: each output's weights in 255 steps of its largest one.
    Int8,
}

names!(WeightType, "weight type", { F32 => "f32", Bf16 => "bf16", Int8 => "int8" });
