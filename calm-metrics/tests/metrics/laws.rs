//! Laws that hold for all texts.

use calm_metrics::{
    Bleu, BleuOptions, ChrfOptions, Loss, LossKind, Metric, PairedTest, Rouge, RougeKind, RougeOptions,
    Scorer, TerOptions,
};
use calm_metrics::{
    corpus_bleu, corpus_chrf, edit_distance, exact_match, rouge, sentence_bleu, sentence_chrf,
};
use calm_metrics::{sentence_ter, significance, token_f1};
use proptest::prelude::*;

/// Generates texts of few different words, so that pairs of them have much in common.
///
/// Some have odd characters.
fn text() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        8 => "[a-d]{1,2}",
        2 => "[0-9][.,-]?[0-9]?",
        1 => "[.,!?'«»—]",
        1 => Just("&quot;".to_owned()),
        1 => "\\PC{1,3}",
    ];
    (prop::collection::vec(word, 0..14), "[ \u{a0}\u{1c}]").prop_map(|(words, space)| words.join(&space))
}

fn corpus(segments: std::ops::Range<usize>) -> impl Strategy<Value = (Vec<String>, Vec<Vec<String>>)> {
    prop::collection::vec((text(), prop::collection::vec(text(), 1..4)), segments)
        .prop_map(|segments| segments.into_iter().unzip())
}

/// Fills the table of the textbook.
fn common_subsequence(a: &[String], b: &[String]) -> usize {
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..a.len() {
        for j in 0..b.len() {
            table[i + 1][j + 1] =
                if a[i] == b[j] { table[i][j] + 1 } else { table[i][j + 1].max(table[i + 1][j]) };
        }
    }
    table[a.len()][b.len()]
}

fn rouge_l(a: &str, b: &str) -> Rouge {
    rouge(a, b, &RougeOptions::new(RougeKind::L))
}

/// Computes Levenshtein's distance by the textbook.
fn levenshtein(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Computes the bits of all scores of a corpus.
fn all_scores(hypotheses: &[String], references: &[Vec<String>]) -> Vec<u64> {
    let metrics = Metric::ALL
        .iter()
        .map(|metric| metric.corpus_score(hypotheses, references).expect("segments pair up"));
    let losses =
        Loss::ALL.iter().flat_map(|loss| loss.of_each(hypotheses, references).expect("segments pair up"));
    metrics.chain(losses).map(f64::to_bits).collect()
}

proptest! {
    #[test]
    fn scores_and_losses_stay_in_range(a in text(), b in text()) {
        for metric in Metric::ALL {
            let score = metric.sentence_score(&a, &[&b]).unwrap();
            let most = if metric.higher_is_better() { 100.0 } else { f64::INFINITY };
            prop_assert!((0.0..=most).contains(&score), "{metric}: {score}");
        }
        for loss in Loss::ALL {
            let value = loss.between(&a, &b);
            prop_assert!((0.0..=1.0).contains(&value), "{loss}: {value}");
            prop_assert!(loss.kind() != LossKind::Binary || value == 0.0 || value == 1.0, "{loss}: {value}");
        }
    }

    #[test]
    fn a_text_has_no_loss_beside_itself(text in any::<String>()) {
        for loss in Loss::ALL {
            prop_assert_eq!(loss.between(&text, &text), 0.0);
        }
        prop_assert!(exact_match(&text, &text));
    }

    #[test]
    fn a_text_with_words_scores_full_beside_itself(words in prop::collection::vec("[b-z]{2,3}", 4..20)) {
        let text = words.join(" ");
        for metric in Metric::ALL {
            let score = metric.sentence_score(&text, &[&text]).unwrap();
            let best = if metric.higher_is_better() { 100.0 } else { 0.0 };
            prop_assert!((score - best).abs() < 1e-9, "{metric}: {score}");
        }
    }

    #[test]
    fn f_measures_are_symmetric(a in text(), b in text()) {
        let close = |x: f64, y: f64| (x - y).abs() < 1e-12;
        let (there, back) = (rouge_l(&a, &b), rouge_l(&b, &a));
        prop_assert_eq!((there.precision, there.recall), (back.recall, back.precision));
        prop_assert!(close(there.f_measure, back.f_measure));
        prop_assert!(close(token_f1(&a, &b), token_f1(&b, &a)));
        prop_assert_eq!(exact_match(&a, &b), exact_match(&b, &a));
        let balanced = ChrfOptions { beta: 1, ..ChrfOptions::default() };
        prop_assert!(close(sentence_chrf(&a, &b, &balanced), sentence_chrf(&b, &a, &balanced)));
    }

    #[test]
    fn rouge_finds_the_longest_common_subsequence(
        a in prop::collection::vec("[a-d]", 1..200),
        b in prop::collection::vec("[a-e]", 1..200),
    ) {
        let common = common_subsequence(&a, &b) as f64;
        let expected = rouge_l(&a.join(" "), &b.join(" "));
        prop_assert_eq!((expected.precision, expected.recall), (common / a.len() as f64, common / b.len() as f64));
        // For single lines the union of subsequences is one subsequence. The line break adds no line but has
        // the union computed.
        let union = rouge(&(a.join(" ") + "\n"), &b.join(" "), &RougeOptions::new(RougeKind::Lsum));
        prop_assert_eq!(union, expected);
    }

    #[test]
    fn edit_distance_is_levenshteins(
        a in prop::collection::vec(0u8..4, 0..200),
        b in prop::collection::vec(0u8..4, 0..200),
    ) {
        prop_assert_eq!(edit_distance(&a, &b), levenshtein(&a, &b));
    }

    // In longer texts the shortest way may lie outside the beam of 25 words around the diagonal.
    #[test]
    fn shifts_never_cost_more_than_edits(
        a in prop::collection::vec("[a-d]", 0..25),
        b in prop::collection::vec("[a-d]", 1..25),
    ) {
        let ter = sentence_ter(&a.join(" "), &[b.join(" ")], &TerOptions::default()).unwrap();
        prop_assert!(ter.edits <= edit_distance(&a, &b) as u64);
        prop_assert_eq!(ter.ref_length, b.len() as f64);
    }

    #[test]
    fn another_reference_never_adds_loss((outputs, references) in corpus(1..4), extra in text()) {
        for loss in Loss::ALL {
            let before = loss.of_each(&outputs, &references).unwrap();
            let more: Vec<Vec<&str>> = references
                .iter()
                .map(|of_segment| of_segment.iter().map(String::as_str).chain([extra.as_str()]).collect())
                .collect();
            for (before, after) in before.iter().zip(loss.of_each(&outputs, &more).unwrap()) {
                prop_assert!(after <= *before, "{loss}: {before} to {after}");
            }
        }
    }

    #[test]
    fn a_corpus_of_copies_scores_as_one_copy((outputs, references) in corpus(1..6), copies in 2usize..4) {
        let scores = |times: usize| {
            let repeated = std::iter::repeat_n(outputs.iter().zip(&references), times).flatten();
            let (outputs, references): (Vec<&String>, Vec<&Vec<String>>) = repeated.unzip();
            // The smoothing of an order without matches depends on how many n-grams there are.
            let smoothed = corpus_bleu(&outputs, &references, &BleuOptions::default()).unwrap().counts.contains(&0);
            let metrics = Metric::ALL.iter().filter(|metric| !smoothed || **metric != Metric::Bleu);
            metrics.map(|metric| metric.corpus_score(&outputs, &references).unwrap()).collect::<Vec<_>>()
        };
        for (one, many) in scores(1).iter().zip(scores(copies)) {
            prop_assert!((one - many).abs() < 1e-9, "{one} and {many}");
        }
    }

    #[test]
    fn counts_add_up_over_segments((outputs, references) in corpus(1..6)) {
        let whole = corpus_bleu(&outputs, &references, &BleuOptions::default()).unwrap();
        let sentence = |(o, r): (&String, &Vec<String>)| sentence_bleu(o, r, &BleuOptions::SENTENCE);
        let parts: Vec<Bleu> =
            outputs.iter().zip(&references).map(|pair| sentence(pair).unwrap()).collect();
        for order in 0..whole.counts.len() {
            prop_assert_eq!(whole.counts[order], parts.iter().map(|part| part.counts[order]).sum::<u64>());
            prop_assert_eq!(whole.totals[order], parts.iter().map(|part| part.totals[order]).sum::<u64>());
            prop_assert!(whole.counts[order] <= whole.totals[order]);
        }
        prop_assert_eq!(whole.sys_len, parts.iter().map(|part| part.sys_len).sum::<u64>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn resamples_do_not_depend_on_the_number_of_threads((outputs, references) in corpus(2..40)) {
        let baseline: Vec<&str> = references.iter().map(|of_segment| of_segment[0].as_str()).collect();
        let with_threads = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let of = |metric: Metric| {
                    let scorer = Scorer::from(metric);
                    let system = scorer.statistics(&outputs, &references).unwrap();
                    let baseline = scorer.statistics(&baseline, &references).unwrap();
                    let tests = [PairedTest::Bootstrap, PairedTest::Randomisation];
                    let compared = tests.map(|test| test.compare(&baseline, &system, 300, 1).unwrap());
                    let interval = significance::bootstrap(&system, 300, 1).unwrap();
                    assert!(interval.low <= interval.mean + 1e-9 && interval.mean <= interval.high + 1e-9);
                    assert!(compared.iter().all(|c| c.p_value > 0.0 && c.p_value <= 1.0));
                    (compared, interval)
                };
                Metric::ALL.iter().copied().map(of).collect::<Vec<_>>()
            })
        };
        prop_assert_eq!(with_threads(1), with_threads(3));
    }

    #[test]
    fn scores_do_not_depend_on_the_number_of_threads((outputs, references) in corpus(600..700)) {
        let with_threads = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| all_scores(&outputs, &references))
        };
        prop_assert_eq!(with_threads(1), with_threads(3));
        let chrf = corpus_chrf(&outputs, &references, &ChrfOptions::PLUS_PLUS).unwrap();
        prop_assert!((0.0..=100.0).contains(&chrf));
    }
}
