//! The LibreOffice help: English and French paragraphs with the same `id` on the same page translate each
//! other.

use super::align::Pair;
use super::tags::{self, Tag, Token, unescape};
use crate::{Result, tokenizer::normalize};
use std::collections::HashMap;

/// A paragraph or heading: its `id` and its text.
type Paragraph = (String, String);

/// Pairs the paragraphs of a page. Sections that a page shows twice repeat their ids; the first one is used.
pub(super) fn pairs(english: &str, french: &str) -> Result<Vec<Pair>> {
    let mut translations: HashMap<String, String> = HashMap::new();
    for (id, text) in paragraphs(french)? {
        translations.entry(id).or_insert(text);
    }
    let pair = |(key, english): Paragraph| {
        let french = translations.remove(&key)?;
        Some(Pair { key, english, french })
    };
    Ok(paragraphs(english)?.into_iter().filter_map(pair).collect())
}

/// Lists the paragraphs and headings that have an `id` and are not program code, in the order of the page.
fn paragraphs(html: &str) -> Result<Vec<Paragraph>> {
    let mut found = Vec::new();
    let mut open: Option<Open> = None;
    for token in tags::tokens(html) {
        let tag = match token {
            Token::Text(text) => {
                open.iter_mut().for_each(|open| open.write(&unescape(text)));
                continue;
            }
            Token::Tag(tag) => tag,
        };
        match tag.name {
            "p" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                found.extend(open.take().map(Open::close));
                open = if tag.is_end { None } else { Open::new(&tag) };
            }
            "span" => match &mut open {
                Some(open) if tag.is_end => open.end_span(),
                Some(open) => open.start_span(&tag),
                None => {}
            },
            "br" => open.iter_mut().for_each(|open| open.write(" ")),
            _ => {}
        }
    }
    found.extend(open.take().map(Open::close));
    found.into_iter().map(|(id, text)| Ok((id, normalize(&text)?))).collect()
}

/// A paragraph whose end has not been read.
struct Open {
    id: String,
    text: String,
    spans: Vec<Span>,
}

enum Span {
    Plain,
    /// Alternatives for systems and applications, such as `Command` or `Ctrl`.
    ///
    /// The reader's browser shows one of them.
    Switch(Vec<Alternative>),
    Alternative(Alternative),
}

struct Alternative {
    is_default: bool,
    text: String,
}

impl Open {
    fn new(tag: &Tag<'_>) -> Option<Open> {
        let is_code = tag.attribute("class").is_some_and(|classes| classes.contains("code"));
        let id = tag.attribute("id").filter(|_| !is_code)?.to_owned();
        Some(Open { id, text: String::new(), spans: Vec::new() })
    }

    fn write(&mut self, text: &str) {
        for span in self.spans.iter_mut().rev() {
            match span {
                Span::Plain => {}
                // Text between the alternatives is only white space.
                Span::Switch(_) => return,
                Span::Alternative(alternative) => return alternative.text.push_str(text),
            }
        }
        self.text.push_str(text);
    }

    fn start_span(&mut self, tag: &Tag<'_>) {
        let is_switch = tag.attribute("class") == Some("switchinline");
        let span = match self.spans.last() {
            Some(Span::Switch(_)) => {
                let is_default = tag.attribute("id").is_some_and(|id| id.starts_with("default"));
                Span::Alternative(Alternative { is_default, text: String::new() })
            }
            _ if is_switch => Span::Switch(Vec::new()),
            _ => Span::Plain,
        };
        self.spans.push(span);
    }

    /// Closes the innermost span. A switch leaves the text of its default alternative, or of the first one
    /// without a default.
    fn end_span(&mut self) {
        match self.spans.pop() {
            Some(Span::Alternative(alternative)) => {
                if let Some(Span::Switch(alternatives)) = self.spans.last_mut() {
                    alternatives.push(alternative);
                }
            }
            Some(Span::Switch(alternatives)) => {
                let chosen = alternatives.iter().find(|a| a.is_default).or(alternatives.first());
                if let Some(chosen) = chosen {
                    self.write(&chosen.text);
                }
            }
            Some(Span::Plain) | None => {}
        }
    }

    fn close(mut self) -> Paragraph {
        while !self.spans.is_empty() {
            self.end_span();
        }
        (self.id, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(html: &str, expected: &[(&str, &str)]) {
        let found = paragraphs(html).unwrap();
        let found: Vec<(&str, &str)> = found.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
        assert_eq!(found, expected, "{html}");
    }

    #[test]
    fn paragraphs_are_paired_by_id() {
        let english = "<h1 id=\"title\">The clipboard</h1><p id=\"only\">English alone</p><p id=\"one\">Paste it.</p>\
                       <p id=\"one\">Paste it.</p>";
        let french =
            "<p id=\"one\">Collez-le.</p><h1 id=\"title\">Le presse-papiers</h1><p id=\"one\">Une autre.</p>";
        let found = pairs(english, french).unwrap();
        let expected = [("title", "The clipboard", "Le presse-papiers"), ("one", "Paste it.", "Collez-le.")];
        let expected = expected.map(|(key, english, french)| Pair {
            key: key.to_owned(),
            english: english.to_owned(),
            french: french.to_owned(),
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn paragraphs_and_headings_with_an_id() {
        check("", &[]);
        check("text <b>outside</b>", &[]);
        check(r#"<p class="related">without</p>"#, &[]);
        check(r#"<h1 id="a"><a name="x"></a>A  title </h1>"#, &[("a", "A title")]);
        check(
            "<p dir=\"auto\"\n id=\"a\">one<br>two <em>th</em>ree</p> no <pre id=\"c\">no</pre>",
            &[("a", "one two three")],
        );
        // A paragraph may end without an end tag; the last one ends with the page.
        check(
            r#"<p id="a">one<p id="b">two<h2>no</h2>no<p id="c">three"#,
            &[("a", "one"), ("b", "two"), ("c", "three")],
        );
        check(r#"<p id="a" class="codeintable">x = 1</p><p data-id="b">no</p>"#, &[]);
    }

    #[test]
    fn scripts_comments_and_quoted_brackets_are_no_text() {
        check(
            r#"<p id="a">one<!-- <p id="b"> > --> two<script>if (a<p) "</p>"</script>, three</p>"#,
            &[("a", "one two, three")],
        );
        check(r#"<p id="a"><img alt="a > b" src='<'>one</p>"#, &[("a", "one")]);
        check(r#"<p id="a">one<img "#, &[("a", "one")]);
    }

    #[test]
    fn references_are_characters() {
        check(
            r#"<p id="a">&lt;a&gt; &amp;amp; &#233;&#xE9; &nbsp;x &unknown; & l&lsaquo;&#x110000;</p>"#,
            &[("a", "<a> &amp; éé x &unknown; & l&lsaquo;&#x110000;")],
        );
    }

    #[test]
    fn of_alternatives_one_stays() {
        let switch = |alternatives: &str| {
            format!(r#"<p id="a">Press <span id="s" class="switchinline"> {alternatives} </span>+Z.</p>"#)
        };
        let mac = r#"<span hidden="true" id="MACx" class="MAC"><span class="keycode">Command</span> </span>"#;
        let default = r#"<span hidden="true" id="defaultx"><span class="keycode">Ctrl</span></span>"#;
        check(&switch(&format!("{mac} {default}")), &[("a", "Press Ctrl+Z.")]);
        check(&switch(mac), &[("a", "Press Command +Z.")]);
        check(&switch(""), &[("a", "Press +Z.")]);
        check(
            r#"<p id="a">Press <span class="switchinline"><span id="defaultx">Ctrl"#,
            &[("a", "Press Ctrl")],
        );
        check("<p id=\"a\">one</span> two</p>", &[("a", "one two")]);
    }
}
