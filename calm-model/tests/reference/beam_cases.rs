//! The beam searches of the folder `beams`, and how to compare an engine with them. Test suites of engines
//! include this file.

use std::path::Path;

use calm_core::{BeamOptions, Token, beam_search};

use super::damaged::Load;
use super::shared::checkpoint;

#[derive(serde::Deserialize)]
struct BeamCase {
    input_ids: Vec<Token>,
    beams: usize,
    length_penalty: f64,
    max_tokens: usize,
    eos_tokens: Vec<Token>,
    tokens: Vec<Token>,
}

impl BeamCase {
    fn options(&self) -> BeamOptions {
        let &BeamCase { beams, length_penalty, max_tokens, .. } = self;
        BeamOptions { beams, length_penalty, max_tokens }
    }
}

/// A copy of a checkpoint, whose outputs end with these tokens.
fn copy_with_ends(from: &Path, to: &Path, eos_tokens: &[Token]) {
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let config = format!("{{\"decoder_start_token_id\": 0, \"eos_token_id\": {eos_tokens:?}}}");
    std::fs::write(to.join("generation_config.json"), config).unwrap();
}

/// Checks every case by itself and with all others that search alike.
pub(crate) fn check_beams(load: Load<'_>) {
    for name in ["v1_0", "v1_1"] {
        let text = std::fs::read_to_string(checkpoint("beams").join(format!("{name}.json"))).unwrap();
        let mut cases: Vec<BeamCase> = serde_json::from_str(&text).unwrap();
        cases.sort_by(|a, b| a.eos_tokens.cmp(&b.eos_tokens));
        for cases in cases.chunk_by(|a, b| a.eos_tokens == b.eos_tokens) {
            let folder = tempfile::tempdir().unwrap();
            copy_with_ends(&checkpoint(name), folder.path(), &cases[0].eos_tokens);
            let model = load(folder.path()).unwrap();
            for case in cases {
                let options = case.options();
                let search = |sources: &[&[Token]]| {
                    let prompt = model.read(&options.rows(sources)).unwrap();
                    let found = beam_search(&*prompt, &options).unwrap();
                    found.into_iter().map(|generation| generation.tokens).collect::<Vec<_>>()
                };
                assert_eq!(
                    search(&[&case.input_ids]),
                    std::slice::from_ref(&case.tokens),
                    "{name}, {options:?}"
                );
                let alike: Vec<&BeamCase> = cases.iter().filter(|other| other.options() == options).collect();
                let sources: Vec<&[Token]> = alike.iter().map(|case| &case.input_ids[..]).collect();
                let expected: Vec<Vec<Token>> = alike.iter().map(|case| case.tokens.clone()).collect();
                if alike.len() > 1 {
                    assert_eq!(search(&sources), expected, "{name}, {options:?}");
                }
                // Sources of other lengths, which end at other steps.
                let sources: Vec<&[Token]> = cases.iter().take(4).map(|case| &case.input_ids[..]).collect();
                let alone: Vec<_> = sources.iter().flat_map(|source| search(&[source])).collect();
                assert_eq!(search(&sources), alone, "{name}, {options:?}");
            }
        }
    }
}
