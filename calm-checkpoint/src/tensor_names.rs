//! Names of tensors that all networks have in common, and what wrappers put around names.

/// The output head where it is not the embedding: `[vocab_size, d_model]`.
pub const HEAD: &str = "lm_head.weight";
/// Name of the exit classifier's weight `[d_model]` in a checkpoint.
pub const CLASSIFIER_WEIGHT: &str = "calm.classifier.weight";
/// Name of the exit classifier's bias `[1]` in a checkpoint.
pub const CLASSIFIER_BIAS: &str = "calm.classifier.bias";

/// What wrappers put between the names of modules: torch's data parallelism and compiler, and its sharding.
const WRAPPERS: [&str; 4] = ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];
/// What the network is called in a class around it: Lightning's modules, transformers' classifiers.
const ATTRIBUTES: [&str; 2] = ["model", "transformer"];

/// How many names an error or a note lists.
const LISTED: usize = 3;

/// The name of a tensor without what training in a wrapper has put into it, and without what the network is
/// called in a class around it.
pub(crate) fn unwrapped(stored: &str) -> String {
    let mut parts: Vec<&str> = stored.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    while parts.len() > 2 && ATTRIBUTES.contains(&parts[0]) {
        parts.remove(0);
    }
    parts.join(".")
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
    use super::{first_names, unwrapped};

    #[test]
    fn wrappers_leave_no_trace_in_names() {
        let name = "encoder.block.0.layer.0.SelfAttention.q.weight";
        for prefix in ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "model._orig_mod.module."]
        {
            assert_eq!(unwrapped(&format!("{prefix}{name}")), name, "{prefix}");
        }
        let inside = "encoder._orig_mod.block.0._checkpoint_wrapped_module.layer.0.SelfAttention.q.weight";
        assert_eq!(unwrapped(inside), name);
        assert_eq!(unwrapped("calm.classifier.weight"), "calm.classifier.weight");
        assert_eq!(unwrapped("model.weight"), "model.weight");
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(first_names(&["a"]), "a");
        assert_eq!(first_names(&["a", "b", "c"]), "a, b, c");
        assert_eq!(first_names(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
    }
}
