//! Weight files in all the shapes in which checkpoints are found, and what is said of those that are none.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use calm_checkpoint::{
    CLASSIFIER_WEIGHT, DECODER_EMBEDDING, EMBED_TOKENS, ENCODER_EMBEDDING, HEAD, LlamaConfig, MODEL_STEM,
    NetworkConfig, SHARED, SafetensorsFile, T5Config, WeightFiles,
};
use calm_gguf::TensorType;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

#[derive(Clone, PartialEq)]
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

type Tensors = BTreeMap<String, Tensor>;

fn config() -> T5Config {
    T5Config {
        d_model: 4,
        d_kv: 2,
        d_ff: 6,
        num_layers: 1,
        num_decoder_layers: Some(2),
        num_heads: 2,
        vocab_size: 10,
        ..T5Config::published("t5-v1_1-small").unwrap()
    }
}

fn llama() -> LlamaConfig {
    LlamaConfig {
        hidden_size: 6,
        intermediate_size: 5,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 2,
        vocab_size: 10,
        tie_word_embeddings: false,
        ..LlamaConfig::published("smollm2-135m").unwrap()
    }
}

/// Numbers that tell the tensors apart.
fn floats(shape: &[i64], first: usize) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let bytes = (0..count).flat_map(|i| ((first * 100 + i) as f32).to_le_bytes()).collect();
    Tensor { dtype: Dtype::F32, shape: shape.iter().map(|&n| n as usize).collect(), bytes }
}

/// The network's tensors, and a table for each part that may have one.
fn complete() -> Tensors {
    complete_of(&config())
}

fn complete_of(config: &dyn NetworkConfig) -> Tensors {
    let shapes = config.parameters().into_iter().map(|parameter| (parameter.name, parameter.shape));
    shapes.enumerate().map(|(index, (name, shape))| (name, floats(&shape, index))).collect()
}

fn write(path: &Path, tensors: &Tensors, notes: &[(&str, &str)]) {
    let views = tensors.iter().map(|(name, Tensor { dtype, shape, bytes })| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let notes: HashMap<String, String> =
        notes.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    safetensors::serialize_to_file(views, Some(notes), path).unwrap();
}

fn folder(tensors: &Tensors, notes: &[(&str, &str)]) -> tempfile::TempDir {
    folder_of(&config(), tensors, notes)
}

fn folder_of(config: &dyn NetworkConfig, tensors: &Tensors, notes: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    config.save(folder.path()).unwrap();
    write(&folder.path().join("model.safetensors"), tensors, notes);
    folder
}

fn open(folder: &Path) -> Result<WeightFiles, String> {
    WeightFiles::open(folder, &config()).map_err(|error| error.to_string())
}

/// What the network takes of a folder, by name.
fn taken(folder: &Path) -> Tensors {
    read_all(&open(folder).unwrap())
}

fn read_all(files: &WeightFiles) -> Tensors {
    let read = |name: &str| {
        let stored = files.read(name).unwrap().unwrap();
        let dtype = match stored.tensor_type {
            TensorType::F32 => Dtype::F32,
            TensorType::F16 => Dtype::F16,
            _ => Dtype::BF16,
        };
        (name.to_owned(), Tensor { dtype, shape: stored.shape, bytes: stored.bytes })
    };
    files.names().map(read).collect()
}

#[track_caller]
fn check_error(folder: &Path, expected: &str) {
    let error = open(folder).err().expect("the checkpoint must be refused");
    assert!(error.contains(expected), "{error}");
    assert!(error.contains(folder.to_str().unwrap()), "{error} names no file");
}

#[test]
fn wrappers_around_the_network_are_taken_off_the_names() {
    let expected = complete();
    for prefix in ["module.", "_orig_mod.", "model.", "transformer.", "module._orig_mod."] {
        let wrapped: Tensors =
            expected.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect();
        assert!(taken(folder(&wrapped, &[("format", "pt")]).path()) == expected, "{prefix}");
    }
    let mut twice = expected.clone();
    twice.insert("module.shared.weight".to_owned(), floats(&[10, 4], 77));
    check_error(folder(&twice, &[]).path(), "tensor shared.weight is in");
}

#[test]
fn a_llama_is_found_with_and_without_its_head_and_wrappers() {
    let open = |tensors: &Tensors| {
        let folder = folder_of(&llama(), tensors, &[("format", "pt")]);
        let opened = WeightFiles::open(folder.path(), &llama());
        opened.map(|files| read_all(&files)).map_err(|error| error.to_string())
    };
    let expected = complete_of(&llama());
    assert_eq!(expected["model.layers.1.self_attn.k_proj.weight"].shape, [4, 6]);
    assert!(open(&expected) == Ok(expected.clone()));
    for prefix in ["module.", "model.", "_orig_mod.model.", "transformer."] {
        let wrapped = expected.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone()));
        assert!(open(&wrapped.collect()) == Ok(expected.clone()), "{prefix}");
    }
    // The file decides what the head is.
    let mut tied = expected.clone();
    tied.remove(HEAD);
    assert!(open(&tied) == Ok(tied.clone()));
    // `LlamaModel` is the network without its head.
    let bare = tied.iter().map(|(name, tensor)| (name.replacen("model.", "", 1), tensor.clone())).collect();
    assert!(open(&bare) == Ok(tied.clone()));
    // A head alone is the embedding too.
    let mut of_head = expected.clone();
    of_head.remove(EMBED_TOKENS);
    let taken = open(&of_head).unwrap();
    assert!(taken[EMBED_TOKENS] == expected[HEAD] && !taken.contains_key(HEAD));

    let mut more = expected.clone();
    more.insert("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), floats(&[1], 5));
    more.insert("score.weight".to_owned(), floats(&[1], 5));
    let folder = folder_of(&llama(), &more, &[]);
    let files = WeightFiles::open(folder.path(), &llama()).unwrap();
    assert_eq!(files.unexpected(), ["score.weight"]);
    more.insert(CLASSIFIER_WEIGHT.to_owned(), floats(&[6], 5));
    assert!(open(&more).unwrap()[CLASSIFIER_WEIGHT] == more[CLASSIFIER_WEIGHT]);
    for name in ["model.layers.0.self_attn.q_norm.weight", "model.layers.0.self_attn.q_proj.bias"] {
        let mut more = expected.clone();
        more.insert(name.to_owned(), floats(&[6], 5));
        let error = open(&more).err().unwrap();
        assert!(error.contains(&format!("outputs without them would be wrong: {name}.")), "{error}");
    }
    let mut less = expected.clone();
    less.remove("model.layers.1.mlp.up_proj.weight");
    let error = open(&less).err().unwrap();
    assert!(
        error.ends_with("tensor model.layers.1.mlp.up_proj.weight of shape [5, 6] is missing"),
        "{error}"
    );
}

#[test]
fn one_network_is_no_other() {
    let folder = folder_of(&llama(), &complete_of(&llama()), &[]);
    check_error(folder.path(), "model_type is `llama`, a network that computes something else than T5");
    let folder = self::folder(&complete(), &[]);
    let error = WeightFiles::open(folder.path(), &llama()).err().unwrap().to_string();
    assert!(error.ends_with("something else than Llama: there are llama"), "{error}");
}

/// The tables are those of transformers 5, which the engines' tests decode with.
#[test]
fn tables_of_the_embedding_are_told_apart_by_their_numbers() {
    let mut rest = complete();
    let [shared, other] = [rest.remove(SHARED).unwrap(), rest.remove(HEAD).unwrap()];
    let check = |stored: &[(&str, &Tensor)], notes: &[(&str, &str)], expected: &[(&str, &Tensor)]| {
        let with = |tables: &[(&str, &Tensor)]| {
            let mut tensors = rest.clone();
            tensors.extend(tables.iter().map(|&(name, table)| (name.to_owned(), table.clone())));
            tensors
        };
        let found = taken(folder(&with(stored), notes).path());
        let tables = |tensors: &Tensors| -> Vec<String> {
            tensors.keys().filter(|name| !rest.contains_key(*name)).cloned().collect()
        };
        assert!(found == with(expected), "{:?} of {:?}", tables(&found), tables(&with(stored)));
    };
    check(&[(SHARED, &shared)], &[], &[(SHARED, &shared)]);
    for alone in [ENCODER_EMBEDDING, DECODER_EMBEDDING] {
        check(&[(alone, &shared)], &[], &[(SHARED, &shared)]);
    }
    check(&[(HEAD, &shared)], &[], &[(SHARED, &shared)]);
    // Copies, as transformers 3 wrote them.
    let copies = [(SHARED, &shared), (ENCODER_EMBEDDING, &shared), (DECODER_EMBEDDING, &shared)];
    check(&copies, &[], &[(SHARED, &shared)]);
    check(&[(SHARED, &shared), (HEAD, &shared)], &[], &[(SHARED, &shared), (HEAD, &shared)]);
    // Tables of their own.
    let own = [(SHARED, &shared), (ENCODER_EMBEDDING, &other)];
    check(&own, &[], &own);
    check(
        &[(ENCODER_EMBEDDING, &shared), (DECODER_EMBEDDING, &other)],
        &[],
        &[(SHARED, &shared), (DECODER_EMBEDDING, &other)],
    );
    // One table under several names, as safetensors.torch.save_model notes it.
    let names = [SHARED, ENCODER_EMBEDDING, HEAD].map(|name| (name, DECODER_EMBEDDING));
    check(&[(DECODER_EMBEDDING, &shared)], &names, &[(SHARED, &shared)]);
}

#[test]
fn tensors_that_nobody_uses_may_have_any_type() {
    let mut tensors = complete();
    let mut add = |name: &str, dtype, bytes: &[u8]| {
        let tensor = Tensor { dtype, shape: vec![1], bytes: bytes.to_vec() };
        tensors.insert(name.to_owned(), tensor);
    };
    add("position_ids", Dtype::I64, &[0; 8]);
    add("score.scale", Dtype::F8_E4M3, &[0]);
    add("score.bias", Dtype::F32, &f32::NAN.to_le_bytes());
    let leftover = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
    add(leftover, Dtype::F32, &f32::NAN.to_le_bytes());
    let folder = folder(&tensors, &[]);
    assert_eq!(open(folder.path()).unwrap().unexpected(), ["position_ids", "score.bias", "score.scale"]);
    assert!(taken(folder.path()) == complete());
}

#[test]
fn tensors_inside_the_network_that_have_no_place_are_refused() {
    for name in [
        "encoder.block.0.layer.0.SelfAttention.q.lora_A.weight",
        "base_model.model.decoder.block.0.layer.1.EncDecAttention.k.lora_B.weight",
        "encoder.block.1.layer.0.SelfAttention.q.weight",
        "decoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight",
        "decoder.block.0.layer.2.DenseReluDense.wi.weight",
        "encoder.block.0.layer.0.SelfAttention.q.bias",
        "lm_head.bias",
        "decoder.embed_positions.weight",
    ] {
        let mut tensors = complete();
        tensors.insert(name.to_owned(), floats(&[2, 2], 3));
        check_error(folder(&tensors, &[]).path(), &format!("outputs without them would be wrong: {name}."));
    }
    let mut tensors = complete();
    tensors.extend((0..9).map(|i| (format!("encoder.block.{}.layer_norm.weight", i + 1), floats(&[4], i))));
    check_error(folder(&tensors, &[]).path(), "9 of the network's tensors");
    check_error(folder(&tensors, &[]).path(), "encoder.block.3.layer_norm.weight and 6 more");
}

#[test]
fn what_is_missing_is_named_with_what_there_is() {
    let others: Tensors = [("transformer.h.0.weight".to_owned(), floats(&[2], 1))].into();
    check_error(
        folder(&others, &[]).path(),
        "tensor shared.weight of shape [10, 4] is missing; there are h.0.",
    );
    let adapter: Tensors = [("base_model.model.encoder.q.lora_A.weight".to_owned(), floats(&[2], 1))].into();
    check_error(folder(&adapter, &[]).path(), "peft's merge_and_unload()");
}

#[test]
fn numbers_that_are_none_are_found_in_every_type() {
    let name = "decoder.block.1.layer.2.DenseReluDense.wo.weight";
    for (dtype, bytes, value) in [
        (Dtype::F32, f32::NAN.to_le_bytes().to_vec(), "NaN"),
        (Dtype::F32, f32::NEG_INFINITY.to_le_bytes().to_vec(), "-inf"),
        (Dtype::BF16, vec![0x80, 0x7f], "inf"),
        (Dtype::BF16, vec![0xc1, 0xff], "NaN"),
        (Dtype::F16, vec![0x00, 0xfc], "-inf"),
        (Dtype::F16, vec![0x01, 0x7c], "NaN"),
    ] {
        let mut tensors = complete();
        let tensor = tensors.get_mut(name).unwrap();
        let size = bytes.len();
        // The largest numbers of each type are numbers.
        let largest: &[u8] = match dtype {
            Dtype::F32 => &[0xff, 0xff, 0x7f, 0x7f],
            Dtype::BF16 => &[0x7f, 0x7f],
            _ => &[0xff, 0x7b],
        };
        *tensor = Tensor { dtype, shape: vec![4, 6], bytes: largest.repeat(24) };
        let index = 2 * 6 + 5;
        assert!(taken(folder(&tensors, &[]).path())[name].bytes == largest.repeat(24));
        tensors.get_mut(name).unwrap().bytes[index * size..][..size].copy_from_slice(&bytes);
        let folder = folder(&tensors, &[]);
        let error = open(folder.path()).unwrap().read(name).err().unwrap().to_string();
        let expected = format!("model.safetensors: tensor {name} holds {value} at [2, 5]:");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn types_that_weights_cannot_have_are_refused() {
    for dtype in [Dtype::I64, Dtype::F64] {
        let mut tensors = complete();
        tensors.insert(SHARED.to_owned(), Tensor { dtype, shape: vec![10, 4], bytes: vec![0; 320] });
        let expected = format!("tensor shared.weight has the type {dtype:?}; weights must be F32");
        check_error(folder(&tensors, &[]).path(), &expected);
    }
}

#[test]
fn relatives_of_t5_are_refused() {
    let folder = folder(&complete(), &[]);
    let path = folder.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    for (written, accepted) in
        [("mt5", true), ("umt5", false), ("longt5", false), ("switch_transformers", false), ("bart", false)]
    {
        std::fs::write(&path, text.replace("\"t5\"", &format!("\"{written}\""))).unwrap();
        match accepted {
            true => drop(open(folder.path()).unwrap()),
            false => check_error(folder.path(), &format!("config.json: model_type is `{written}`")),
        }
    }
    // The first checkpoints have none.
    std::fs::write(&path, text.replace("\"model_type\"", "\"kind\"")).unwrap();
    open(folder.path()).unwrap();
}

#[test]
fn a_folder_without_weights_says_what_to_do_with_what_it_holds() {
    for (files, expected) in [
        (
            &["pytorch_model.bin"][..],
            "but pytorch_model.bin, which is a Python pickle: convert it with python",
        ),
        (&["pytorch_model-00001-of-00002.bin"], "M.from_pretrained('"),
        (&["adapter_model.safetensors"], "but adapter_model.safetensors, an adapter without its model"),
        (&["tf_model.h5"], "but tf_model.h5: convert it"),
        (&["model-00001-of-00002.safetensors"], "one of several whose list is missing"),
        (&["weights.npz"], "but config.json, weights.npz"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        config().save(folder.path()).unwrap();
        for file in files {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        check_error(folder.path(), "holds neither model.safetensors nor model.safetensors.index.json, ");
        check_error(folder.path(), expected);
    }
}

#[test]
fn pointers_to_files_that_were_not_fetched_are_known() {
    let folder = folder(&complete(), &[]);
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n";
    std::fs::write(folder.path().join("model.safetensors"), pointer).unwrap();
    check_error(
        folder.path(),
        "model.safetensors is a Git LFS pointer and not the file itself: run `git lfs pull`",
    );
}

#[test]
fn damaged_files_are_named() {
    let folder = folder(&complete(), &[]);
    let path = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let longer = [&bytes[..], &[0]].concat();
    let huge = [&u64::MAX.to_le_bytes()[..], &bytes[8..]].concat();
    let cut = [bytes.len() - 1, bytes.len() / 2, 100, 3, 0].map(|length| bytes[..length].to_vec());
    for damaged in cut.into_iter().chain([longer, huge]) {
        std::fs::write(&path, &damaged).unwrap();
        check_error(folder.path(), "model.safetensors is not a valid safetensors file");
    }
}

/// Writes two shards and their list, which `edit` may change, and each tensor into the first or the second.
fn shards(
    tensors: &Tensors,
    notes: serde_json::Value,
    edit: impl Fn(&mut [Tensors; 2], &mut BTreeMap<String, String>),
) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    config().save(folder.path()).unwrap();
    let (mut parts, mut map) = ([Tensors::new(), Tensors::new()], BTreeMap::new());
    for (index, (name, tensor)) in tensors.iter().enumerate() {
        map.insert(name.clone(), format!("{}.safetensors", index % 2));
        parts[index % 2].insert(name.clone(), tensor.clone());
    }
    edit(&mut parts, &mut map);
    for (index, part) in parts.iter().enumerate() {
        write(&folder.path().join(format!("{index}.safetensors")), part, &[]);
    }
    let index = serde_json::json!({ "metadata": notes, "weight_map": map });
    std::fs::write(folder.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    folder
}

#[test]
fn shards_must_agree_with_each_other_and_with_their_list() {
    let tensors = complete();
    let nothing = || serde_json::json!({ "total_size": 12 });
    assert!(taken(shards(&tensors, nothing(), |_, _| {}).path()) == tensors);
    // The same tensor in both is no contradiction, another one is.
    let twice = |table: Tensor| {
        shards(&tensors, nothing(), |parts, _| {
            parts[0].insert(SHARED.to_owned(), tensors[SHARED].clone());
            parts[1].insert(SHARED.to_owned(), table.clone());
        })
    };
    let expected = complete();
    assert!(taken(twice(expected[SHARED].clone()).path()) == expected);
    check_error(twice(floats(&[10, 4], 99)).path(), "1.safetensors, with other numbers");
    let wrong = shards(&expected, nothing(), |_, map| {
        let other = if map[SHARED] == "0.safetensors" { "1.safetensors" } else { "0.safetensors" };
        map.insert(SHARED.to_owned(), other.to_owned());
    });
    check_error(wrong.path(), "holds the tensor shared.weight, which is not there");
    // huggingface_hub notes shared tensors in the list.
    let mut one = complete();
    let table = one.remove(SHARED).unwrap();
    one.remove(HEAD);
    one.insert("tokens.weight".to_owned(), table.clone());
    let aliased = shards(&one, serde_json::json!({ "shared.weight": "tokens.weight" }), |_, _| {});
    assert!(taken(aliased.path())[SHARED] == table);
}

/// What is loaded is one version of the files, or an error: never parts of two, and never a signal.
#[test]
fn a_file_that_changes_while_it_is_read_is_an_error() {
    let tensors = complete();
    let folder = folder(&tensors, &[]);
    let path = folder.path().join("model.safetensors");
    let files = open(folder.path()).unwrap();
    assert_eq!(files.fingerprint().unwrap().len(), 64);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(2000).unwrap();
    let name = "shared.weight";
    let read = files.names().map(|name| files.read(name).map(drop)).collect::<Result<Vec<_>, _>>();
    let expected = "model.safetensors has changed while it was read";
    assert!(read.err().unwrap().to_string().contains(expected));
    write(&path, &Tensors::from([(name.to_owned(), tensors[name].clone())]), &[]);
    assert!(files.fingerprint().err().unwrap().to_string().contains(expected));
}

#[test]
fn a_file_lists_its_tensors_in_the_order_of_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("{MODEL_STEM}.safetensors"));
    let tensors: Tensors = [("b".to_owned(), floats(&[3], 1)), ("a".to_owned(), floats(&[2], 2))].into();
    write(&path, &tensors, &[("format", "pt")]);
    let file = SafetensorsFile::open(&path).unwrap();
    let read = |(name, info): (String, &_)| (name, file.read(info).unwrap());
    let found: BTreeMap<_, _> = file.tensors().map(read).collect();
    assert!(found.iter().all(|(name, bytes)| bytes == &tensors[name].bytes) && found.len() == 2);
    assert!(file.tensors().is_sorted_by_key(|(_, info)| info.data_offsets));
}
