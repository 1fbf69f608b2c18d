//! Cuts one package description, English and perhaps French, into units of text.

use crate::{Result, tokenizer::normalize};

/// The operator U+22C5, which French translators write where their editor would lose a no-break space.
const MISSING_SPACE: char = '\u{22c5}';

/// A description in one language.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text {
    /// The one line that a package manager shows next to the name.
    pub synopsis: String,
    /// The long description: for each paragraph its units, which are the paragraph itself or the items of a
    /// list.
    pub paragraphs: Vec<Vec<String>>,
}

/// One distinct description of the indices.
pub(super) struct Description {
    /// MD5 sum of the English text, by which translations refer to it.
    pub md5: String,
    /// Source package and binary package.
    pub name: (String, String),
    pub english: Text,
    pub french: Option<Text>,
    /// The long description on one line, list markers included.
    pub long: String,
}

impl Description {
    pub(super) fn new(
        md5: &str,
        name: (String, String),
        english: &str,
        french: Option<&str>,
    ) -> Result<Description> {
        let body = english.split_once('\n').map_or("", |(_, body)| body);
        let lines: Vec<&str> = body.lines().filter(|line| line.trim() != ".").collect();
        Ok(Description {
            md5: md5.to_owned(),
            name,
            english: Text::parse(english)?,
            french: french.map(Text::parse).transpose()?,
            long: normalize(&lines.join(" "))?,
        })
    }

    /// Binary package and the start of the MD5 sum: one package may have several descriptions.
    pub(super) fn id(&self) -> String {
        let sum: String = self.md5.chars().take(6).collect();
        format!("{}/{sum}", self.name.1)
    }

    /// Pairs of English and French units that translate each other: the synopsis, and the units of each
    /// paragraph that has as many in both languages. `None` unless both descriptions have the same number of
    /// paragraphs.
    pub(super) fn aligned(&self) -> Option<Vec<(&str, &str)>> {
        let french = self.french.as_ref()?;
        if french.paragraphs.len() != self.english.paragraphs.len() {
            return None;
        }
        let mut pairs = vec![(self.english.synopsis.as_str(), french.synopsis.as_str())];
        for (english, french) in self.english.paragraphs.iter().zip(&french.paragraphs) {
            if english.len() == french.len() {
                pairs.extend(english.iter().map(String::as_str).zip(french.iter().map(String::as_str)));
            }
        }
        Some(pairs)
    }
}

impl Text {
    /// Parses the value of a `Description` field (Debian Policy 5.6.13): the synopsis, then lines that start
    /// with a space; ` .` separates paragraphs, and so does a line of white space, which translators write
    /// for it.
    pub(super) fn parse(field: &str) -> Result<Text> {
        let field = field.replace(MISSING_SPACE, " ");
        let (synopsis, body) = field.split_once('\n').unwrap_or((&field, ""));
        let mut paragraphs: Vec<Vec<&str>> = vec![Vec::new()];
        for line in body.lines() {
            match (line.trim(), paragraphs.last_mut()) {
                ("." | "", _) => paragraphs.push(Vec::new()),
                (_, Some(paragraph)) => paragraph.push(line.strip_prefix(' ').unwrap_or(line)),
                (_, None) => {}
            }
        }
        paragraphs.retain(|paragraph| !paragraph.is_empty());
        Ok(Text {
            synopsis: normalize(synopsis)?,
            paragraphs: paragraphs.iter().map(|lines| units(lines)).collect::<Result<_>>()?,
        })
    }
}

/// Joins the wrapped lines of a paragraph. A line with a list marker starts a new unit, which loses the
/// marker and the separator that French lists end their items with; a further indented line is verbatim text,
/// and a unit by itself unless it goes on with a list item.
fn units(lines: &[&str]) -> Result<Vec<String>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Prose,
        Verbatim,
        Item { indented: bool },
    }
    let mut units: Vec<(Kind, String)> = Vec::new();
    for line in lines {
        let indented = line.starts_with([' ', '\t']);
        let (kind, content) = match without_marker(line.trim()) {
            Some(item) => (Kind::Item { indented }, item),
            None if indented => (Kind::Verbatim, line.trim()),
            None => (Kind::Prose, line.trim()),
        };
        let goes_on = match (units.last().map(|(last, _)| *last), kind) {
            (Some(Kind::Prose), Kind::Prose) => true,
            (Some(Kind::Item { .. }), Kind::Verbatim) => true,
            // Unindented lists wrap like prose; after an indented one, unindented text is a paragraph again.
            (Some(Kind::Item { indented }), Kind::Prose) => !indented,
            _ => false,
        };
        match units.last_mut() {
            Some((_, unit)) if goes_on => {
                unit.push(' ');
                unit.push_str(content);
            }
            _ => units.push((kind, content.to_owned())),
        }
    }
    let text = |(kind, unit): &(Kind, String)| match kind {
        Kind::Item { .. } => {
            normalize(unit.trim_end_matches(|c: char| matches!(c, ';' | ',') || c.is_whitespace()))
        }
        _ => normalize(unit),
    };
    units.iter().map(text).collect()
}

/// The text after a bullet or a number, if the line starts with one.
fn without_marker(line: &str) -> Option<&str> {
    let (first, rest) = line.split_once(char::is_whitespace)?;
    let is_bullet = matches!(first, "-" | "*" | "+" | "o" | "•" | "·" | "–" | "—" | "−" | "--");
    let is_number = first.strip_suffix(['.', ')']).is_some_and(|n| n.parse::<u8>().is_ok());
    (is_bullet || is_number).then_some(rest)
}
