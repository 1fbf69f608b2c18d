//! Reading configurations: what is accepted, and what errors say.

use std::path::Path;

use calm_calibrate::{PValue, Procedure, Split, TrialOptions};
use calm_experiments::config::{Plan, parse};

pub(crate) const VALID: &str = r#"name = "trial"
seed = 7
model = "models/none"

[data]
test = "test.jsonl"
calibration = "calibration.jsonl"

[decode]
max_tokens = 12
batch_size = 4
shard_size = 10

[sweep]
measures = ["softmax", "state", "classifier"]
thresholds = [0.2, 0.9, 0.5, 0.7]
oracle = true
measure.softmax = { decay = 4.0 }
measure.state.thresholds = [1.0, 0.9]

[calibration]
textual_distance = "chrf"
textual_deltas = [0.3, 0.1, 0.6]
risk = "token-f1"
risk_deltas = [0.25]
signed_risk_deltas = [0.2, 0.1]
"#;

fn plan(overrides: &[&str]) -> Result<Plan, String> {
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    parse(Path::new("a.toml"), VALID.to_owned(), &overrides).map_err(|error| error.to_string())
}

/// `text` instead of the first line that starts with `line`.
fn with_line(line: &str, text: &str) -> String {
    let mut replaced = false;
    let lines = VALID
        .lines()
        .map(|old| if old.starts_with(line) && !std::mem::replace(&mut replaced, true) { text } else { old });
    let changed = lines.collect::<Vec<_>>().join("\n");
    assert!(replaced, "{line}");
    changed
}

#[test]
fn a_plan_has_thresholds_descending_and_deltas_ascending() {
    let plan = plan(&[]).unwrap();
    let grid: Vec<_> =
        plan.series.iter().map(|series| (series.family(), series.thresholds().to_vec())).collect();
    assert_eq!(
        grid,
        [
            ("calm-softmax-*-tau4", vec![0.9, 0.7, 0.5, 0.2]),
            ("calm-state-*", vec![1.0, 0.9]),
            ("calm-classifier-*", vec![0.9, 0.7, 0.5, 0.2])
        ]
    );
    let deltas: Vec<_> = plan
        .objectives
        .iter()
        .map(|o| (o.kind.name(), o.deltas.iter().map(|d| d.get()).collect::<Vec<_>>()))
        .collect();
    assert_eq!(
        deltas,
        [("textual", vec![0.1, 0.3, 0.6]), ("risk", vec![0.25]), ("signed-risk", vec![0.1, 0.2])]
    );
}

#[test]
fn each_objective_has_the_p_value_of_its_kind_of_loss_unless_one_is_given() {
    let p_values = |overrides: &[&str]| -> Vec<PValue> {
        plan(overrides).unwrap().objectives.iter().map(|objective| objective.p_value).collect()
    };
    assert_eq!(p_values(&[]), [PValue::Betting; 3]);
    // A difference of binary losses has a positive part that is binary, and may itself be -1.
    let binary = ["calibration.textual_distance=exact", "calibration.risk=exact"];
    assert_eq!(p_values(&binary), [PValue::Binomial, PValue::Binomial, PValue::Betting]);
    assert_eq!(p_values(&["calibration.p_value=hoeffding-bentkus"]), [PValue::HoeffdingBentkus; 3]);
}

#[test]
fn procedures_have_their_parameters_or_defaults() {
    let procedure = |overrides: &[&str]| plan(overrides).unwrap().procedure;
    assert_eq!(procedure(&[]), Procedure::FixedSequence);
    assert_eq!(procedure(&["calibration.procedure=graphical"]), Procedure::Graphical { graph: None });
    let multi_start = "calibration.procedure=multi-start";
    assert_eq!(procedure(&[multi_start]), Procedure::MultiStart { starts: 4 });
    assert_eq!(procedure(&[multi_start, "calibration.starts=2"]), Procedure::MultiStart { starts: 2 });
    let pareto = "calibration.procedure=pareto";
    assert_eq!(procedure(&[pareto]), Procedure::Pareto { split: Split::default() });
    assert_eq!(
        procedure(&[pareto, "calibration.split_share=0.3", "calibration.split_seed=5"]),
        Procedure::Pareto { split: Split::new(0.3, 5).unwrap() }
    );
}

#[test]
fn trials_are_the_papers_unless_said_otherwise() {
    assert_eq!(plan(&[]).unwrap().trials, TrialOptions { trials: 50, calibration_share: 0.8, seed: 0 });
    let others = ["calibration.trials.count=0", "calibration.trials.seed=3"];
    assert_eq!(plan(&others).unwrap().trials, TrialOptions { trials: 0, calibration_share: 0.8, seed: 3 });
}

#[test]
fn overrides_replace_values_add_keys_and_need_no_quotes() {
    let plan = plan(&[
        "name=other name",
        "seed=9",
        "threads=3",
        "sweep.measure.softmax.decay=0",
        "data.columns.prefix='x: '",
    ])
    .unwrap();
    assert_eq!((plan.name.as_str(), plan.seed, plan.threads), ("other name", 9, Some(3)));
    assert_eq!(plan.series[0].decay(), Some(0.0));
    assert_eq!(plan.test.columns.prefix, "x: ");
    // The rest of a section stays.
    assert_eq!(plan.series[0].thresholds().len(), 4);
    assert_eq!((plan.max_tokens, plan.test.columns.source.as_str()), (12, "source"));
}

#[test]
fn later_overrides_win() {
    assert_eq!(plan(&["seed=1", "seed=2"]).unwrap().seed, 2);
}

#[test]
fn without_deltas_nothing_is_calibrated() {
    let none =
        ["textual_deltas", "risk_deltas", "signed_risk_deltas"].map(|key| format!("calibration.{key}=[]"));
    let plan = plan(&none.each_ref().map(String::as_str)).unwrap();
    assert!(plan.objectives.is_empty());
}

#[test]
fn errors_name_the_line_and_the_key() {
    let check = |line: &str, text: &str, expected: &str| {
        let error = parse(Path::new("a.toml"), with_line(line, text), &[]).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}\n{expected}");
    };
    check("seed", "seed = 7\nsead = 8", "a.toml:3: sead: unknown field `sead`, expected one of `name`");
    check("shard_size", "chard_size = 10", "a.toml:12: decode.chard_size: unknown field");
    check(
        "measure.softmax",
        "measure.softmax = { tau = 4.0 }",
        "a.toml:18: sweep.measure.softmax.tau: unknown field `tau`",
    );
    check("seed", "seed = \"x\"", "a.toml:2: seed: invalid type: string \"x\", expected u64");
    check("seed", "seed = ", "a.toml:2: ");
    check("name", "seed = 1", "a.toml:2: duplicate key");
    check("batch_size", "", "a.toml:9: decode: missing field `batch_size`");
    check("seed = ", "threads = 1000000", "a.toml:2: threads: is 1000000, but must be at most ");
    check(
        "max_tokens",
        "max_tokens = 1000000000000",
        "a.toml:10: decode.max_tokens: is 1000000000000, but must be at most 1000000: memory is set aside for as many",
    );
    check("batch_size", "batch_size = 0", "a.toml:11: decode.batch_size: is 0, but must be at least 1");
    check("batch_size", "batch_size = -1", "a.toml:11: decode.batch_size: ");
    check("model", "", "a.toml: missing field `model`");
    check("name", "name = '../x'", "a.toml:1: name: must be fit");
    check(
        "thresholds",
        "thresholds = [0.5, 1.5]",
        "a.toml:16: sweep.thresholds[1]: threshold must be from 0 to 1, not 1.5",
    );
    check(
        "thresholds",
        "thresholds = [nan]",
        "a.toml:16: sweep.thresholds[0]: threshold must be from 0 to 1",
    );
    check("thresholds", "thresholds = [0.5, 0.5]", "a.toml:16: sweep.thresholds[1]: 0.5 is there twice");
    check("thresholds", "", "a.toml:14: sweep.thresholds: the softmax measure has no thresholds");
    check(
        "measure.state",
        "measure.state.thresholds = [\n1.0,\n-0.1]",
        "a.toml:21: sweep.measure.state.thresholds[1]: threshold must be",
    );
    check(
        "measure.softmax",
        "measure.softmax.decay = -1.0",
        "a.toml:18: sweep.measure.softmax.decay: decay must be",
    );
    check(
        "measures",
        "measures = ['entropy']",
        "a.toml:15: sweep.measures[0]: unknown confidence measure `entropy`: there are softmax, pruned, state, classifier, agreement, agreement_pruned, beta, head_entropy, head_gap, head_max, head_margin, head_confidence, level_entropy, level_gap and level_max",
    );
    check("measures", "measures = ['state', 'state']", "a.toml:15: sweep.measures[1]: state is there twice");
    check("test", "test = []", "a.toml:6: data.test: expected at least one path");
    check("test", "test = 3", "a.toml:6: data.test: expected a path or a list of paths");
    check("test", "test = 'calibration.jsonl'", "a.toml:7: data.calibration: the same as data.test");
    check("oracle", "static_layers = 'none'", "a.toml:17: sweep.static_layers: expected \"all\" or a list");
    check("oracle", "static_layers = [2, 0]", "a.toml:17: sweep.static_layers[1]: must be at least 1");
    check("textual_deltas", "textual_deltas = [1.0]", "a.toml:23: calibration.textual_deltas[0]: ");
    check("risk =", "risk = 'bleurt'", "a.toml:24: calibration.risk: unknown loss `bleurt`");
    check("risk =", "risk = 'chrf'\nepsilon = 0", "a.toml:25: calibration.epsilon: ");
    check(
        "risk =",
        "risk = 'chrf'\np_value = 'binomial'",
        "a.toml:25: calibration.p_value: the binomial p-value",
    );
    check(
        "[data]",
        "[plots]\nquality = 'exact'\n[data]",
        "a.toml:6: plots.quality: must be one of the columns",
    );
}

#[test]
fn errors_in_the_calibration_say_what_does_not_go_together() {
    let check = |text: &str, expected: &str| {
        let text = with_line("signed_risk_deltas", text);
        let error = parse(Path::new("a.toml"), text, &[]).unwrap_err();
        assert_eq!(error.to_string(), format!("a.toml:{expected}"));
    };
    check(
        "signed_risk_deltas = [0.1, 1.0]",
        "26: calibration.signed_risk_deltas[1]: the tolerance delta must lie in (0, 1), found 1",
    );
    check("signed_risk_deltas = [0.1, 0.1]", "26: calibration.signed_risk_deltas[1]: 0.1 is there twice");
    check(
        "p_value = 'binomial'",
        "26: calibration.p_value: the binomial p-value does not hold for losses of kind unit, which the textual \
         objective has",
    );
    check(
        "starts = 3",
        "26: calibration.starts: belongs to the multi-start procedure, but the procedure is fixed-sequence",
    );
    check("procedure = 'multi-start'\nstarts = 0", "27: calibration.starts: is 0, but must be at least 1");
    check(
        "procedure = 'multi-start'\nsplit_seed = 0",
        "27: calibration.split_seed: belongs to the pareto procedure, but the procedure is multi-start",
    );
    check(
        "procedure = 'holm'\nsplit_share = 0.5",
        "27: calibration.split_share: belongs to the pareto procedure, but the procedure is holm",
    );
    check(
        "procedure = 'pareto'\nsplit_share = 1.0",
        "27: calibration.split_share: the share of a split must lie in (0, 1), found 1",
    );
    check(
        "procedure = 'best'",
        "26: calibration.procedure: unknown procedure `best`: there are bonferroni, holm, fixed-sequence, \
         multi-start, graphical and pareto",
    );
    check(
        "[calibration.trials]\ncalibration_share = 0",
        "27: calibration.trials.calibration_share: the share of a split must lie in (0, 1), found 0",
    );
    check(
        "[calibration.trials]\ncount = 1_000_000_000",
        "27: calibration.trials.count: 1000000000 is more than 100000: as all trials are drawn from the same examples, \
         more of them tell no more",
    );
    check(
        "[calibration.trials]\nnumber = 5",
        "27: calibration.trials.number: unknown field `number`, expected one of `count`, `calibration_share`, `seed`",
    );

    // A difference of binary losses is not binary.
    let exact =
        ["calibration.textual_distance=exact", "calibration.risk=exact", "calibration.p_value=binomial"];
    assert_eq!(
        plan(&exact).unwrap_err(),
        "--set calibration.p_value=binomial: calibration.p_value: the binomial p-value does not hold for losses of \
         kind difference, which the signed-risk objective has"
    );
    plan(&[&exact[..], &["calibration.signed_risk_deltas=[]"]].concat()).unwrap();
}

#[test]
fn errors_in_overrides_name_the_argument() {
    let check = |argument: &str, expected: &str| {
        let error = plan(&["seed=1", argument]).unwrap_err();
        assert!(error.starts_with(&format!("--set {argument}: {expected}")), "{error}");
    };
    check("seed", "expected KEY=VALUE");
    check("=1", "");
    check("sead=8", "sead: unknown field");
    check("decode.batch_size=many", "decode.batch_size: invalid type: string \"many\"");
    check("sweep.thresholds=[0.1,2]", "sweep.thresholds[1]: threshold must be from 0 to 1, not 2");
    check("sweep.measure.softmax.decay=-1", "sweep.measure.softmax.decay: decay must be");
    check("calibration.textual_distance=far", "calibration.textual_distance: unknown loss `far`");
    check("data=3", "data: invalid type: integer `3`");
}
