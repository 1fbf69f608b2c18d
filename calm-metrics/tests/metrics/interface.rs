//! Names, kinds, errors, and cases worked out by hand.

use calm_metrics::{
    Error, Loss, LossKind, Metric, corpus_bleu, corpus_chrf, sentence_bleu, token_disagreement,
};

#[test]
fn names_read_back_everywhere() {
    fn check<T>(all: &[T], names: &[&str])
    where
        T: Copy + PartialEq + std::fmt::Debug + std::fmt::Display + std::str::FromStr<Err = Error>,
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
    check(Metric::ALL, &["bleu", "chrf", "rouge-l", "token-f1", "exact"]);
    check(Loss::ALL, &["chrf", "rouge-l", "token-f1", "bleu", "token-disagreement", "exact"]);
    let labels: Vec<&str> = Metric::ALL.iter().map(|metric| metric.label()).collect();
    assert_eq!(labels, ["BLEU", "chrF", "ROUGE-L", "token-f1", "exact"]);
    assert_eq!(
        "rouge".parse::<Metric>().unwrap_err().to_string(),
        "unknown metric `rouge`: expected one of bleu, chrf, rouge-l, token-f1, exact"
    );
    let error = serde_json::from_str::<Loss>("\"BLEU\"").unwrap_err().to_string();
    assert!(error.starts_with("unknown loss `BLEU`"), "{error}");
}

#[test]
fn what_cannot_be_scored_is_an_error() {
    let check = |hypotheses: &[&str], references: &[Vec<&str>], expected: Error| {
        assert_eq!(corpus_bleu(hypotheses, references).unwrap_err(), expected);
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
    assert_eq!(sentence_bleu("a", &none).unwrap_err(), Error::NoReference { segment: 0 });
    for metric in Metric::ALL {
        assert_eq!(metric.sentence_score("a", &none).unwrap_err(), Error::NoReference { segment: 0 });
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
    check(Loss::Chrf, "abc", "xyz", 1.0);
    check(Loss::Chrf, "a bc", "ab c", 0.0);
    // Precisions 3/4, 1/3, 1/(2*2), 1/(4*1).
    let precisions = [0.75, 1.0 / 3.0, 0.25, 0.25_f64];
    check(Loss::Bleu, "a b x c", "a b y c", 1.0 - precisions.iter().product::<f64>().powf(0.25));
    for loss in Loss::ALL {
        check(*loss, "something", "", 1.0);
        check(*loss, "", "something", 1.0);
        let binary = loss.kind() == LossKind::Binary;
        assert_eq!(binary, *loss == Loss::Exact);
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
