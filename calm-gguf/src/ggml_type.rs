use std::fmt;

use crate::TensorType;

/// The number by which a file names the type of a tensor (`enum ggml_type` of ggml.h), supported or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GgmlType(pub u32);

/// Types without arithmetic here: number, name, values in a block, bytes of a block (`GGML_QUANT_SIZES` of
/// gguf-py/gguf/constants.py).
const OTHERS: &[(u32, &str, usize, usize)] = &[
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
];

impl GgmlType {
    /// The type, if there is arithmetic for it.
    pub fn supported(self) -> Option<TensorType> {
        TensorType::ALL.iter().copied().find(|kind| kind.ggml_type() == self)
    }

    /// How many values a block has and how many bytes, where that is known.
    pub fn block(self) -> Option<(usize, usize)> {
        match self.supported() {
            Some(kind) => Some((kind.block_len(), kind.block_bytes())),
            None => self.other().map(|(_, _, values, bytes)| (values, bytes)),
        }
    }

    fn other(self) -> Option<(u32, &'static str, usize, usize)> {
        OTHERS.iter().copied().find(|(number, ..)| *number == self.0)
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let other = || self.other().map(|(_, name, ..)| name);
        match self.supported().map(TensorType::name).or_else(other) {
            Some(name) => write!(f, "{name} (type {})", self.0),
            None => write!(f, "type {}", self.0),
        }
    }
}
