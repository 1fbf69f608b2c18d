//! Scans an HTML or XML page for its tags and texts.
//!
//! The pages are generated or well formed, so a scanner is enough: no elements are implied.

/// A piece of a page; the pieces come in the order of the page.
pub(super) enum Token<'a> {
    /// The text between two tags, with its character references unreplaced.
    Text(&'a str),
    Tag(Tag<'a>),
}

/// A start or end tag; comments and declarations are tags without a name.
pub(super) struct Tag<'a> {
    text: &'a str,
    pub name: &'a str,
    pub is_end: bool,
}

impl<'a> Tag<'a> {
    /// Whether the tag is a complete element, such as `<br/>`.
    pub(super) fn is_empty(&self) -> bool {
        self.text.ends_with("/>")
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&'a str> {
        let start = format!("{name}=\"");
        let (position, _) = self
            .text
            .match_indices(&start)
            .find(|(position, _)| self.text[..*position].ends_with(char::is_whitespace))?;
        self.text[position + start.len()..].split('"').next()
    }
}

/// Splits a page into tokens; the contents of scripts and style sheets are left out.
pub(super) fn tokens(page: &str) -> impl Iterator<Item = Token<'_>> {
    let mut rest = page;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (text, tagged) = rest.split_at(rest.find('<').unwrap_or(rest.len()));
        if !text.is_empty() {
            rest = tagged;
            return Some(Token::Text(text));
        }
        let (text, after) = tagged.split_at(tag_length(tagged));
        let (name, is_end) = tag_name(text);
        rest = after;
        if matches!(name, "script" | "style") && !is_end && !text.ends_with("/>") {
            rest = rest.find(&format!("</{name}")).map_or("", |end| &rest[end..]);
        }
        Some(Token::Tag(Tag { text, name, is_end }))
    })
}

/// Length in bytes of the tag or comment at the start of `text`; all of `text` if the tag does not end.
fn tag_length(text: &str) -> usize {
    for (start, end) in [("<!--", "-->"), ("<![CDATA[", "]]>")] {
        if text.starts_with(start) {
            return text.find(end).map_or(text.len(), |position| position + end.len());
        }
    }
    let mut quote = None;
    for (position, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return position + 1,
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            _ => {}
        }
    }
    text.len()
}

/// Returns the tag's name, and whether it is an end tag.
fn tag_name(tag: &str) -> (&str, bool) {
    let inner = tag.strip_prefix('<').unwrap_or(tag);
    let (inner, is_end) = inner.strip_prefix('/').map_or((inner, false), |inner| (inner, true));
    (inner.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or(""), is_end)
}

/// Replaces character references; unknown ones stay.
pub(super) fn unescape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        result.push_str(&rest[..start]);
        rest = &rest[start..];
        let known = rest.find(';').and_then(|end| Some((end + 1, character(&rest[1..end])?)));
        let (length, character) = known.unwrap_or((1, '&'));
        result.push(character);
        rest = &rest[length..];
    }
    result + rest
}

/// Whether the text refers to an entity that [`unescape`] does not know.
pub(super) fn has_unknown_reference(text: &str) -> bool {
    text.match_indices('&').any(|(start, _)| {
        let reference = text[start + 1..].split(';').next().unwrap_or("");
        let is_name = !reference.is_empty()
            && start + 1 + reference.len() < text.len()
            && reference.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '#'));
        is_name && character(reference).is_none()
    })
}

/// HTML's entities that occur in the pages, in addition to those of XML.
#[rustfmt::skip]
const HTML: [(&str, char); 37] = [
    ("agrave", 'à'), ("acirc", 'â'), ("auml", 'ä'), ("aelig", 'æ'), ("ccedil", 'ç'), ("egrave", 'è'),
    ("eacute", 'é'), ("ecirc", 'ê'), ("euml", 'ë'), ("icirc", 'î'), ("iuml", 'ï'), ("ntilde", 'ñ'),
    ("ocirc", 'ô'), ("ouml", 'ö'), ("oelig", 'œ'), ("ugrave", 'ù'), ("ucirc", 'û'), ("uuml", 'ü'),
    ("Agrave", 'À'), ("Ccedil", 'Ç'), ("Egrave", 'È'), ("Eacute", 'É'), ("Ecirc", 'Ê'), ("copy", '©'),
    ("laquo", '«'), ("raquo", '»'), ("lsquo", '‘'), ("rsquo", '’'), ("ldquo", '“'), ("rdquo", '”'),
    ("ndash", '–'), ("mdash", '—'), ("hellip", '…'), ("para", '¶'), ("times", '×'), ("deg", '°'),
    ("euro", '€'),
];

fn character(reference: &str) -> Option<char> {
    match reference {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some('\u{a0}'),
        _ => {
            if let Some((_, character)) = HTML.iter().find(|(name, _)| *name == reference) {
                return Some(*character);
            }
            let number = reference.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_entities_are_found() {
        for (text, expected) in [
            ("a & b; c", false),
            ("&amp; &#233; &lt;", false),
            ("AT&T", false),
            ("the &application; menu", true),
            ("&amp; &kde-app;", true),
            ("&rsquo;", false),
        ] {
            assert_eq!(has_unknown_reference(text), expected, "{text}");
        }
    }
}
