//! What is added to the training split of the translation task: pairs of other origins than bookworm's descriptions.
//!
//! They are added after the division of the source packages, and take no part in it, so that no held-out split and no
//! tokenizer depends on them.

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

/// The translated descriptions of another release. Those of packages that are held out are left out, by the name of the
/// source package and also by that of the binary package, since sources are renamed between releases.
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

/// Texts by their letters: what an added pair may not have on either side.
#[derive(Default)]
pub(super) struct Known {
    texts: HashSet<String>,
    /// The longer texts of held-out packages by their first [`LONG`] bytes: a paragraph may not contain them either.
    held_out: HashMap<Vec<u8>, Vec<String>>,
}

/// Bytes of letters from which on a text is too long to occur in another one by chance: about seven words.
const LONG: usize = 40;

impl Known {
    /// The texts of all pairs of the task, whichever of them were kept, and every text of the held-out packages, from
    /// which the held-out examples of all tasks are made.
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

    /// The origin's pairs of which neither text is known, and which differ in more than digits, punctuation and case, in
    /// hashed order; they are known from now on.
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

/// Mixes the added rows into the others, which keep their order.
pub(super) fn merge(mut rows: Vec<Row>, added: Vec<Row>, seed: u64) -> Vec<Row> {
    rows.extend(added);
    rows.sort_by_cached_key(|row| order(row, seed));
    rows
}

/// The order of the rows of a split, in which `split` leaves them too.
fn order(row: &Row, seed: u64) -> u64 {
    hash(seed, "example", &format!("{}\n{}", row.id, row.source))
}
