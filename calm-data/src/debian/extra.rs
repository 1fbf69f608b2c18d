//! Text pairs of other origins that are added to the translation training split.
//!
//! Other origins are all except bookworm's descriptions.
//!
//! They are added after the division of the source packages and take no part in it, so that no held-out split
//! and no tokenizer depends on them.

use super::description::{Description, Text};
use super::index::Indices;
use super::split::{Division, hash};
use super::tasks::{Candidate, translations};
use super::text;
use crate::Row;
use std::collections::{HashMap, HashSet};

/// An origin's name and its pairs.
pub(super) struct Origin {
    pub name: String,
    pub candidates: Vec<Candidate>,
}

/// Reads the translated descriptions of another release.
///
/// Descriptions of held-out packages are left out. They are recognised by the name of the source package and
/// also by that of the binary package, since sources are renamed between releases.
pub(super) fn release(name: &str, indices: &Indices, bookworm: &Indices, division: &Division) -> Origin {
    let is_held_out = |description: &Description| {
        let (source, binary) = &description.name;
        let before = bookworm.source_of.get(binary);
        division.is_held_out(source) || before.is_some_and(|source| division.is_held_out(source))
    };
    let descriptions = indices.descriptions.iter().filter(|description| !is_held_out(description));
    let mut candidates: Vec<Candidate> = descriptions.flat_map(translations).collect();
    for candidate in &mut candidates {
        candidate.row.id = format!("{name}/{}", candidate.row.id);
    }
    Origin { name: name.to_owned(), candidates }
}

/// Known texts, compared by their letters: neither side of an added pair may be one of them.
#[derive(Default)]
pub(super) struct Known {
    texts: HashSet<String>,
    /// The longer texts of held-out packages by their first [`LONG`] bytes. An added text may not contain
    /// them either.
    held_out: HashMap<Vec<u8>, Vec<String>>,
}

/// Length in bytes of letters from which on a text does not occur in another one by chance.
///
/// It is about seven words.
const LONG: usize = 40;

impl Known {
    /// Collects the texts of all pairs of the task, kept or not, and every text of the held-out packages.
    ///
    /// The held-out examples of all tasks are made from the latter.
    pub(super) fn new(translation: &[Candidate], bookworm: &Indices, division: &Division) -> Known {
        let mut known = Known::default();
        for candidate in translation {
            known.texts.extend(candidate.texts.iter().map(|text| text::skeleton(text)));
        }
        for description in &bookworm.descriptions {
            if division.is_held_out(&description.name.0) {
                known.insert_held_out(&description.long);
                let texts = [Some(&description.english), description.french.as_ref()];
                texts.into_iter().flatten().for_each(|text| known.insert_held_out_text(text));
            }
        }
        known
    }

    fn insert_held_out(&mut self, text: &str) {
        let skeleton = text::skeleton(text);
        if let Some(start) = skeleton.as_bytes().get(..LONG) {
            self.held_out.entry(start.to_owned()).or_default().push(skeleton.clone());
        }
        self.texts.insert(skeleton);
    }

    fn insert_held_out_text(&mut self, text: &Text) {
        self.insert_held_out(&text.synopsis);
        for paragraph in &text.paragraphs {
            paragraph.iter().for_each(|unit| self.insert_held_out(unit));
            self.insert_held_out(&paragraph.concat());
        }
    }

    fn contains(&self, skeleton: &str) -> bool {
        let bytes = skeleton.as_bytes();
        let is_held_out = |(start, window): (usize, &[u8])| {
            let texts = self.held_out.get(window);
            texts.is_some_and(|texts| texts.iter().any(|text| bytes[start..].starts_with(text.as_bytes())))
        };
        self.texts.contains(skeleton) || bytes.windows(LONG).enumerate().any(is_held_out)
    }

    /// Selects the pairs of an origin of which neither text is known, in hashed order.
    ///
    /// They are known from now on. The two texts of a pair must differ in more than digits, punctuation and
    /// case.
    pub(super) fn select(&mut self, mut candidates: Vec<Candidate>, seed: u64) -> Vec<Row> {
        candidates.sort_by_cached_key(|candidate| order(&candidate.row, seed));
        let mut rows = Vec::new();
        for Candidate { row, texts } in candidates {
            let skeletons = texts.each_ref().map(|text| text::skeleton(text));
            let [english, french] = &skeletons;
            if english != french && !skeletons.iter().any(|skeleton| self.contains(skeleton)) {
                self.texts.extend(skeletons);
                rows.push(row);
            }
        }
        rows
    }
}

/// Mixes the added rows into the others, which keep their order among themselves.
pub(super) fn merge(mut rows: Vec<Row>, added: Vec<Row>, seed: u64) -> Vec<Row> {
    rows.extend(added);
    rows.sort_by_cached_key(|row| order(row, seed));
    rows
}

/// Key by which the rows of a split are sorted; `split` leaves them in this order.
fn order(row: &Row, seed: u64) -> u64 {
    hash(seed, "example", &format!("{}\n{}", row.id, row.source))
}
