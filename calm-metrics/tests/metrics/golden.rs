//! Agreement with sacreBLEU, rouge-score and the SQuAD evaluation on the texts of `tests/golden/generate.py`.

use calm_metrics::significance::{self, SEED};
use calm_metrics::{
    Bleu, BleuOptions, PairedTest, Resampling, Rouge, RougeKind, RougeOptions, Scorer, Tokenizer,
    corpus_bleu, rouge, sentence_bleu,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    scorers: Vec<Scorer>,
    corpora: Vec<Corpus>,
    comparison: Comparisons,
    pairs: Vec<Pair>,
}

/// `scores` and `signatures` belong to `Golden::scorers`, in the same order.
#[derive(Deserialize)]
struct Corpus {
    group: String,
    bleu: Bleu,
    scores: Vec<f64>,
    signatures: Vec<Option<String>>,
}

#[derive(Deserialize)]
struct Pair {
    group: String,
    hypothesis: String,
    references: Vec<String>,
    tokens_13a: String,
    bleu: Bleu,
    rouge_l: [f64; 3],
    rouge_lsum: [f64; 3],
    scores: Vec<f64>,
}

/// The comparisons of systems with a baseline.
///
/// The systems are the hypotheses of the group "english" with at most two references.
#[derive(Deserialize)]
struct Comparisons {
    baseline: Vec<String>,
    tests: Vec<Comparison>,
}

#[derive(Deserialize)]
struct Comparison {
    scorer: Scorer,
    bs: Test,
    ar: Test,
    /// The result of sacreBLEU itself; for the others it was made to compute in doubles.
    float32: Test,
}

#[derive(Deserialize)]
struct Test {
    signature: Option<String>,
    samples: usize,
    p_value: f64,
    scores: [f64; 2],
    intervals: Option<[[f64; 2]; 2]>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../golden/golden.json")).expect("what generate.py wrote")
}

#[track_caller]
fn check(what: &str, actual: f64, expected: f64) {
    assert!((actual - expected).abs() <= 1e-9, "{what}: {actual}, expected {expected}");
}

fn check_bleu(what: &str, actual: &Bleu, expected: &Bleu) {
    let integers = |bleu: &Bleu| (bleu.counts, bleu.totals, bleu.sys_len, bleu.ref_len);
    assert_eq!(integers(actual), integers(expected), "{what}");
    check(what, actual.score, expected.score);
    check(what, actual.brevity_penalty, expected.brevity_penalty);
    for (actual, expected) in actual.precisions.iter().zip(expected.precisions) {
        check(what, *actual, expected);
    }
}

#[test]
fn sentences_score_as_in_the_python_tools() {
    let Golden { scorers, pairs, .. } = golden();
    assert!(pairs.len() >= 500);
    for pair in &pairs {
        let (hypothesis, references) = (&pair.hypothesis, &pair.references);
        let what =
            |metric: &dyn std::fmt::Debug| format!("{metric:?} of {hypothesis:?} beside {references:?}");
        assert_eq!(pair.scores.len(), scorers.len());
        for (scorer, &expected) in scorers.iter().zip(&pair.scores) {
            check(&what(scorer), scorer.sentence_score(hypothesis, references).unwrap(), expected);
        }
        let tokens = Tokenizer::V13a.tokenize(hypothesis);
        let tokens: Vec<&str> = Tokenizer::tokens(&tokens).collect();
        assert_eq!(tokens.join(" "), pair.tokens_13a, "{}", what(&"13a"));
        let options = BleuOptions::SENTENCE;
        check_bleu(&what(&"BLEU"), &sentence_bleu(hypothesis, references, &options).unwrap(), &pair.bleu);
        if let [reference] = references.as_slice() {
            for (kind, stem, parts) in
                [(RougeKind::L, false, pair.rouge_l), (RougeKind::Lsum, true, pair.rouge_lsum)]
            {
                let Rouge { precision, recall, f_measure } =
                    rouge(hypothesis, reference, &RougeOptions { kind, stem });
                for (actual, expected) in [precision, recall, f_measure].into_iter().zip(parts) {
                    check(&what(&kind), actual, expected);
                }
            }
        }
    }
}

#[test]
fn corpora_score_as_in_the_python_tools() {
    let Golden { scorers, corpora, pairs, .. } = golden();
    for corpus in &corpora {
        let segments: Vec<&Pair> =
            pairs.iter().filter(|pair| corpus.group == "all" || corpus.group == pair.group).collect();
        let hypotheses: Vec<&str> = segments.iter().map(|pair| pair.hypothesis.as_str()).collect();
        let references: Vec<&[String]> = segments.iter().map(|pair| pair.references.as_slice()).collect();
        let what = |scorer: &dyn std::fmt::Debug| format!("{scorer:?} of {}", corpus.group);
        let bleu = corpus_bleu(&hypotheses, &references, &BleuOptions::default()).unwrap();
        check_bleu(&what(&"BLEU"), &bleu, &corpus.bleu);
        for ((scorer, &expected), signature) in scorers.iter().zip(&corpus.scores).zip(&corpus.signatures) {
            check(&what(scorer), scorer.corpus_score(&hypotheses, &references).unwrap(), expected);
            if let Some(signature) = signature {
                assert_eq!(scorer.signature(&references, &Resampling::default()), *signature);
            }
        }
    }
}

#[test]
fn systems_compare_as_in_sacrebleu() {
    let Golden { comparison, pairs, .. } = golden();
    let pairs: Vec<&Pair> =
        pairs.iter().filter(|pair| pair.group == "english" && pair.references.len() <= 2).collect();
    let hypotheses: Vec<&str> = pairs.iter().map(|pair| pair.hypothesis.as_str()).collect();
    let references: Vec<&[String]> = pairs.iter().map(|pair| pair.references.as_slice()).collect();
    for Comparison { scorer, bs, ar, float32 } in comparison.tests {
        let baseline = scorer.statistics(&comparison.baseline, &references).unwrap();
        let system = scorer.statistics(&hypotheses, &references).unwrap();
        let what = |test: &str| format!("{test} of {scorer:?}");
        for (kind, test) in [(PairedTest::Bootstrap, &bs), (PairedTest::Randomisation, &ar)] {
            let compared = kind.compare(&baseline, &system, test.samples, SEED).unwrap();
            let what = what(&format!("{kind:?}"));
            check(&what, compared.baseline, test.scores[0]);
            check(&what, compared.system, test.scores[1]);
            check(&what, compared.p_value, test.p_value);
            let mut resampling = Resampling { seed: Some(SEED), ..Resampling::default() };
            match kind {
                PairedTest::Bootstrap => resampling.bootstrap = Some(test.samples),
                PairedTest::Randomisation => resampling.randomisation = Some(test.samples),
            }
            if let Some(signature) = &test.signature {
                assert_eq!(scorer.signature(&references, &resampling), *signature);
            }
        }
        for (index, statistics) in [baseline, system].iter().enumerate() {
            let interval = significance::bootstrap(statistics, bs.samples, SEED).unwrap();
            // sacreBLEU computes the baseline's interval in another place, always from statistics in single
            // precision.
            for (test, tolerance) in [(&bs, 1e-9), (&float32, 2e-4)] {
                let [mean, half_width] = test.intervals.unwrap()[index];
                assert!((interval.mean - mean).abs() <= tolerance, "{}: {interval:?}, {mean}", what("mean"));
                assert!((interval.half_width - half_width).abs() <= tolerance, "{}", what("half width"));
            }
        }
    }
}
