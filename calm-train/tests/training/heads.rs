//! Exit heads: what training them changes and what not, and that both engines decode with them alike.

use std::collections::BTreeMap;
use std::path::Path;

use calm_checkpoint::{EngineKind, HEADS_FILE, Model, SpecialTokens, weights_hash, write_exit_heads};
use calm_core::{
    Backbone, DecodeOptions, ExitHead, ExitHeads, Exits, FittedTo, Generation, HeadKind, HeadNorm, Matrix,
    PolicySpec, Token, decode,
};
use calm_engine::engine::{Engine, EngineOptions};
use calm_model::{T5, init};
use calm_train::{Error, HeadsConfig, Material, ModelConfig, TrainedHeads, train_heads};
use tch::{Device, Kind};
use tempfile::TempDir;

use crate::tiny::alone;

const LAYERS: usize = 4;
const D_MODEL: usize = 16;

/// A checkpoint of random weights, without a tokenizer.
fn checkpoint(seed: i64) -> TempDir {
    let model = ModelConfig {
        d_model: D_MODEL as i64,
        d_kv: 8,
        d_ff: 24,
        num_heads: 2,
        num_layers: 1,
        num_decoder_layers: LAYERS as i64,
        tie_word_embeddings: false,
    };
    let config = model.t5_config(50, SpecialTokens { pad: 0, end: 1 });
    let folder = tempfile::tempdir().unwrap();
    config.save(folder.path()).unwrap();
    init::random_weights(&config, seed).save(folder.path(), Kind::Float, 1 << 30).unwrap();
    folder
}

fn sources(count: u32) -> Vec<Vec<Token>> {
    (0..count).map(|row| (0..2 + row % 5).map(|i| 2 + (7 * row + 5 * i) % 48).chain([1]).collect()).collect()
}

fn config(kind: HeadKind) -> HeadsConfig {
    HeadsConfig {
        kind,
        rank: 6,
        layers: None,
        vocabulary: None,
        steps: 40,
        learning_rate: 2e-2,
        batch_tokens: 60,
        max_tokens: 8,
        batch_size: 16,
        workers: 1,
        seed: 3,
        overwrite: false,
        work: None,
    }
}

fn train(folder: &Path, config: &HeadsConfig) -> Result<TrainedHeads, Error> {
    tch::set_num_threads(1);
    train_heads(folder, Material::Sources(&sources(40)), config, Device::Cpu)
}

/// The bytes of all files of a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

fn engine(folder: &Path, kind: EngineKind) -> Result<Engine, String> {
    let options =
        EngineOptions { kind: Some(kind), device: Some("cpu".to_owned()), ..EngineOptions::default() };
    Engine::with_codec(folder, &options, None).map_err(|error| format!("{error:#}"))
}

fn decoded(model: &dyn Model, sources: &[Vec<Token>], policy: &str) -> Vec<Generation> {
    let policy = policy.parse::<PolicySpec>().unwrap().make(model).unwrap();
    let sources: Vec<&[Token]> = sources.iter().map(Vec::as_slice).collect();
    decode(&*model.read(&sources).unwrap(), &*policy, &DecodeOptions::new(8)).unwrap()
}

fn outcomes(generations: &[Generation]) -> Vec<(&[Token], &[usize])> {
    generations.iter().map(|of| (of.tokens.as_slice(), of.exit_layers.as_slice())).collect()
}

#[test]
fn training_lowers_the_divergence_and_leaves_the_backbone_alone() {
    let _alone = alone();
    for kind in [HeadKind::LowRank, HeadKind::Affine, HeadKind::Linear] {
        let folder = checkpoint(1);
        let before = files(folder.path());
        let trained = train(folder.path(), &config(kind)).unwrap();
        assert_eq!(trained.scores.iter().map(|score| score.layer).collect::<Vec<_>>(), [1, 2, 3]);
        // 5 of 40 sources are held out, with 8 tokens at most each.
        assert!((1..=40).contains(&trained.held_out_tokens));
        for score in &trained.scores {
            assert!(score.divergence < 0.9 * score.shared_divergence, "{kind}: {score:?}");
            let shares = [score.shared_agreement, score.agreement];
            assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)), "{kind}: {score:?}");
        }
        let mut after = files(folder.path());
        let heads = after.remove(HEADS_FILE).unwrap();
        assert!(after == before, "{kind}: the files of the backbone have changed");
        let model = T5::load(folder.path(), Device::Cpu).unwrap();
        let read = model.exit_heads().unwrap();
        assert_eq!((read.kind(), read.layers().to_string()), (kind, "1.2.3".to_owned()));
        assert_eq!(read.fitted_to().sources.len(), 40);

        // The same command again needs a permission, and gives the same bytes; another seed gives others.
        let taken = train(folder.path(), &config(kind)).unwrap_err().to_string();
        assert!(taken.ends_with("already holds exit heads; replace them with --overwrite"), "{taken}");
        let again = HeadsConfig { overwrite: true, workers: 2, ..config(kind) };
        train(folder.path(), &again).unwrap();
        assert!(files(folder.path())[HEADS_FILE] == heads, "{kind}: not the same again");
        train(folder.path(), &HeadsConfig { seed: 4, ..again }).unwrap();
        assert!(files(folder.path())[HEADS_FILE] != heads, "{kind}: the seed changes nothing");
    }
}

/// The rounding of the file is all that they differ by.
#[test]
fn heads_begin_as_the_shared_head() {
    let _alone = alone();
    for kind in [HeadKind::LowRank, HeadKind::Affine, HeadKind::Linear] {
        let folder = checkpoint(2);
        let config =
            HeadsConfig { learning_rate: 1e-30, layers: Some(Exits::new(&[1, 3]).unwrap()), ..config(kind) };
        for score in train(folder.path(), &config).unwrap().scores {
            let difference = (score.divergence - score.shared_divergence).abs();
            assert!(
                score.shared_divergence > 0.01 && difference < 0.02 * score.shared_divergence,
                "{kind}: {score:?}"
            );
        }
    }
}

#[test]
fn heads_that_add_nothing_are_the_shared_head_in_both_engines() {
    let _alone = alone();
    let folder = checkpoint(3);
    let number = |index: usize| (index % 7) as f32 - 3.0;
    let head = |layer: usize| {
        let head = ExitHead::LowRank {
            norm: HeadNorm { weight: vec![1.0; D_MODEL], epsilon: 1e-6 },
            down: Matrix { data: (0..2 * D_MODEL).map(number).collect(), columns: D_MODEL },
            up: Matrix { data: vec![0.0; 2 * D_MODEL], columns: 2 },
        };
        (layer, head)
    };
    let shape = T5::load(folder.path(), Device::Cpu).unwrap().shape().clone();
    let fitted_to = FittedTo { tokens: 0, sources: Vec::new() };
    let heads = ExitHeads::new((1..LAYERS).map(head).collect(), None, fitted_to, &shape).unwrap();
    let hash = weights_hash(folder.path()).unwrap();
    write_exit_heads(folder.path(), &heads, &hash, serde_json::Value::Null).unwrap();
    for kind in [EngineKind::Cpu, EngineKind::Libtorch] {
        let engine = engine(folder.path(), kind).unwrap();
        assert_eq!(engine.model().exit_heads().unwrap().get(2), heads.get(2));
        let cost = engine.model().shape().flops;
        assert_eq!(cost.exit_head, cost.head + 2.0 * 4.0 * D_MODEL as f64);
        for rest in ["0.2", "0.5", "0.4-exits1.3"] {
            let found = decoded(engine.model(), &sources(9), &format!("calm-head_margin-{rest}"));
            let shared = decoded(engine.model(), &sources(9), &format!("calm-softmax-{rest}"));
            let all = |of: &[Generation]| {
                of.iter()
                    .map(|of| (of.tokens.clone(), of.exit_layers.clone(), of.confidence.clone()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(all(&found), all(&shared), "{kind} {rest}");
        }
    }
}

#[test]
fn engines_and_batches_agree_on_what_heads_decide() {
    let _alone = alone();
    for kind in [HeadKind::LowRank, HeadKind::Affine, HeadKind::Linear] {
        let folder = checkpoint(4);
        train(folder.path(), &config(kind)).unwrap();
        let [cpu, libtorch] =
            [EngineKind::Cpu, EngineKind::Libtorch].map(|kind| engine(folder.path(), kind).unwrap());
        let mut early = 0;
        for (measure, threshold) in
            [("head_entropy", 0.11), ("head_gap", 0.23), ("head_max", 0.13), ("head_margin", 0.037)]
        {
            let policy = format!("calm-{measure}-{threshold}");
            let found = decoded(cpu.model(), &sources(9), &policy);
            let other = decoded(libtorch.model(), &sources(9), &policy);
            assert_eq!(outcomes(&found), outcomes(&other), "{kind} {policy}");
            early += found.iter().flat_map(|of| &of.exit_layers).filter(|&&layer| layer < LAYERS).count();
            for engine in [&cpu, &libtorch] {
                for (source, expected) in sources(9).into_iter().zip(&found) {
                    let alone = decoded(engine.model(), &[source], &policy);
                    assert_eq!(outcomes(&alone), outcomes(std::slice::from_ref(expected)), "{kind} {policy}");
                }
            }
        }
        assert!(early > 0, "{kind}: no token leaves early");
    }
}

#[test]
fn heads_of_another_backbone_and_damaged_ones_are_refused() {
    let _alone = alone();
    let (folder, other) = (checkpoint(5), checkpoint(6));
    train(folder.path(), &HeadsConfig { steps: 1, ..config(HeadKind::LowRank) }).unwrap();
    let file = folder.path().join(HEADS_FILE);
    let good = std::fs::read(&file).unwrap();
    let refused = |folder: &Path| {
        let said = [EngineKind::Cpu, EngineKind::Libtorch]
            .map(|kind| engine(folder, kind).err().map(|error| format!("{error:#}")).unwrap_or_default());
        assert_eq!(said[0], said[1]);
        said[0].clone()
    };
    assert_eq!(refused(folder.path()), "");
    std::fs::write(other.path().join(HEADS_FILE), &good).unwrap();
    let said = refused(other.path());
    assert!(said.contains("were trained for other weights than those beside it: train them anew"), "{said}");
    // Such heads are no obstacle to new ones.
    let again = HeadsConfig { steps: 1, overwrite: true, ..config(HeadKind::LowRank) };
    train(other.path(), &again).unwrap();
    assert_eq!(refused(other.path()), "");

    std::fs::write(&file, &good[..good.len() - 1]).unwrap();
    assert!(refused(folder.path()).contains("is not a valid safetensors file"));
    // The names of tensors are in the header as they are; another one of the same length is no part of a
    // head.
    let text = |from: &str, to: &str| {
        let place = good.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut bytes = good.clone();
        bytes[place..place + to.len()].copy_from_slice(to.as_bytes());
        std::fs::write(&file, bytes).unwrap();
        refused(folder.path())
    };
    assert!(text("layer.1.down", "layer.1.dawn").contains("lacks the tensor layer.1.down"));
    assert!(text("layer.1.down", "layer.9.down").contains("lacks the tensor"));
    assert!(text("layer.1.down", "lager.1.down").contains("which is no part of a head"));
    assert!(text("\"dtype\":\"BF16\"", "\"dtype\":\"I16\" ").contains("of the type I16"));
    assert!(text("version\\\":1", "version\\\":2").contains("is of a version that is not 1"));
    let shape = format!("[6,{D_MODEL}]");
    assert!(text(&shape, "[16,6]").contains("of the shape [16, 6] instead of"));
    // The last number is not one any more.
    let mut bytes = good.clone();
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&[0xc0, 0x7f]);
    std::fs::write(&file, bytes).unwrap();
    assert!(refused(folder.path()).contains("holds NaN at"));
}

#[test]
fn what_cannot_be_trained_is_said() {
    let _alone = alone();
    let folder = checkpoint(7);
    let said = |config: &HeadsConfig| train(folder.path(), config).unwrap_err().to_string();
    let too_high = HeadsConfig { layers: Some(Exits::new(&[2, 4]).unwrap()), ..config(HeadKind::Affine) };
    assert_eq!(
        said(&too_high),
        "exit heads: exits must be below the last of the decoder's 4 layers, but one is 4"
    );
    let error =
        train_heads(folder.path(), Material::Sources(&sources(7)), &config(HeadKind::Affine), Device::Cpu)
            .unwrap_err();
    assert_eq!(error.to_string(), "exit heads: at least 8 sources are needed, and there are 7");
    let fast = HeadsConfig { learning_rate: 1e38, ..config(HeadKind::Affine) };
    assert!(said(&fast).starts_with("exit heads: the training diverged; lower the learning rate"));
    assert!(!folder.path().join(HEADS_FILE).exists());
}

/// Heads that know nine tenths of the outputs, one of them after the last layer.
#[test]
fn heads_may_know_a_part_of_the_vocabulary() {
    let _alone = alone();
    for kind in [HeadKind::LowRank, HeadKind::Affine, HeadKind::Linear] {
        let folder = checkpoint(8);
        let layers = Some(Exits::new(&[2, 4]).unwrap());
        let config = HeadsConfig { layers, vocabulary: Some(0.9), ..config(kind) };
        let trained = train(folder.path(), &config).unwrap();
        let known = trained.vocabulary.unwrap();
        assert!(
            known.share >= 0.9 && known.size < known.of && known.tokens.contains(&1),
            "{kind}: {known:?}"
        );
        // What the last layer says is what the shared head says, among the tokens that are known.
        let last = trained.scores[1];
        assert!((last.shared_agreement - known.held_out_share).abs() < 1e-9, "{kind}: {last:?} {known:?}");
        assert!(trained.scores[0].divergence < trained.scores[0].shared_divergence, "{kind}");

        let [cpu, libtorch] =
            [EngineKind::Cpu, EngineKind::Libtorch].map(|kind| engine(folder.path(), kind).unwrap());
        let heads = cpu.model().exit_heads().unwrap();
        assert_eq!(heads.vocabulary(), Some(&known.tokens[..]));
        let full = decoded(cpu.model(), &sources(30), "full");
        let (mut early, mut unsure) = (0, 0);
        for policy in
            ["calm-head_confidence-0.5-exits2.4", "calm-head_margin-0.1-exits4", "calm-head_max-0.2-exits2.4"]
        {
            let found = decoded(cpu.model(), &sources(30), policy);
            let other = decoded(libtorch.model(), &sources(30), policy);
            assert_eq!(outcomes(&found), outcomes(&other), "{kind} {policy}");
            early += found.iter().flat_map(|of| &of.exit_layers).filter(|&&layer| layer < LAYERS).count();
            unsure += found.iter().map(|of| of.fallbacks).sum::<usize>();
        }
        assert!(early > 0 && unsure > 0, "{kind}: {early} left early, {unsure} fell back");
        // Drafts of these heads change no output.
        for policy in ["self-speculative", "self-speculative-draft2.3"] {
            for engine in [&cpu, &libtorch] {
                let drafted = decoded(engine.model(), &sources(30), policy);
                let tokens = |of: &[Generation]| of.iter().map(|of| of.tokens.clone()).collect::<Vec<_>>();
                assert_eq!(tokens(&drafted), tokens(&full), "{kind} {policy}");
            }
        }
    }
}

/// States that were kept are not recorded again, nor is a training done again that was finished; what is
/// missing or damaged is.
#[test]
fn a_training_goes_on_from_what_was_kept() {
    let _alone = alone();
    let (folder, work) = (checkpoint(9), tempfile::tempdir().unwrap());
    let kept = work.path().join("kept");
    let sources: Vec<Vec<Token>> = (0..200).map(|row| vec![2 + row % 48, 2 + row / 48, 1]).collect();
    let config = HeadsConfig { work: Some(kept.clone()), overwrite: true, ..config(HeadKind::Affine) };
    let train = || {
        tch::set_num_threads(1);
        train_heads(folder.path(), Material::Sources(&sources), &config, Device::Cpu).unwrap();
        std::fs::read(folder.path().join(HEADS_FILE)).unwrap()
    };
    let heads = train();
    let names = |start: &str| {
        let mut names: Vec<_> =
            std::fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(start));
        names.sort();
        names
    };
    let (states, training) = (names("states-"), names("training-"));
    assert_eq!((states.len(), training.len()), (4, 1));
    let written = |path: &Path| std::fs::metadata(path).unwrap().modified().unwrap();
    let before: Vec<_> = states.iter().map(|path| written(path)).collect();

    std::fs::remove_file(&states[0]).unwrap();
    std::fs::write(&states[2], b"damaged").unwrap();
    assert!(train() == heads, "other heads from what was kept");
    let after: Vec<_> = states.iter().map(|path| written(path)).collect();
    assert_eq!((before[1], before[3]), (after[1], after[3]), "states that were kept are recorded again");

    std::fs::write(&training[0], b"damaged").unwrap();
    assert!(train() == heads, "other heads from the same states");
    assert!(std::fs::read(&training[0]).unwrap() != b"damaged");
}

/// A decoder without an encoder learns along texts, too.
#[test]
fn heads_learn_from_texts() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let reference =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../calm-model/tests/reference/llama_gqa_tied");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(reference.join(name), folder.path().join(name)).unwrap();
    }
    let texts: Vec<Vec<Token>> =
        (0..60_u32).map(|row| (0..2 + row % 9).map(|i| 3 + (11 * row + 7 * i * i) % 60).collect()).collect();
    let config = HeadsConfig { layers: Some(Exits::new(&[1, 2]).unwrap()), ..config(HeadKind::Affine) };
    let trained = train_heads(folder.path(), Material::Texts(&texts), &config, Device::Cpu).unwrap();
    for score in &trained.scores {
        assert!(score.divergence < score.shared_divergence, "{score:?}");
    }
    let tokens: usize = texts.iter().map(|text| text.len() - 1).sum();
    let engine = engine(folder.path(), EngineKind::Cpu).unwrap();
    assert_eq!(engine.model().exit_heads().unwrap().fitted_to().tokens, tokens);

    let t5 = checkpoint(10);
    let refused = train_heads(t5.path(), Material::Texts(&texts), &config, Device::Cpu).unwrap_err();
    let expected = "exit heads: a model with an encoder learns from its outputs for sources, not from texts";
    assert_eq!(refused.to_string(), expected);
}
