//! GGUF files: the same network as in Hugging Face's layout, and blocks that are multiplied as they are.

use calm_checkpoint::{LoadOptions, Model};
use calm_core::{PolicySpec, Propagation};
use calm_cpu::{Llama, WeightType};

use crate::reference::shared::{F32_TOLERANCE, cases, check_alone, check_entries, checkpoint, decode_cases};

fn load(kind: &str, weight_type: Option<WeightType>, threads: usize) -> Llama {
    let path = checkpoint("llama_gqa_tied").join(format!("model-{kind}.gguf"));
    Llama::load(&path, &LoadOptions { device: None, weight_type, threads }).unwrap()
}

#[test]
fn a_file_of_f32_is_the_checkpoint_that_it_was_made_of() {
    // A file has no exit classifier.
    let mut cases = cases("llama_gqa_tied");
    cases.retain(|case| !case.policy.to_string().contains("classifier"));
    assert!(cases.len() > 100);
    check_alone(&load("F32", None, 2), &cases, F32_TOLERANCE);
}

/// Blocks give the outputs of the numbers that they stand for.
#[test]
fn blocks_decode_as_their_numbers_do() {
    let mut full = cases("llama_gqa_tied");
    full.retain(|case| case.policy == PolicySpec::full());
    for kind in ["F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"] {
        let (blocks, numbers) = (load(kind, None, 2), load(kind, Some(WeightType::F32), 1));
        assert_eq!(blocks.device(), if kind == "F16" { "cpu f32".to_owned() } else { format!("cpu {kind}") });
        assert_eq!(blocks.fingerprint(), numbers.fingerprint());
        for case in &full {
            let [found, expected] = [&blocks, &numbers]
                .map(|model| decode_cases(model, &[case], Propagation::Lazy).swap_remove(0).tokens);
            assert_eq!(found, expected, "{kind}");
        }
    }
}

/// To the last bit, whatever else is in a call.
#[test]
fn entries_of_blocks_are_the_same_in_any_calls() {
    for kind in ["Q4_1", "Q8_0"] {
        for threads in [1, 3] {
            check_entries(&load(kind, None, threads), 0.0);
        }
    }
}
