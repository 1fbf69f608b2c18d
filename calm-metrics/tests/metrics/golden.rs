//! Agreement with sacreBLEU, rouge-score and the SQuAD evaluation on the texts of `tests/golden/generate.py`.

use calm_metrics::tokenizer::tokenize_13a;
use calm_metrics::{Bleu, ChrfOptions, Metric, Rouge};
use calm_metrics::{corpus_bleu, corpus_chrf, rouge_l, sentence_bleu, sentence_chrf};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    corpora: Vec<Corpus>,
    pairs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Corpus {
    group: String,
    bleu: Bleu,
    chrf: f64,
    chrf_plus_plus: f64,
    rouge_l: f64,
    token_f1: f64,
    exact_match: f64,
}

#[derive(Deserialize)]
struct Pair {
    group: String,
    hypothesis: String,
    references: Vec<String>,
    tokens_13a: String,
    bleu: Bleu,
    chrf: f64,
    chrf_plus_plus: f64,
    rouge_l: [f64; 3],
    token_f1: f64,
    exact_match: bool,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../golden/golden.json")).expect("what generate.py wrote")
}

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
    let pairs = golden().pairs;
    assert!(pairs.len() >= 500);
    for Pair { hypothesis, references, .. } in &pairs {
        assert!(!references.is_empty(), "{hypothesis:?}");
    }
    for pair in &pairs {
        let (hypothesis, references) = (&pair.hypothesis, &pair.references);
        let what = |metric: &str| format!("{metric} of {hypothesis:?} beside {references:?}");
        assert_eq!(tokenize_13a(hypothesis), pair.tokens_13a, "{}", what("13a"));
        check_bleu(&what("BLEU"), &sentence_bleu(hypothesis, references).unwrap(), &pair.bleu);
        let score = |metric: Metric| metric.sentence_score(hypothesis, references).unwrap();
        check(&what("BLEU"), score(Metric::Bleu), pair.bleu.score);
        check(&what("chrF"), score(Metric::Chrf), pair.chrf);
        check(&what("ROUGE-L"), score(Metric::RougeL), 100.0 * pair.rouge_l[2]);
        check(&what("token-F1"), score(Metric::TokenF1), 100.0 * pair.token_f1);
        check(&what("exact match"), score(Metric::Exact), if pair.exact_match { 100.0 } else { 0.0 });
        let plus_plus = references.iter().map(|r| sentence_chrf(hypothesis, r, &ChrfOptions::PLUS_PLUS));
        check(&what("chrF++"), plus_plus.fold(0.0, f64::max), pair.chrf_plus_plus);
        if let [reference] = references.as_slice() {
            let Rouge { precision, recall, f_measure } = rouge_l(hypothesis, reference);
            for (actual, expected) in [precision, recall, f_measure].iter().zip(pair.rouge_l) {
                check(&what("ROUGE-L"), *actual, expected);
            }
        }
    }
}

#[test]
fn corpora_score_as_in_the_python_tools() {
    let Golden { corpora, pairs } = golden();
    for corpus in &corpora {
        let segments: Vec<&Pair> =
            pairs.iter().filter(|pair| corpus.group == "all" || corpus.group == pair.group).collect();
        let hypotheses: Vec<&str> = segments.iter().map(|pair| pair.hypothesis.as_str()).collect();
        let references: Vec<&[String]> = segments.iter().map(|pair| pair.references.as_slice()).collect();
        let what = |metric: &str| format!("{metric} of {}", corpus.group);
        check_bleu(&what("BLEU"), &corpus_bleu(&hypotheses, &references).unwrap(), &corpus.bleu);
        let score = |metric: Metric| metric.corpus_score(&hypotheses, &references).unwrap();
        check(&what("BLEU"), score(Metric::Bleu), corpus.bleu.score);
        check(&what("chrF"), score(Metric::Chrf), corpus.chrf);
        check(&what("ROUGE-L"), score(Metric::RougeL), corpus.rouge_l);
        check(&what("token-F1"), score(Metric::TokenF1), corpus.token_f1);
        check(&what("exact match"), score(Metric::Exact), corpus.exact_match);
        let plus_plus = corpus_chrf(&hypotheses, &references, &ChrfOptions::PLUS_PLUS).unwrap();
        check(&what("chrF++"), plus_plus, corpus.chrf_plus_plus);
    }
}
