//! Checkpoints of this folder with other tensors, and what engines make of them. Test suites of engines
//! include this file.

use std::collections::BTreeMap;
use std::path::Path;

use calm_checkpoint::{DECODER_EMBEDDING, EMBED_TOKENS, ENCODER_EMBEDDING, HEAD, Model, SHARED};
use calm_core::{DecodeOptions, Full, PolicySpec, Token, decode};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::shared::checkpoint;

/// Numbers of f32 by the names of their tensors, with shapes.
pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Loads a folder, or says why not.
pub(crate) type Load<'a> = &'a dyn Fn(&Path) -> Result<Box<dyn Model>, String>;

/// What can be damaged in a kind of network.
pub(crate) struct Parts {
    /// Two checkpoints, of which the last has a head of its own.
    checkpoints: [&'static str; 2],
    /// Tensors that must hold numbers.
    needed: [&'static str; 4],
    /// A tensor that an adapter would add.
    adapter: &'static str,
    /// What the second layer multiplies by last, and its queries and keys.
    wide: &'static str,
    queries_and_keys: [&'static str; 2],
    /// What is read without the second layer.
    sources: [&'static [Token]; 2],
    /// What is multiplied by last where longer sources are read.
    wide_in_sources: &'static str,
}

pub(crate) const T5: Parts = Parts {
    checkpoints: ["v1_0", "v1_1"],
    needed: [
        SHARED,
        HEAD,
        "encoder.final_layer_norm.weight",
        "decoder.block.1.layer.2.DenseReluDense.wo.weight",
    ],
    adapter: "decoder.block.1.layer.0.SelfAttention.q.lora_A.weight",
    wide: "decoder.block.1.layer.2.DenseReluDense.wo.weight",
    queries_and_keys: [
        "decoder.block.1.layer.0.SelfAttention.q.weight",
        "decoder.block.1.layer.0.SelfAttention.k.weight",
    ],
    sources: [&[5, 9, 13, 7], &[21, 4]],
    wide_in_sources: "encoder.block.0.layer.1.DenseReluDense.wo.weight",
};

pub(crate) const LLAMA: Parts = Parts {
    checkpoints: ["llama_gqa_tied", "llama_mha_untied"],
    needed: [EMBED_TOKENS, HEAD, "model.norm.weight", "model.layers.1.mlp.down_proj.weight"],
    adapter: "model.layers.1.self_attn.q_proj.lora_A.weight",
    wide: "model.layers.1.mlp.down_proj.weight",
    queries_and_keys: ["model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.k_proj.weight"],
    // The only token of a prompt is the first input, and nothing runs before it.
    sources: [&[5], &[21]],
    wide_in_sources: "model.layers.1.mlp.down_proj.weight",
};

pub(crate) fn read(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|&x| f32::from_le_bytes(x)).collect();
    let tensor = |(name, view): (&str, TensorView<'_>)| {
        assert_eq!(view.dtype(), Dtype::F32);
        (name.to_owned(), (view.shape().to_vec(), numbers(view.data())))
    };
    file.iter().map(tensor).collect()
}

pub(crate) fn write(path: &Path, tensors: &Tensors) {
    let bytes = |numbers: &Vec<f32>| numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
    let stored: Vec<_> =
        tensors.iter().map(|(name, (shape, numbers))| (name, shape, bytes(numbers))).collect();
    let views = stored
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// A copy of a checkpoint with other tensors.
pub(crate) fn edited(name: &str, edit: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(checkpoint(name).join("config.json"), folder.path().join("config.json")).unwrap();
    let mut tensors = read(&checkpoint(name).join("model.safetensors"));
    edit(&mut tensors);
    write(&folder.path().join("model.safetensors"), &tensors);
    folder
}

fn scale(tensors: &mut Tensors, name: &str, factor: f32) {
    tensors.get_mut(name).unwrap().1.iter_mut().for_each(|x| *x *= factor);
}

fn outputs(model: &dyn Model, sources: &[Vec<Token>]) -> Vec<Vec<Token>> {
    let decode = |source: &Vec<Token>| {
        let prompt = model.read(&[source]).unwrap();
        decode(&*prompt, &Full, &DecodeOptions::new(8)).unwrap().swap_remove(0).tokens
    };
    sources.iter().map(decode).collect()
}

/// Each part of the network uses the table of the embedding that transformers gives it, for every set of
/// tables that a file may hold.
pub(crate) fn check_embeddings(load: Load<'_>) {
    #[derive(serde::Deserialize)]
    struct Cases {
        sources: Vec<Vec<Token>>,
        cases: Vec<Case>,
    }
    #[derive(serde::Deserialize)]
    struct Case {
        tables: Vec<String>,
        outputs: Vec<Vec<Token>>,
    }
    let text = std::fs::read_to_string(checkpoint("embeddings").join("cases.json")).unwrap();
    let Cases { sources, cases } = serde_json::from_str(&text).unwrap();
    for case in &cases {
        let folder = edited("embeddings", |tensors| {
            let is_left_out = |name: &String| {
                let is_table = [SHARED, ENCODER_EMBEDDING, DECODER_EMBEDDING, HEAD].contains(&name.as_str());
                is_table && !case.tables.contains(name)
            };
            tensors.retain(|name, _| !is_left_out(name));
        });
        assert_eq!(outputs(&*load(folder.path()).unwrap(), &sources), case.outputs, "{:?}", case.tables);
    }
    // One table under several names, as `safetensors.torch.save_model` writes it.
    let folder = edited("embeddings", |_| {});
    let aliased = checkpoint("embeddings").join("aliased.safetensors");
    std::fs::copy(aliased, folder.path().join("model.safetensors")).unwrap();
    let expected = cases.iter().find(|case| case.tables == [DECODER_EMBEDDING]).unwrap();
    assert_eq!(outputs(&*load(folder.path()).unwrap(), &sources), expected.outputs);
}

/// Weights that are no numbers, and tensors that the network has no place for, are refused by name.
pub(crate) fn check_refusals(parts: &Parts, load: Load<'_>) {
    let check = |edit: &dyn Fn(&mut Tensors), expected: &str| {
        let folder = edited(parts.checkpoints[1], edit);
        let error = load(folder.path()).err().expect("the checkpoint must be refused");
        assert!(error.contains(expected), "{error}");
        assert!(error.contains(folder.path().to_str().unwrap()), "{error} names no file");
    };
    for name in parts.needed {
        for value in [f32::NAN, f32::INFINITY] {
            let spoil = |tensors: &mut Tensors| tensors.get_mut(name).unwrap().1[0] = value;
            check(&spoil, &format!("tensor {name} holds {value} at [0"));
        }
    }
    let adapter =
        |tensors: &mut Tensors| drop(tensors.insert(parts.adapter.to_owned(), (vec![1], vec![0.0])));
    check(&adapter, parts.adapter);
}

/// What no measure and no policy may take for an answer.
pub(crate) fn check_too_large(parts: &Parts, load: Load<'_>) {
    let (wide, [q, k]) = (parts.wide, parts.queries_and_keys);
    // Infinite states; states whose square is infinite, which the norm makes zeros; scores that are infinite.
    let edits: [&[(&str, f32)]; 3] = [&[(wide, 3e37)], &[(wide, 1e25)], &[(q, 1e21), (k, 1e21)]];
    for name in parts.checkpoints {
        for edit in edits {
            let folder = edited(name, |tensors| {
                edit.iter().for_each(|(name, factor)| scale(tensors, name, *factor));
            });
            let model = load(folder.path()).unwrap();
            let prompt = model.read(&parts.sources).unwrap();
            for policy in [
                "full",
                "static-2",
                "oracle",
                "patience-2",
                "calm-softmax-0.999",
                "calm-pruned-0.999",
                "calm-state-0.999",
                "calm-pruned-0-exits2",
                "calm-state-0-exits2",
                "shallow-cache-1",
                "oracle-copied",
                "perturbed-sampling-0",
                "perturbed-layer-1",
            ] {
                let policy = policy.parse::<PolicySpec>().unwrap();
                let made = policy.make(&*model).unwrap();
                let error = decode(&*prompt, &*made, &DecodeOptions::new(4)).unwrap_err().to_string();
                let expected = "the states of row 0 of the batch are not finite after layer 2 at step 1";
                assert!(error.starts_with(expected), "{name} {policy} {edit:?}: {error}");
            }
            let first = "static-1".parse::<PolicySpec>().unwrap().make(&*model).unwrap();
            decode(&*prompt, &*first, &DecodeOptions::new(4)).unwrap();
        }
        for factor in [3e37, 1e25] {
            let folder = edited(name, |tensors| scale(tensors, parts.wide_in_sources, factor));
            let model = load(folder.path()).unwrap();
            let sources: [&[Token]; 2] = [&[5, 9, 13, 7], &[21, 4]];
            let error = model.read(&sources).err().unwrap().to_string();
            assert!(error.starts_with("the states of source 0 of the batch are not finite"), "{error}");
        }
    }
}
