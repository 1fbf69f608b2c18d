//! The policies of the paper's experiments on local errors, and the primitive that they alone need. Test
//! suites of engines include this file.

use calm_core::{
    Backbone, DecodeOptions, Entry, Generation, Matrix, PolicySpec, Prompt, Propagation, Token, decode,
};

use super::damaged::{Load, Tensors, edited};
use super::shared::{self, Case};

/// Where all layers project the same keys and values, a copy of those of layer 1 is what each layer makes of
/// the state that entered layer 1.
pub(crate) fn check_copies(load: Load<'_>, tolerance: f32) {
    for name in shared::T5.into_iter().chain(shared::LLAMA) {
        let folder = edited(name, project_alike);
        let model = load(folder.path()).unwrap();
        let prompt = model.read(&[&[5, 9, 13, 7], &[21, 4]]).unwrap();
        let (copied, propagated) = (last_states(&*prompt, true), last_states(&*prompt, false));
        for (copied, propagated) in copied.data.iter().zip(&propagated.data) {
            let difference = (copied - propagated).abs();
            assert!(difference <= tolerance, "{name}: {copied} instead of {propagated}");
        }
        // Where they project differently it is something else.
        let model = load(&shared::checkpoint(name)).unwrap();
        let prompt = model.read(&[&[5, 9, 13, 7], &[21, 4]]).unwrap();
        assert_ne!(last_states(&*prompt, true), last_states(&*prompt, false), "{name}");
    }
}

/// Gives all layers of a decoder the norm, keys and values of self-attention that its first one has.
fn project_alike(tensors: &mut Tensors) {
    let parts = [
        ("decoder.block.", ".layer.0.layer_norm.weight"),
        ("decoder.block.", ".layer.0.SelfAttention.k.weight"),
        ("decoder.block.", ".layer.0.SelfAttention.v.weight"),
        ("model.layers.", ".input_layernorm.weight"),
        ("model.layers.", ".self_attn.k_proj.weight"),
        ("model.layers.", ".self_attn.v_proj.weight"),
    ];
    for (stack, part) in parts {
        let Some(first) = tensors.get(&format!("{stack}0{part}")).cloned() else { continue };
        for layer in 1.. {
            let Some(tensor) = tensors.get_mut(&format!("{stack}{layer}{part}")) else { break };
            tensor.clone_from(&first);
        }
    }
}

/// States of the last of several positions after all layers, where only layer 1 ran for the others. The
/// layers above have copies of its keys and values, or project the state that entered it.
fn last_states(prompt: &dyn Prompt, copied: bool) -> Matrix {
    const LAST: usize = 40;
    let num_layers = prompt.shape().num_layers;
    let mut session = prompt.start(LAST + 1).unwrap();
    let step = |position| [0, 1].map(|row| Entry { row, position });
    for position in 0..LAST {
        let entries = step(position);
        session.embed(&entries, &[position as Token + 3, position as Token + 50]).unwrap();
        let embedded = session.hidden(&entries).unwrap();
        session.run_layer(1, &entries).unwrap();
        if !copied {
            session.set_hidden(&entries, &embedded).unwrap();
        }
        for layer in 2..=num_layers {
            match copied {
                true => session.copy_keys_values(layer, &entries).unwrap(),
                false => session.propagate(layer, &entries).unwrap(),
            }
        }
    }
    let entries = step(LAST);
    session.embed(&entries, &[7, 8]).unwrap();
    for layer in 1..=num_layers {
        session.run_layer(layer, &entries).unwrap();
    }
    session.hidden(&entries).unwrap()
}

/// The outputs of these policies do not depend on the batch nor on when missing keys and values are written,
/// and are related to those of the full model, whose cases these are.
pub(crate) fn check_policies(model: &dyn Backbone, full: &[Case]) {
    let run = |id: &str, size: usize, propagation: Propagation| -> Vec<Generation> {
        let policy = id.parse::<PolicySpec>().unwrap().make(model).unwrap();
        let options = DecodeOptions { propagation, ..DecodeOptions::new(20) };
        let decode = |cases: &[Case]| {
            let sources: Vec<&[Token]> = cases.iter().map(|case| case.input_ids.as_slice()).collect();
            decode(&*model.read(&sources).unwrap(), &*policy, &options).unwrap()
        };
        full.chunks(size).flat_map(decode).collect()
    };
    let outputs = |id: &str| -> Vec<Vec<Token>> {
        let alone = run(id, 1, Propagation::Lazy);
        for (size, propagation) in [(3, Propagation::Lazy), (8, Propagation::Eager)] {
            for (alone, together) in alone.iter().zip(run(id, size, propagation)) {
                assert_eq!(alone.tokens, together.tokens, "{id}");
                assert_eq!(alone.exit_layers, together.exit_layers, "{id}");
            }
        }
        alone.into_iter().map(|generation| generation.tokens).collect()
    };
    let num_layers = model.shape().num_layers;
    let full: Vec<Vec<Token>> = full.iter().map(|case| case.tokens.clone()).collect();
    for id in ["shallow-cache-1", "oracle-copied"] {
        assert_ne!(outputs(id), full, "{id}");
    }
    // The last layer's keys and values are made from the state after the one below it in any case.
    for layers in [num_layers - 1, num_layers] {
        assert_eq!(outputs(&format!("shallow-cache-{layers}")), full);
    }
    for position in [0, 3] {
        for (kind, always_differs) in [("sampling", true), ("layer", false)] {
            let id = format!("perturbed-{kind}-{position}");
            let perturbed = outputs(&id);
            assert_ne!(perturbed, full, "{id}");
            for (full, perturbed) in full.iter().zip(&perturbed) {
                let before = position.min(full.len());
                assert_eq!(perturbed[..before], full[..before], "{id}");
                match full.get(position) {
                    Some(token) if always_differs => assert_ne!(perturbed[position], *token, "{id}"),
                    Some(token) if perturbed[position] != *token => {}
                    _ => assert_eq!(perturbed, full, "{id}"),
                }
            }
        }
    }
}
