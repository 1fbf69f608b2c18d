//! The paragraphs of a page of the LibreOffice help.
//!
//! The pages are generated, so a scanner of tags is enough: no elements are implied but the end of a paragraph.

use crate::{Result, tokenizer::normalize};

/// A paragraph or heading: its `id` and its text.
pub(super) type Paragraph = (String, String);

/// The paragraphs and headings that have an `id` and are not program code, in the order of the page.
pub(super) fn paragraphs(html: &str) -> Result<Vec<Paragraph>> {
    let mut found = Vec::new();
    let mut open: Option<Open> = None;
    let mut rest = html;
    while !rest.is_empty() {
        let (text, tagged) = rest.split_at(rest.find('<').unwrap_or(rest.len()));
        if let Some(open) = &mut open {
            open.write(&unescape(text));
        }
        let (tag, after) = tagged.split_at(tag_length(tagged));
        rest = after;
        let (name, is_end) = tag_name(tag);
        match name {
            "p" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                found.extend(open.take().map(Open::close));
                open = if is_end { None } else { Open::new(tag) };
            }
            "script" | "style" if !is_end => {
                rest = rest.find(&format!("</{name}")).map_or("", |end| &rest[end..])
            }
            "span" => match &mut open {
                Some(open) if is_end => open.end_span(),
                Some(open) => open.start_span(tag),
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
    /// Alternatives for systems and applications, of which the reader's browser shows one: `Command` or `Ctrl`.
    Switch(Vec<Alternative>),
    Alternative(Alternative),
}

struct Alternative {
    is_default: bool,
    text: String,
}

impl Open {
    fn new(tag: &str) -> Option<Open> {
        let is_code = attribute(tag, "class").is_some_and(|classes| classes.contains("code"));
        let id = attribute(tag, "id").filter(|_| !is_code)?.to_owned();
        Some(Open { id, text: String::new(), spans: Vec::new() })
    }

    fn write(&mut self, text: &str) {
        for span in self.spans.iter_mut().rev() {
            match span {
                Span::Plain => {}
                // Between the alternatives there is only white space.
                Span::Switch(_) => return,
                Span::Alternative(alternative) => return alternative.text.push_str(text),
            }
        }
        self.text.push_str(text);
    }

    fn start_span(&mut self, tag: &str) {
        let is_switch = attribute(tag, "class") == Some("switchinline");
        let span = match self.spans.last() {
            Some(Span::Switch(_)) => {
                let is_default = attribute(tag, "id").is_some_and(|id| id.starts_with("default"));
                Span::Alternative(Alternative { is_default, text: String::new() })
            }
            _ if is_switch => Span::Switch(Vec::new()),
            _ => Span::Plain,
        };
        self.spans.push(span);
    }

    /// Of the alternatives the default stays, or the first if there is none.
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

/// Bytes of the tag or comment at the start of `text`, or all of them if it does not end.
fn tag_length(text: &str) -> usize {
    if text.starts_with("<!--") {
        return text.find("-->").map_or(text.len(), |end| end + 3);
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

/// The tag's name and whether it is an end tag.
fn tag_name(tag: &str) -> (&str, bool) {
    let inner = tag.strip_prefix('<').unwrap_or(tag);
    let (inner, is_end) = inner.strip_prefix('/').map_or((inner, false), |inner| (inner, true));
    (inner.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or(""), is_end)
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let start = format!("{name}=\"");
    let (position, _) =
        tag.match_indices(&start).find(|(position, _)| tag[..*position].ends_with(char::is_whitespace))?;
    tag[position + start.len()..].split('"').next()
}

/// Character references replaced; unknown ones stay.
fn unescape(text: &str) -> String {
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

fn character(reference: &str) -> Option<char> {
    match reference {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some('\u{a0}'),
        _ => {
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

    #[track_caller]
    fn check(html: &str, expected: &[(&str, &str)]) {
        let found = paragraphs(html).unwrap();
        let found: Vec<(&str, &str)> = found.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
        assert_eq!(found, expected, "{html}");
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
        // The end of a paragraph may be implied, the end of the page is that of the last one.
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
            r#"<p id="a">&lt;a&gt; &amp;amp; &#233;&#xE9; &nbsp;x &unknown; & l&rsquo;&#x110000;</p>"#,
            &[("a", "<a> &amp; éé x &unknown; & l&rsquo;&#x110000;")],
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
