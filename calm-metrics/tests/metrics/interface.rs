//! Names, kinds, errors, and cases worked out by hand.

use calm_metrics::{
    BleuOptions, Caveat, Error, Loss, LossKind, Metric, PairedTest, Resampling, Scorer, Tokenizer,
    corpus_bleu, corpus_chrf, corpus_ter, edit_distance, sentence_bleu, sentence_ter, significance,
    token_disagreement,
};

#[test]
fn names_read_back_everywhere() {
    fn check<T>(all: &[T], names: &[&str])
    where
        T: Copy + PartialEq + std::fmt::Debug + std::fmt::Display + std::str::FromStr<Err: std::fmt::Debug>,
        T: serde::Serialize + serde::de::DeserializeOwned,
    {
        assert_eq!(all.len(), names.len());
        for (value, name) in all.iter().zip(names) {
            assert_eq!(value.to_string(), *name);
            assert_eq!(name.parse::<T>().unwrap(), *value);
            let json = serde_json::to_string(value).unwrap();
            assert_eq!(json, format!("\"{name}\""));
            assert_eq!(serde_json::from_str::<T>(&json).unwrap(), *value);
        }
    }
    let metrics =
        ["bleu", "chrf", "chrf++", "ter", "rouge-1", "rouge-2", "rouge-l", "rouge-lsum", "token-f1", "exact"];
    check(Metric::ALL, &metrics);
    let losses = ["chrf", "rouge-l", "token-f1", "bleu", "edit-similarity", "token-disagreement", "exact"];
    check(Loss::ALL, &losses);
    check(Tokenizer::ALL, &["13a", "intl", "char", "none"]);
    let labels: Vec<&str> = Metric::ALL.iter().map(|metric| metric.label()).collect();
    let printed = ["BLEU", "chrF", "chrF++", "TER", "ROUGE-1", "ROUGE-2", "ROUGE-L", "ROUGE-Lsum"];
    assert_eq!(labels, [&printed[..], &["token-f1", "exact"]].concat());
    assert_eq!(
        "rouge".parse::<Metric>().unwrap_err().to_string(),
        "unknown metric `rouge`: there are bleu, chrf, chrf++, ter, rouge-1, rouge-2, rouge-l, rouge-lsum, \
         token-f1 and exact"
    );
    let error = serde_json::from_str::<Loss>("\"BLEU\"").unwrap_err().to_string();
    assert!(error.starts_with("unknown loss `BLEU`"), "{error}");
}

#[test]
fn what_cannot_be_scored_is_an_error() {
    let check = |hypotheses: &[&str], references: &[Vec<&str>], expected: Error| {
        assert_eq!(corpus_bleu(hypotheses, references, &Default::default()).unwrap_err(), expected);
        assert_eq!(corpus_ter(hypotheses, references, &Default::default()).unwrap_err(), expected);
        assert_eq!(corpus_chrf(hypotheses, references, &Default::default()).unwrap_err(), expected);
        for metric in Metric::ALL {
            assert_eq!(metric.corpus_score(hypotheses, references).unwrap_err(), expected);
        }
        for loss in Loss::ALL {
            assert_eq!(loss.of_each(hypotheses, references).unwrap_err(), expected);
        }
    };
    check(&["a", "b", "c"], &[vec!["a"], vec!["b"]], Error::CountMismatch { hypotheses: 3, references: 2 });
    check(&[], &[vec!["a"]], Error::CountMismatch { hypotheses: 0, references: 1 });
    check(&[], &[], Error::EmptyCorpus);
    check(&["a", "b"], &[vec!["a"], vec![]], Error::NoReference { segment: 1 });
    let none: [&str; 0] = [];
    let error = Error::NoReference { segment: 0 };
    assert_eq!(sentence_bleu("a", &none, &BleuOptions::SENTENCE).unwrap_err(), error);
    assert_eq!(sentence_ter("a", &none, &Default::default()).unwrap_err(), error);
    for metric in Metric::ALL {
        assert_eq!(metric.sentence_score("a", &none).unwrap_err(), error);
    }
    let message = Error::CountMismatch { hypotheses: 3, references: 2 }.to_string();
    assert_eq!(message, "3 hypotheses but references for 2");
}

#[test]
fn losses_of_known_pairs() {
    let check = |loss: Loss, output: &str, reference: &str, expected: f64| {
        let actual = loss.between(output, reference);
        assert!((actual - expected).abs() < 1e-12, "{loss} of {output:?} beside {reference:?}: {actual}");
    };
    check(Loss::RougeL, "good morning", "good evening", 0.5);
    check(Loss::TokenF1, "the cat", "A cat sat.", 1.0 - 2.0 / 3.0);
    check(Loss::Exact, "The cat.", "cat", 0.0);
    check(Loss::Exact, "cats", "cat", 1.0);
    check(Loss::TokenDisagreement, "a b c d", "a x c", 0.5);
    check(Loss::TokenDisagreement, "a\u{a0}b", "a b", 0.0);
    check(Loss::EditSimilarity, "kitten", "sitting", 3.0 / 7.0);
    check(Loss::EditSimilarity, "été", "ete", 2.0 / 3.0);
    check(Loss::Chrf, "abc", "xyz", 1.0);
    check(Loss::Chrf, "a bc", "ab c", 0.0);
    // The precisions are 3/4, 1/3, 1/(2*2) and 1/(4*1).
    let precisions = [0.75, 1.0 / 3.0, 0.25, 0.25_f64];
    check(Loss::Bleu, "a b x c", "a b y c", 1.0 - precisions.iter().product::<f64>().powf(0.25));
    for loss in Loss::ALL {
        check(*loss, "something", "", 1.0);
        check(*loss, "", "something", 1.0);
        let binary = loss.kind() == LossKind::Binary;
        assert_eq!(binary, *loss == Loss::Exact);
        assert_eq!(loss.range(), 0.0..=1.0);
    }
}

#[test]
fn a_loss_takes_the_best_reference() {
    let outputs = ["cat sat", "dog"];
    let references = [vec!["x", "cat sat", "cat"], vec!["mice"]];
    for loss in Loss::ALL {
        assert_eq!(loss.of_each(&outputs, &references).unwrap(), [0.0, 1.0], "{loss}");
    }
}

#[test]
fn token_disagreement_counts_positions() {
    assert_eq!(token_disagreement::<u32>(&[], &[]), 0.0);
    assert_eq!(token_disagreement(&[1, 2, 3, 4], &[1, 2, 4]), 0.5);
    assert_eq!(token_disagreement(&[1, 2, 4], &[1, 2, 3, 4]), 0.5);
    assert_eq!(token_disagreement(&[7], &[]), 1.0);
}

#[test]
fn edit_distance_of_known_sequences() {
    assert_eq!(edit_distance::<u32>(&[], &[]), 0);
    assert_eq!(edit_distance(&[1, 2, 3], &[]), 3);
    assert_eq!(edit_distance(&[], &[1, 2, 3]), 3);
    assert_eq!(edit_distance(&[1, 2, 3, 4], &[1, 3, 4, 5]), 2);
}

#[test]
fn options_read_from_configurations_have_the_defaults_of_the_tools() {
    let read = |json: &str| serde_json::from_str::<Scorer>(json);
    assert_eq!(read(r#"{"metric": "bleu"}"#).unwrap(), Metric::Bleu.into());
    assert_eq!(read(r#"{"metric": "chrf", "word_order": 2}"#).unwrap(), Metric::ChrfPlusPlus.into());
    assert_eq!(read(r#"{"metric": "ter"}"#).unwrap(), Metric::Ter.into());
    assert_eq!(read(r#"{"metric": "rouge", "kind": {"n": 2}}"#).unwrap(), Metric::Rouge2.into());
    assert!(read(r#"{"metric": "bleu", "word_order": 2}"#).is_err());
    assert!(Metric::ALL.iter().all(|metric| metric.higher_is_better() == (*metric != Metric::Ter)));
}

#[test]
fn signatures_of_the_tools_without_one() {
    let signature = |metric: Metric| {
        let scorer = Scorer::from(metric);
        scorer.signature(&[vec!["a"], vec!["b", "c"]], &Resampling { seed: Some(1), ..Default::default() })
    };
    assert_eq!(signature(Metric::RougeLsum), "nrefs:var|seed:1|case:lc|type:rougeLsum|stem:no|version:0.1.2");
    assert_eq!(signature(Metric::Rouge2), "nrefs:var|seed:1|case:lc|type:rouge2|stem:no|version:0.1.2");
    assert_eq!(signature(Metric::TokenF1), "nrefs:var|seed:1|norm:squad|version:1.1");
}

#[test]
fn what_cannot_be_compared_is_an_error() {
    let of = |metric: Metric, texts: &[&str]| {
        let references: Vec<[&str; 1]> = texts.iter().map(|text| [*text]).collect();
        Scorer::from(metric).statistics(texts, &references).unwrap()
    };
    let (one, two) = (of(Metric::Chrf, &["a"]), of(Metric::Chrf, &["a", "b"]));
    let other = of(Metric::Bleu, &["a"]);
    for test in [PairedTest::Bootstrap, PairedTest::Randomisation] {
        let error = |baseline, system, samples| test.compare(baseline, system, samples, 0).unwrap_err();
        assert_eq!(error(&two, &one, 9), Error::SystemMismatch { baseline: 2, system: 1 });
        assert_eq!(error(&other, &one, 9), Error::ScorerMismatch);
        assert_eq!(error(&one, &one, 0), Error::NoSamples);
    }
    assert_eq!(significance::bootstrap(&one, 0, 0).unwrap_err(), Error::NoSamples);
}

#[test]
fn caveats() {
    let check = |metric: Metric, texts: &[&str], expected: Option<Caveat>| {
        let references: Vec<[&str; 1]> = texts.iter().map(|&text| [text]).collect();
        let statistics = Scorer::from(metric).statistics(texts, &references).unwrap();
        assert_eq!(statistics.caveat(&references), expected, "{metric} of {texts:?}");
    };
    check(Metric::Bleu, &["good day", "yes"], Some(Caveat::TooShort));
    check(Metric::Bleu, &["good day", "to all of you"], None);
    check(Metric::Bleu, &[""], None);
    check(Metric::RougeL, &["привет мир", "hello", "你好"], Some(Caveat::NoWords { segments: 2, of: 3 }));
    check(Metric::RougeL, &["ça", "...", ""], None);
    check(Metric::Chrf, &["привет"], None);
}

/// Tercom looks at 25 words on either side of the diagonal alone. sacreBLEU 2.6 counts 27 edits here, where
/// 26 insertions would do.
#[test]
fn ter_stays_within_its_beam() {
    let reference = format!("a{}", " b".repeat(26));
    let ter = sentence_ter("a", &[&reference], &Default::default()).unwrap();
    assert_eq!((ter.edits, ter.ref_length), (27, 27.0));
}
