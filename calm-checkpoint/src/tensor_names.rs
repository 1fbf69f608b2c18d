//! How the tensors of a T5 are called, and which of a file's other tensors matter.

/// Tables of the embedding. A stack has one of its own, or the first that the file has in this order, as in
/// transformers 5: `T5ForConditionalGeneration._tied_weights_keys`.
pub(crate) const EMBEDDINGS: [&str; 4] = [SHARED, ENCODER_EMBEDDING, DECODER_EMBEDDING, HEAD];

/// The embedding of both stacks, and the head of a checkpoint that has no other: `[vocab_size, d_model]`.
pub const SHARED: &str = "shared.weight";
/// The encoder's embedding where it is not [`SHARED`]: `[vocab_size, d_model]`.
pub const ENCODER_EMBEDDING: &str = "encoder.embed_tokens.weight";
/// The decoder's embedding where it is not [`SHARED`]: `[vocab_size, d_model]`.
pub const DECODER_EMBEDDING: &str = "decoder.embed_tokens.weight";
/// The output head where it is not [`SHARED`]: `[vocab_size, d_model]`.
pub const HEAD: &str = "lm_head.weight";
/// Name of the exit classifier's weight `[d_model]` in a checkpoint.
pub const CLASSIFIER_WEIGHT: &str = "calm.classifier.weight";
/// Name of the exit classifier's bias `[1]` in a checkpoint.
pub const CLASSIFIER_BIAS: &str = "calm.classifier.bias";

/// What wrappers put between the names of modules: torch's data parallelism and compiler, and its sharding.
const WRAPPERS: [&str; 4] = ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];
/// What the network is called in a class around it: Lightning's modules, transformers' classifiers.
const ATTRIBUTES: [&str; 2] = ["model", "transformer"];

/// Names that the published network's tensors have in common.
const PARTS: [&str; 4] = ["shared", "encoder", "decoder", "lm_head"];

/// How many names an error or a note lists.
const LISTED: usize = 3;

/// The name that T5 gives a tensor, without what training in a wrapper has put into it.
pub(crate) fn canonical(stored: &str) -> String {
    let mut parts: Vec<&str> = stored.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    if parts.len() > 2 && ATTRIBUTES.contains(&parts[0]) {
        parts.remove(0);
    }
    parts.join(".")
}

/// Whether a tensor may be left unused: transformers before PR #8518 stored a position bias that was never
/// used.
pub(crate) fn is_known_leftover(name: &str) -> bool {
    name.ends_with("EncDecAttention.relative_attention_bias.weight")
}

/// Whether a tensor belongs inside the network, so that outputs without it are another model's.
pub(crate) fn is_of_network(name: &str) -> bool {
    name.split('.').any(|part| PARTS.contains(&part))
}

/// Lists the first few of some names, and says how many more there are.
pub fn first_names<S: AsRef<str>>(names: &[S]) -> String {
    let listed: Vec<&str> = names.iter().take(LISTED).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(LISTED) {
        0 => listed.join(", "),
        more => format!("{} and {more} more", listed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::{canonical, first_names};

    #[test]
    fn wrappers_leave_no_trace_in_names() {
        let name = "encoder.block.0.layer.0.SelfAttention.q.weight";
        for prefix in ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "model._orig_mod.module."]
        {
            assert_eq!(canonical(&format!("{prefix}{name}")), name, "{prefix}");
        }
        let inside = "encoder._orig_mod.block.0._checkpoint_wrapped_module.layer.0.SelfAttention.q.weight";
        assert_eq!(canonical(inside), name);
        assert_eq!(canonical("calm.classifier.weight"), "calm.classifier.weight");
        assert_eq!(canonical("model.weight"), "model.weight");
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(first_names(&["a"]), "a");
        assert_eq!(first_names(&["a", "b", "c"]), "a, b, c");
        assert_eq!(first_names(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
    }
}
