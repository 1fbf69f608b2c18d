use calm_checkpoint::source_hash;
use calm_core::{AGREEMENT_FILE, AgreementMaps, BETA_FILE, BetaMixture, BetaMixtures, Exits, Observation};
use calm_fit::reliability::draw;

use crate::made_up::{NUM_LAYERS, base_of, fitted, mapping_of, observations, sources};

#[test]
fn made_up_probabilities_are_recovered() {
    let fitted = fitted(&observations(40));
    assert_eq!(fitted.maps.fitted_to.tokens, 4000);
    for layer in 1..NUM_LAYERS {
        let map = fitted.maps.get(mapping_of("agreement"), Exits::new(&[layer]).unwrap()).unwrap();
        for confidence in 0..10 {
            let expected = (confidence + layer - 1).min(10) as f32 / 10.0;
            assert_eq!(map.at(confidence as f32 / 10.0), expected, "layer {layer}");
        }
        assert!(map.knots().map(|(_, y)| y).is_sorted());
    }
    assert!(fitted.maps.get(mapping_of("agreement"), Exits::new(&[1, 2]).unwrap()).is_none());
    // What is held out has the same probabilities.
    assert_eq!(fitted.reliability.len(), NUM_LAYERS - 1);
    for row in &fitted.reliability {
        assert!(row.expected_calibration_error < 1e-6, "{row:?}");
        assert_eq!((row.tokens, row.bins.iter().map(|bin| bin.tokens).sum()), (1000, 1000));
    }
    assert!((fitted.reliability[0].agreement - 0.45).abs() < 1e-9);
}

/// A confidence of c / 10 is right for c of 10 tokens in layer 1: from c on, (c + 9) / 2 of 10 are.
#[test]
fn levels_are_fitted_where_the_model_has_heads() {
    let mut observations = observations(40);
    observations.streams[0].measure = base_of("level_gap");
    let fitted = fitted(&observations);
    let map = fitted.maps.get(mapping_of("level_gap"), Exits::new(&[1]).unwrap()).unwrap();
    for confidence in 0..10 {
        let expected = (confidence + 9) as f32 / 20.0;
        assert!((map.at(confidence as f32 / 10.0) - expected).abs() < 1e-6, "{confidence}");
        assert_eq!(map.at(confidence as f32 / 10.0), map.at(confidence as f32 / 10.0 + 0.05));
    }
    assert!(fitted.maps.get(mapping_of("agreement"), Exits::new(&[1]).unwrap()).is_none());
    assert_eq!((fitted.maps.maps.len(), fitted.reliability.len()), (NUM_LAYERS - 1, 0));
}

#[test]
fn the_order_of_the_examples_does_not_matter() {
    let (mut observations, mut sources) = (observations(24), sources(24));
    // Examples that differ.
    for (index, tokens) in observations.examples.iter_mut().enumerate() {
        tokens.truncate(10 + 3 * index);
    }
    let before = calm_fit::fit(&observations, &sources).unwrap();
    observations.examples.reverse();
    sources.reverse();
    observations.examples.swap(3, 17);
    sources.swap(3, 17);
    let after = calm_fit::fit(&observations, &sources).unwrap();
    assert_eq!(before.maps, after.maps);
    assert_eq!(before.reliability, after.reliability);
    let beta = || calm_fit::fit_beta(&observations, &sources).unwrap();
    let before = beta();
    observations.examples.swap(2, 5);
    sources.swap(2, 5);
    let after = calm_fit::fit_beta(&observations, &sources).unwrap();
    assert_eq!(before.mixtures, after.mixtures);
}

#[test]
fn mixtures_are_fitted_to_each_layer_but_the_last() {
    let observations = observations(40);
    let fitted = calm_fit::fit_beta(&observations, &sources(40)).unwrap();
    assert_eq!(fitted.mixtures.fitted_to.tokens, 4000);
    assert_eq!(fitted.mixtures.layers.len(), NUM_LAYERS - 1);
    for (layer, mixture) in (1..).zip(&fitted.mixtures.layers) {
        // All examples are alike.
        let tokens = observations.examples[0].iter().map(|readings| readings[layer - 1]);
        let tokens = tokens
            .map(|reading| Observation { x: reading.confidence, y: if reading.agrees { 1.0 } else { 0.0 } });
        let expected = BetaMixture::intended(tokens).unwrap();
        for x in [0.05, 0.3, 0.6, 0.95] {
            let (found, expected) = (mixture.posterior(x), expected.posterior(x));
            assert!((found - expected).abs() < 1e-6, "layer {layer}: {found} instead of {expected}");
        }
    }
    // The made-up probabilities rise from 0 to 0.9 with the confidence at layer 1.
    let first = fitted.mixtures.layers[0];
    assert!(first.posterior(0.1) < 0.35 && first.posterior(0.85) > 0.65, "{first:?}");
    for (index, row) in fitted.reliability.iter().enumerate() {
        assert_eq!((row.measure, row.layer, row.tokens), ("beta", index + 1, 1000));
        assert!(row.expected_calibration_error < 0.2, "{row:?}");
    }
}

#[test]
fn maps_know_nothing_of_what_is_held_out() {
    let observations = observations(40);
    let expected = fitted(&observations);
    let mut hashed: Vec<(String, usize)> =
        sources(40).iter().enumerate().map(|(index, source)| (source_hash(source), index)).collect();
    hashed.sort();
    let mut changed = observations.clone();
    for (_, index) in hashed.iter().step_by(4) {
        for reading in changed.examples[*index].iter_mut().flatten() {
            reading.agrees = !reading.agrees;
        }
    }
    let found = fitted(&changed);
    assert_eq!(found.maps, expected.maps);
    assert!(found.reliability.iter().all(|row| row.expected_calibration_error > 0.1));
    let beta = |observations| calm_fit::fit_beta(observations, &sources(40)).unwrap();
    assert_eq!(beta(&changed).mixtures, beta(&observations).mixtures);
    assert_ne!(beta(&changed).reliability, beta(&observations).reliability);
}

#[test]
fn too_few_examples_are_refused() {
    let error = calm_fit::fit(&observations(7), &sources(7)).unwrap_err().to_string();
    assert_eq!(error, "a confidence is fitted to at least 8 examples, and the number of these is 7");
    let mut empty = observations(8);
    empty.examples.fill(Vec::new());
    let error = calm_fit::fit(&empty, &sources(8)).unwrap_err().to_string();
    assert_eq!(error, "the outputs have no tokens to fit a confidence to");
    for (observations, expected) in [(&observations(7), "at least 8 examples"), (&empty, "have no tokens")] {
        let sources = sources(observations.examples.len());
        let error = calm_fit::fit_beta(observations, &sources).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn files_come_back() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(AgreementMaps::read(folder.path()).unwrap(), None);
    let mixtures = calm_fit::fit_beta(&observations(12), &sources(12)).unwrap().mixtures;
    assert_eq!(BetaMixtures::read(folder.path()).unwrap(), None);
    mixtures.write(folder.path()).unwrap();
    assert!(folder.path().join(BETA_FILE).is_file());
    assert_eq!(BetaMixtures::read(folder.path()).unwrap(), Some(mixtures));
    let fitted = fitted(&observations(12));
    fitted.maps.write(folder.path()).unwrap();
    assert_eq!(AgreementMaps::read(folder.path()).unwrap(), Some(fitted.maps));
    std::fs::write(folder.path().join(AGREEMENT_FILE), "{}").unwrap();
    let error = AgreementMaps::read(folder.path()).unwrap_err().to_string();
    assert!(error.contains(AGREEMENT_FILE), "{error}");
    for file in draw(&fitted.reliability, folder.path()).unwrap() {
        assert!(std::fs::metadata(file).unwrap().len() > 1000);
    }
}
