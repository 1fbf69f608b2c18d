//! GGUF files: the same network as in Hugging Face's layout, and blocks that are multiplied as they are.

use calm_checkpoint::{LoadOptions, Model};
use calm_core::{PolicySpec, Propagation};
use calm_cpu::WeightType;

use crate::logits::{distance, logits};
use crate::reference::open;
use crate::reference::shared::{
    F32_TOLERANCE, GGUF_F32, cases_of_gguf, check_alone, check_entries, check_in_batches, checkpoint,
    decode_cases,
};

/// Quantised files, by the folder of their network.
const BLOCKS: [(&str, &[&str]); 2] =
    [("llama_gqa_tied", &["F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]), ("v1_0", &["Q8_0"])];

fn load(name: &str, kind: &str, weight_type: Option<WeightType>, threads: usize) -> Box<dyn Model> {
    let path = checkpoint(name).join(format!("model-{kind}.gguf"));
    open(&path, &LoadOptions { weight_type, threads, ..LoadOptions::default() }).unwrap()
}

#[test]
fn files_of_f32_are_the_checkpoints_that_they_were_made_of() {
    for name in GGUF_F32 {
        let (model, cases) = (load(name, "F32", None, 2), cases_of_gguf(name));
        assert_eq!(model.unexpected(), &[] as &[String]);
        check_alone(&*model, &cases, F32_TOLERANCE);
        check_in_batches(&*model, &cases, F32_TOLERANCE);
    }
}

/// Blocks give the outputs of the numbers that they stand for.
#[test]
fn blocks_decode_as_their_numbers_do() {
    for (name, kinds) in BLOCKS {
        let mut full = cases_of_gguf(name);
        full.retain(|case| case.policy == PolicySpec::full());
        for kind in kinds {
            let (blocks, numbers) = (load(name, kind, None, 2), load(name, kind, Some(WeightType::F32), 1));
            let in_memory = if *kind == "F16" { "f32" } else { kind };
            assert_eq!(blocks.device(), format!("cpu {in_memory}"));
            assert_eq!(blocks.fingerprint(), numbers.fingerprint());
            for case in &full {
                let [found, expected] = [&blocks, &numbers]
                    .map(|model| decode_cases(&**model, &[case], Propagation::Lazy).swap_remove(0).tokens);
                assert_eq!(found, expected, "{name} {kind}");
            }
        }
    }
}

/// Tokens of this network say less: its attention is so sharp that it makes much of inputs of 15 bits.
#[test]
fn blocks_have_about_the_logits_of_their_numbers() {
    let (blocks, numbers) = (load("v1_1", "Q8_0", None, 1), load("v1_1", "Q8_0", Some(WeightType::F32), 1));
    assert_eq!(blocks.device(), "cpu Q8_0");
    for case in cases_of_gguf("v1_1").iter().filter(|case| case.policy == PolicySpec::full()) {
        let [found, expected] =
            [&blocks, &numbers].map(|model| logits(&**model, &case.input_ids, &case.tokens));
        let distance = distance(&found, &expected);
        assert!(distance < 0.03, "{distance}");
    }
}

/// To the last bit, whatever else is in a call.
#[test]
fn entries_of_blocks_are_the_same_in_any_calls() {
    for (name, kind) in [("llama_gqa_tied", "Q4_1"), ("llama_gqa_tied", "Q8_0"), ("v1_1", "Q8_0")] {
        for threads in [1, 3] {
            check_entries(&*load(name, kind, None, threads), 0.0);
        }
    }
}
