use calm_names::names;

/// How an engine keeps keys and values of attention in memory. They are computed in f32 and rounded where
/// they are written; scores and sums are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CacheType {
    /// As they are computed.
    #[default]
    F32,
    /// Half the bytes, with 11 significant bits. Numbers above 65504 do not fit in.
    F16,
    /// Half the bytes, with 8 significant bits.
    Bf16,
}

names!(CacheType, "cache type", { F32 => "f32", F16 => "f16", Bf16 => "bf16" });
