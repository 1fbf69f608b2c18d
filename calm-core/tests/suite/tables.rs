//! What holds for every entry of the tables of measures and policies.

use std::collections::BTreeSet;

use calm_core::{
    Backbone, DecodeOptions, Generation, MEASURES, Named, POLICIES, Parameter, PolicySpec, Table, Token,
    decode,
};

use crate::toy::Toy;

fn check_names<T: Named>(table: &Table<T>, names: &[&str]) {
    let all = table.all();
    assert_eq!(all.iter().map(|entry| entry.name()).collect::<Vec<_>>(), names);
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    for entry in all {
        let (name, about) = (entry.name(), entry.about());
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'-'), "{name}");
        assert!(about.len() > 20 && !about.contains('\n') && !about.ends_with('.'), "{name}: {about}");
        assert_eq!(table.get(name).unwrap().name(), name);
        assert!(table.help().contains(about));
    }
}

#[test]
fn names_are_distinct_and_have_a_line_of_help() {
    let measures = [
        "softmax",
        "pruned",
        "state",
        "classifier",
        "agreement",
        "agreement_pruned",
        "beta",
        "head_entropy",
        "head_gap",
        "head_max",
        "head_margin",
        "head_confidence",
        "level_entropy",
        "level_gap",
        "level_max",
    ];
    check_names(&MEASURES, &measures);
    check_names(
        &POLICIES,
        &[
            "full",
            "static",
            "oracle",
            "calm",
            "patience",
            "shallow-deep",
            "shallow-deep-beta",
            "shallow-deep-published",
            "self-speculative",
            "shallow-cache",
            "oracle-copied",
            "perturbed-sampling",
            "perturbed-layer",
        ],
    );
    let message = |table: &Table<_>| table.get("sofmax").err().unwrap().to_string();
    assert_eq!(
        message(&MEASURES),
        "unknown confidence measure `sofmax`: there are softmax, pruned, state, classifier, agreement, agreement_pruned, beta, \
         head_entropy, head_gap, head_max, head_margin, head_confidence, level_entropy, level_gap and level_max"
    );
}

/// One policy of each kind for each measure, by the form of its ids.
fn ids() -> Vec<String> {
    let mut ids = Vec::new();
    for policy in POLICIES.all() {
        let form = policy.form();
        let without_optional = |form: String| match form.split_once("-THRESHOLD") {
            // Adaptive thresholds have no decay.
            Some((before, _)) if before.starts_with("shallow-deep-") && !before.ends_with(']') => {
                format!("{before}-0.5")
            }
            Some((before, _)) => format!("{before}-0.5-tau2"),
            None => form.split('[').next().unwrap_or_default().to_owned(),
        };
        let form =
            without_optional(form).replace("[-MEASURE]", "").replace("LAYERS", "2").replace("POSITION", "3");
        match policy.parameters.contains(&Parameter::Measure) {
            true => ids.extend(MEASURES.all().iter().map(|measure| form.replace("MEASURE", measure.name))),
            false => ids.push(form),
        }
    }
    ids.push("calm-softmax-0.5-exits1.3".to_owned());
    ids.push("calm-agreement_pruned-0.5-tau2-exits2.3".to_owned());
    ids.push("shallow-deep-2-state-0.5-cap3".to_owned());
    ids.push("self-speculative-draft2.3".to_owned());
    ids
}

#[test]
fn every_policy_comes_back_from_its_id() {
    for id in ids() {
        let spec: PolicySpec = id.parse().unwrap();
        assert_eq!(spec.to_string(), id);
        assert_eq!(PolicySpec::new(spec.kind().name, *spec.parameters()), Ok(spec));
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<PolicySpec>(&json).unwrap(), spec);
    }
}

/// Sums that change with every token and exit of a few decodings. Who changes a measure or a policy on
/// purpose writes the new ones here, and who adds one a line.
#[test]
fn every_policy_decodes_as_it_did() {
    let golden = GOLDEN.iter().map(|(id, ..)| id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(), golden);
    for (id, tokens, layers, flops_are_below_full) in GOLDEN {
        let spec: PolicySpec = id.parse().unwrap();
        let (mut token_sum, mut layer_sum, mut flops, mut full) = (0, 0, 0.0, 0.0);
        for seed in 0..10 {
            let toy = Toy::new(4, seed);
            let sources: [&[Token]; 3] = [&[3], &[4, 5, 6, 7, 2], &[9, 8]];
            let policy = spec.make(&toy).unwrap();
            let prompt = toy.read(&sources).unwrap();
            for generation in decode(&*prompt, &*policy, &DecodeOptions::new(12)).unwrap() {
                for (at, token) in (1..).zip(&generation.tokens) {
                    token_sum += at * token;
                }
                layer_sum += generation.exit_layers.iter().sum::<usize>();
                flops += toy.shape().sequence_flops(&spec, &generation, 3);
                let all_layers = vec![4; generation.tokens.len()];
                let all_layers = Generation { exit_layers: all_layers, ..generation };
                full += toy.shape().sequence_flops(&PolicySpec::full(), &all_layers, 3);
            }
        }
        assert_eq!((token_sum, layer_sum), (tokens, layers), "{id}");
        assert_eq!(flops < full, flops_are_below_full, "{id}");
    }
}

const GOLDEN: [(&str, u32, usize, bool); 31] = [
    ("full", 10_470, 1272, false),
    ("static-2", 12_268, 670, true),
    ("oracle", 10_655, 733, true),
    ("calm-softmax-0.5-tau2", 10_747, 753, true),
    ("calm-pruned-0.5-tau2", 10_747, 753, false),
    ("calm-state-0.5-tau2", 11_677, 693, true),
    ("calm-classifier-0.5-tau2", 9_779, 590, true),
    ("calm-agreement-0.5-tau2", 10_569, 773, true),
    ("calm-agreement_pruned-0.5-tau2", 10_569, 773, false),
    ("calm-beta-0.5-tau2", 10_645, 779, true),
    ("calm-head_entropy-0.5-tau2", 9_860, 612, true),
    ("calm-head_gap-0.5-tau2", 10_353, 441, true),
    ("calm-head_max-0.5-tau2", 9_782, 490, true),
    ("calm-head_margin-0.5-tau2", 9_400, 695, true),
    ("calm-head_confidence-0.5-tau2", 9_528, 621, true),
    ("calm-level_entropy-0.5-tau2", 10_594, 690, true),
    ("calm-level_gap-0.5-tau2", 10_265, 480, true),
    ("calm-level_max-0.5-tau2", 9_590, 529, true),
    ("patience-2", 10_358, 1130, false),
    ("shallow-deep-2-0.5-tau2", 10_237, 942, true),
    ("shallow-deep-beta-2-0.5", 10_470, 1250, false),
    ("shallow-deep-published-2-0.5", 10_470, 1250, false),
    ("self-speculative", 10_470, 1272, false),
    ("shallow-cache-2", 11_011, 620, true),
    ("oracle-copied", 10_148, 739, true),
    ("perturbed-sampling-3", 10_447, 1236, false),
    ("perturbed-layer-3", 10_644, 1276, false),
    ("calm-softmax-0.5-exits1.3", 10_308, 917, true),
    ("calm-agreement_pruned-0.5-tau2-exits2.3", 9_687, 853, false),
    ("shallow-deep-2-state-0.5-cap3", 11_463, 706, false),
    ("self-speculative-draft2.3", 10_470, 1004, false),
];
