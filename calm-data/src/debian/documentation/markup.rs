//! Reads pages of HTML, DocBook and Mallard.

use super::align::{Block, Section};
use super::tags::{self, Tag, Token, unescape};
use crate::{Result, tokenizer::normalize};
use std::collections::BTreeMap;

/// Elements that hold a paragraph of text.
const TEXTS: [&str; 21] = [
    "p",
    "para",
    "simpara",
    "title",
    "subtitle",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "li",
    "dd",
    "dt",
    "term",
    "td",
    "th",
    "entry",
    "caption",
    "figcaption",
    "desc",
];
const HEADINGS: [&str; 7] = ["title", "h1", "h2", "h3", "h4", "h5", "h6"];
/// Text elements that hold values, names and symbols rather than prose, unless they contain paragraphs.
const CELLS: [&str; 3] = ["td", "th", "entry"];
/// Text elements that are left out if they consist of links alone.
///
/// Tables of contents and indices repeat headings, and an index may be in alphabetical order.
const ITEMS: [&str; 3] = ["li", "dt", "dd"];
/// Elements that end a paragraph and hold no prose.
const CODE: [&str; 12] = [
    "pre",
    "screen",
    "programlisting",
    "synopsis",
    "cmdsynopsis",
    "funcsynopsis",
    "classsynopsis",
    "literallayout",
    "address",
    "math",
    "equation",
    "informalequation",
];
/// Elements that hold no prose, and occur inside a paragraph or describe the page.
const ASIDE: [&str; 18] = [
    "head",
    "nav",
    "info",
    "bookinfo",
    "articleinfo",
    "refentryinfo",
    "sectioninfo",
    "indexterm",
    "index",
    "footnote",
    "remark",
    "comment",
    "credit",
    "revhistory",
    "textobject",
    "template",
    "shortcut",
    "glossary",
];
/// Elements that refer to other pages, and whose text a reader sees only if the author wrote it there.
const REFERENCES: [&str; 4] = ["xref", "link", "ulink", "olink"];
/// Elements whose children a program shows with a sign between them: keys to press together, and items of
/// menus.
const SEQUENCES: [(&str, &str); 4] =
    [("keyseq", "+"), ("keycombo", "+"), ("guiseq", " > "), ("menuchoice", " > ")];

/// Reads the pages of a file by their names, each as its sections.
///
/// A page that is alone in its file has no name; KDE joins the pages of a manual into one file.
pub(super) fn pages(file: &str) -> Result<BTreeMap<String, Vec<Section>>> {
    let mut pages = BTreeMap::new();
    for (position, page) in file.split("<FILENAME filename=\"").enumerate() {
        let (name, page) =
            if position == 0 { ("", page) } else { page.split_once("\">").unwrap_or(("", page)) };
        pages.insert(name.trim_end_matches("html").to_owned(), sections(page)?);
    }
    Ok(pages)
}

fn sections(page: &str) -> Result<Vec<Section>> {
    let mut reader = Reader { sections: vec![Vec::new()], ..Reader::default() };
    for token in tags::tokens(page) {
        match token {
            Token::Text(text) => reader.text(text),
            Token::Tag(tag) if tag.is_end => reader.end(tag.name)?,
            Token::Tag(tag) => reader.start(&tag)?,
        }
    }
    reader.close()?;
    Ok(reader.sections)
}

#[derive(Default)]
struct Reader {
    sections: Vec<Section>,
    /// The paragraph that is being read.
    open: Option<Open>,
    /// The element whose contents are left out, and how many elements of that name are open.
    aside: Option<(String, usize)>,
    /// Whether the text being read belongs to a link.
    is_link: bool,
    /// The open sequences: their names, their signs, and whether a child has been read.
    sequences: Vec<(&'static str, &'static str, bool)>,
}

struct Open {
    kind: &'static str,
    text: String,
    is_prose: bool,
    /// Whether there is text besides links.
    has_own_text: bool,
}

impl Open {
    fn new(kind: &'static str) -> Open {
        Open { kind, text: String::new(), is_prose: !CELLS.contains(&kind), has_own_text: false }
    }
}

impl Reader {
    fn text(&mut self, text: &str) {
        // Text between the children of a sequence is only white space.
        let is_between = !self.sequences.is_empty() && text.trim().is_empty();
        if let (None, false, Some(open)) = (&self.aside, is_between, &mut self.open) {
            open.is_prose &= !tags::has_unknown_reference(text);
            open.has_own_text |= !self.is_link && text.contains(char::is_alphabetic);
            open.text.push_str(&unescape(text));
        }
    }

    fn start(&mut self, tag: &Tag<'_>) -> Result<()> {
        if let Some((name, depth)) = &mut self.aside {
            *depth += usize::from(name == tag.name && !tag.is_empty());
            return Ok(());
        }
        if tag.name == "div" {
            self.close()?;
            // Publican writes its paragraphs this way.
            if tag.attribute("class") == Some("para") {
                self.open = Some(Open::new("p"));
            }
        } else if let Some(kind) = known(&TEXTS, tag.name) {
            self.close()?;
            if HEADINGS.contains(&kind) {
                self.sections.push(Vec::new());
            }
            if !tag.is_empty() {
                self.open = Some(Open::new(kind));
            }
        } else if let Some(kind) = known(&CODE, tag.name) {
            self.close()?;
            self.push(Block { kind, text: None });
            self.leave_out(tag);
        } else if ASIDE.contains(&tag.name) {
            self.leave_out(tag);
        } else if let Some(open) = &mut self.open {
            match tag.name {
                "br" => open.text.push(' '),
                name if REFERENCES.contains(&name) && tag.is_empty() => open.is_prose = false,
                "a" => self.is_link = true,
                _ => {}
            }
            if let Some((_, sign, has_child)) = self.sequences.last_mut() {
                if *has_child && is_child(tag.name) {
                    open.text.push_str(sign);
                }
                *has_child |= is_child(tag.name);
            }
            let sequence = SEQUENCES.iter().find(|(name, _)| *name == tag.name && !tag.is_empty());
            self.sequences.extend(sequence.map(|(name, sign)| (*name, *sign, false)));
        }
        Ok(())
    }

    fn end(&mut self, name: &str) -> Result<()> {
        if let Some((aside, depth)) = &mut self.aside {
            *depth -= usize::from(aside == name);
            if *depth == 0 {
                self.aside = None;
            }
        } else if name == "a" {
            self.is_link = false;
        } else if name == "div" || TEXTS.contains(&name) {
            self.close()?;
        } else if self.sequences.last().is_some_and(|(sequence, ..)| *sequence == name) {
            self.sequences.pop();
        }
        Ok(())
    }

    fn leave_out(&mut self, tag: &Tag<'_>) {
        if !tag.is_empty() {
            self.aside = Some((tag.name.to_owned(), 1));
        }
    }

    fn close(&mut self) -> Result<()> {
        self.sequences.clear();
        self.is_link = false;
        if let Some(Open { kind, text, is_prose, has_own_text }) = self.open.take() {
            let is_prose = is_prose && (has_own_text || !ITEMS.contains(&kind));
            // `¶` is the sign by which web pages link to a heading.
            let text = normalize(&text.trim_end().trim_end_matches('¶').replace(['→', '▸'], ">"))?;
            self.push(Block { kind, text: (is_prose && !text.is_empty()).then_some(text) });
        }
        Ok(())
    }

    fn push(&mut self, block: Block) {
        if let Some(section) = self.sections.last_mut() {
            section.push(block);
        }
    }
}

fn known(names: &[&'static str], name: &str) -> Option<&'static str> {
    names.iter().find(|known| **known == name).copied()
}

/// Whether an element stands for one key or one item of a menu.
fn is_child(name: &str) -> bool {
    name == "key"
        || name == "keycap"
        || name.starts_with("gui") && name != "guiseq"
        || matches!(name, "mousebutton" | "keycode" | "keysym")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expects these blocks in all sections together.
    ///
    /// The first block of a section follows `#`; the text `-` stands for a block that is not prose.
    #[track_caller]
    fn check(page: &str, expected: &[&str]) {
        let found: Vec<String> = sections(page)
            .unwrap()
            .iter()
            .flat_map(|section| {
                section.iter().enumerate().map(|(position, block)| {
                    let mark = if position == 0 { "#" } else { "" };
                    format!("{mark}{} {}", block.kind, block.text.as_deref().unwrap_or("-"))
                })
            })
            .collect();
        assert_eq!(found, expected, "{page}");
    }

    #[test]
    fn paragraphs_headings_and_items() {
        check("", &[]);
        check(
            "<html><head><title>no</title></head><body>no<h1>A  title<a href=\"#a\">¶</a></h1><p>one <b>two</b><br>three</p>\
             <ul><li>four</li><li><p>five</p></li></ul><table><tr><td>6</td><td><p>seven</p></td></tr></table></body>",
            &["#h1 A title", "p one two three", "li four", "li -", "p five", "td -", "td -", "p seven"],
        );
        // Text after a list within the same paragraph is left out, since it is seldom a sentence.
        check("<para>one <ul><li>two</li></ul> three</para>", &["#para one", "li two"]);
    }

    #[test]
    fn lists_of_links_are_no_prose() {
        check(
            "<li><a href=\"b\">one</a></li><li>See <a href=\"b\">one</a></li><h1><a>one</a></h1>",
            &["#li -", "li See one", "#h1 one"],
        );
    }

    #[test]
    fn pages_of_a_manual_are_apart() {
        let file =
            "<FILENAME filename=\"index.html\"><p>one</p></FILENAME><FILENAME filename=\"b.html\"><p>two</p>";
        let names: Vec<String> = pages(file).unwrap().into_keys().collect();
        assert_eq!(names, ["", "b.", "index."]);
    }

    #[test]
    fn program_code_is_no_prose() {
        check(
            "<p>one</p><pre>x = <b>1</b></pre><screen/><p>two <code>three</code></p>",
            &["#p one", "pre -", "screen -", "p two three"],
        );
        check("<p>one<indexterm><primary>no</primary></indexterm> two</p>", &["#p one two"]);
        check("<info><title>no</title><info>no</info><credit/></info><p>one</p>", &["#p one"]);
    }

    #[test]
    fn texts_with_a_hole_are_no_prose() {
        check("<p>See <link xref=\"a\"/>.</p><p>See <link xref=\"a\">b</link>.</p>", &["#p -", "p See b."]);
        check("<p>&application; &amp; co</p><p>R&amp;D; one</p>", &["#p -", "p R&D; one"]);
    }

    #[test]
    fn keys_and_menus_are_written_with_signs() {
        check(
            "<p>Press <keyseq><key>Ctrl</key> <key>C</key></keyseq> or <guiseq><gui>Edit</gui>\n<gui>Copy</gui></guiseq>.</p>",
            &["#p Press Ctrl+C or Edit > Copy."],
        );
        check(
            "<para><menuchoice><shortcut><keycombo><keycap>Ctrl</keycap><keycap>O</keycap></keycombo></shortcut>\
             <guimenu>File</guimenu> <guimenuitem>Open</guimenuitem></menuchoice> opens</para>",
            &["#para File > Open opens"],
        );
    }
}
