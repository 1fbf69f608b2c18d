//! Manual pages: the macros of man(7) and the escape sequences of groff(7).
//!
//! A page that uses anything else, for example macros of its own or those of mdoc(7), is left out. So is a
//! paragraph with an escape sequence that stands for no text.

use super::align::{Block, Section};
use crate::{Result, tokenizer::normalize};

/// The headings under which French pages name their translators. They have no English counterpart.
const TRANSLATORS: [&str; 2] = ["TRADUCTION", "TRADUCTEURS"];

/// Reads the sections of a page, or returns `None` if the page uses macros that are not known here.
pub(super) fn sections(page: &str) -> Result<Option<Vec<Section>>> {
    let mut reader = Reader { sections: vec![Vec::new()], ..Reader::default() };
    let page = page.replace("\\{\\\n", "\\{\n").replace("\\\n", "");
    for line in page.lines() {
        let is_known = match line.strip_prefix(['.', '\'']) {
            Some(request) => reader.request(request.trim_start())?,
            None => {
                if reader.braces == 0 {
                    reader.line(line);
                } else {
                    reader.braces -= line.matches("\\}").count().min(reader.braces);
                }
                true
            }
        };
        if !is_known {
            return Ok(None);
        }
    }
    reader.close()?;
    let heading = |section: &Section| section.first().and_then(|block| block.text.clone());
    reader.sections.retain(|section| !heading(section).is_some_and(|text| TRANSLATORS.contains(&&*text)));
    Ok(Some(reader.sections))
}

#[derive(Default)]
struct Reader {
    sections: Vec<Section>,
    /// The paragraph that is being read.
    text: String,
    kind: Option<&'static str>,
    is_prose: bool,
    /// Whether the next line is the tag that stands in front of a paragraph.
    is_tag: bool,
    /// Whether the section is the one that shows how a command or function is called.
    is_synopsis: bool,
    /// The request that ends the program code or table that is being read.
    code_until: Option<&'static str>,
    /// Open braces of a conditional request, whose contents are left out.
    braces: usize,
    /// Whether the next word is written without a space before it.
    is_joined: bool,
}

impl Reader {
    /// Reads a line of macros; `false` if it is not known.
    fn request(&mut self, request: &str) -> Result<bool> {
        let (name, rest) = request.split_at(request.find([' ', '\t']).unwrap_or(request.len()));
        if request.is_empty() || request.starts_with("\\\"") {
            return Ok(true);
        }
        // Conditional requests hold alternatives for devices, most of them bullets, and definitions before
        // the text.
        let braces = request.matches("\\{").count();
        if self.braces > 0 || matches!(name, "if" | "ie" | "el") {
            self.braces = (self.braces + braces).saturating_sub(request.matches("\\}").count());
            return Ok(true);
        }
        let is_preamble = self.sections.len() == 1;
        if let Some(end) = self.code_until {
            if name == end {
                self.code_until = None;
                if end != "." {
                    self.paragraph("rest")?;
                }
            }
            return Ok(true);
        }
        let arguments = arguments(rest.trim());
        match name {
            "SH" | "SS" if !arguments.is_empty() => {
                self.close()?;
                self.sections.push(Vec::new());
                let heading = arguments.join(" ");
                self.is_synopsis = heading == "SYNOPSIS";
                (self.kind, self.is_prose) = (Some("heading"), true);
                self.write(&heading);
                self.paragraph("PP")?;
            }
            "PP" | "P" | "LP" | "HP" => self.paragraph("PP")?,
            "TP" | "TQ" => {
                self.paragraph("TP")?;
                self.is_tag = true;
            }
            "IP" => self.paragraph("IP")?,
            "RS" | "RE" | "sp" | "Sp" => self.paragraph("rest")?,
            "nf" | "EX" | "TS" | "Vb" => {
                self.close()?;
                self.push(Block { kind: "code", text: None });
                self.code_until = Some(match name {
                    "nf" => "fi",
                    "EX" => "EE",
                    "Vb" => "Ve",
                    _ => "TE",
                });
            }
            "B" | "I" | "SM" | "SB" | "R" => self.words(&arguments.join(" ")),
            "BR" | "RB" | "IR" | "RI" | "BI" | "IB" => self.words(&arguments.concat()),
            "UE" | "ME" => {
                self.is_joined = true;
                self.words(&arguments.concat());
            }
            // The text between these two requests belongs to the link; the address is shown if there is no
            // text.
            "UR" | "MT" => self.is_prose = false,
            "URL" | "MTO" => {
                let [address, text, after] =
                    [0, 1, 2].map(|index| arguments.get(index).map_or("", String::as_str));
                self.words(if text.is_empty() { address } else { text });
                self.is_joined = true;
                self.words(after);
            }
            "de" | "am" => self.code_until = Some("."),
            "br" => {}
            "TH" | "ad" | "na" | "hy" | "nh" | "ne" | "in" | "ti" | "fi" | "EE" | "PD" | "ft" | "ta"
            | "fam" | "ll" | "pc" | "po" | "lf" | "AT" | "UC" | "DT" | "ns" | "rs" | "IX" | "nr" | "it"
            | "ps" | "ds" | "bp" => {}
            _ if is_preamble => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn line(&mut self, line: &str) {
        if self.code_until.is_some() {
            return;
        }
        // A line that starts with a space is not joined to the one before.
        self.is_prose &= !line.starts_with([' ', '\t']);
        self.words(line);
    }

    /// Reads a line of text, or the tag of the paragraph, which is left out.
    fn words(&mut self, text: &str) {
        if self.is_tag {
            self.is_tag = text.ends_with("\\c");
            return;
        }
        self.write(text);
    }

    fn write(&mut self, text: &str) {
        let text = text.trim();
        if !self.text.is_empty() && !self.is_joined {
            self.text.push(' ');
        }
        self.is_joined = text.ends_with("\\c");
        match plain(text) {
            Some(plain) => self.text.push_str(&plain),
            None => self.is_prose = false,
        }
    }

    /// Starts a paragraph.
    fn paragraph(&mut self, kind: &'static str) -> Result<()> {
        self.close()?;
        (self.kind, self.is_prose) = (Some(kind), true);
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let text = normalize(&std::mem::take(&mut self.text))?;
        let is_prose = self.is_prose && !self.is_synopsis;
        if let Some(kind) = self.kind.take()
            && (kind != "rest" && kind != "PP" || !text.is_empty() || !self.is_prose)
        {
            self.push(Block { kind, text: (is_prose && !text.is_empty()).then_some(text) });
        }
        (self.is_tag, self.is_joined) = (false, false);
        Ok(())
    }

    fn push(&mut self, block: Block) {
        if let Some(section) = self.sections.last_mut() {
            section.push(block);
        }
    }
}

/// Splits the arguments of a macro: words, or texts in quotation marks, in which two marks stand for one.
fn arguments(mut text: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    while !text.is_empty() {
        let mut argument = String::new();
        if let Some(mut quoted) = text.strip_prefix('"') {
            loop {
                let (inside, after) = quoted.split_once('"').unwrap_or((quoted, ""));
                argument.push_str(inside);
                match after.strip_prefix('"') {
                    Some(after) => {
                        argument.push('"');
                        quoted = after;
                    }
                    None => {
                        text = after;
                        break;
                    }
                }
            }
        } else {
            // An escaped space does not end a word.
            let is_end = |(position, c): &(usize, char)| *c == ' ' && !text[..*position].ends_with('\\');
            let end = text.char_indices().find(is_end).map_or(text.len(), |(position, _)| position);
            argument.push_str(&text[..end]);
            text = &text[end..];
        }
        arguments.push(argument);
        text = text.trim_start();
    }
    arguments
}

/// Removes the escape sequences from a text, or returns `None` if one of them is not known.
fn plain(text: &str) -> Option<String> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('\\') {
        result.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        let escape = rest.chars().next()?;
        rest = &rest[escape.len_utf8()..];
        match escape {
            '-' => result.push('-'),
            'e' | '\\' => result.push('\\'),
            '.' => result.push('.'),
            '\'' => result.push('\''),
            '`' => result.push('`'),
            ' ' | '~' | '0' | 't' => result.push(' '),
            '&' | '|' | '^' | '/' | ',' | '%' | ':' | 'c' | ')' => {}
            '"' => rest = "",
            'f' | 'F' | 'm' => (_, rest) = name(rest)?,
            's' => {
                let digits = rest.trim_start_matches(['+', '-']);
                rest = digits.trim_start_matches(|c: char| c.is_ascii_digit());
            }
            '(' => {
                let (character, after) = (rest.get(..2)?, rest.get(2..)?);
                result.push_str(&special(character)?);
                rest = after;
            }
            '[' => {
                let (character, after) = rest.split_once(']')?;
                match character.strip_prefix('u') {
                    Some(code) => result.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?),
                    None => result.push_str(&special(character)?),
                }
                rest = after;
            }
            '*' => {
                let (string, after) = name(rest)?;
                result.push_str(&special(string)?);
                rest = after;
            }
            _ => return None,
        }
    }
    Some(result + rest)
}

/// Splits off the name at the start of `text`, and returns it with the text that follows.
///
/// A name is one character, `(` and two characters, or any number of characters in brackets.
fn name(text: &str) -> Option<(&str, &str)> {
    if let Some(bracketed) = text.strip_prefix('[') {
        return bracketed.split_once(']');
    }
    let (skipped, length) = if text.starts_with('(') { (1, 2) } else { (0, 1) };
    Some((text.get(skipped..skipped + length)?, text.get(skipped + length..)?))
}

/// Looks up a special character or predefined string by its name.
fn special(name: &str) -> Option<String> {
    let text = match name {
        "aq" => "'",
        "dq" => "\"",
        "oq" => "‘",
        "cq" => "’",
        "lq" | "Lq" => "“",
        "rq" | "Rq" => "”",
        "Fo" => "«",
        "Fc" => "»",
        "ga" => "`",
        "ha" => "^",
        "ti" => "~",
        "rs" => "\\",
        "sl" => "/",
        "ba" | "or" => "|",
        "at" => "@",
        "sh" => "#",
        "Do" => "$",
        "lB" => "[",
        "rB" => "]",
        "em" => "—",
        "en" => "–",
        "hy" => "-",
        "mi" => "−",
        "mu" => "×",
        "+-" => "±",
        "co" => "©",
        "rg" | "R" => "®",
        "tm" | "Tm" => "™",
        "de" => "°",
        "12" => "½",
        "14" => "¼",
        "oe" => "œ",
        "OE" => "Œ",
        "ae" => "æ",
        "AE" => "Æ",
        "ss" => "ß",
        _ => return accented(name),
    };
    Some(text.to_owned())
}

/// Decodes a letter with an accent, such as `'e`; normalization joins the two.
fn accented(name: &str) -> Option<String> {
    let mut characters = name.chars();
    let accent = match characters.next()? {
        '\'' => '\u{301}',
        '`' => '\u{300}',
        '^' => '\u{302}',
        '~' => '\u{303}',
        ':' => '\u{308}',
        ',' => '\u{327}',
        _ => return None,
    };
    let letter =
        characters.next().filter(|letter| letter.is_ascii_alphabetic() && characters.next().is_none())?;
    Some([letter, accent].iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expects these blocks in all sections together; `-` stands for a block that is not prose.
    #[track_caller]
    fn check(page: &str, expected: Option<&[&str]>) {
        let found: Option<Vec<String>> = sections(page).unwrap().map(|sections| {
            let text = |block: &Block| format!("{} {}", block.kind, block.text.as_deref().unwrap_or("-"));
            sections.iter().flatten().map(text).collect()
        });
        let found: Option<Vec<&str>> =
            found.as_ref().map(|blocks| blocks.iter().map(String::as_str).collect());
        assert_eq!(found.as_deref(), expected, "{page}");
    }

    #[test]
    fn english_and_french_write_the_same_fonts_differently() {
        let english = ".\\\" comment\n.TH open 2\n.SH DESCRIPTION\nThe\n.BR open ()\nsystem call\n.RI ( \"libc\" \", \" \\-lc )\nopens\n\
                       .B \"a file\"\nof it.\n.PP\nMore.\n";
        check(
            english,
            Some(&[
                "heading DESCRIPTION",
                "PP The open() system call (libc, -lc) opens a file of it.",
                "PP More.",
            ]),
        );
        check(
            ".SH DESCRIPTION\nL'appel système \\fBopen\\fP()\\ : \\[u2014] \\f[I]ouvre\\f[R]\nun fichier.\n",
            Some(&["heading DESCRIPTION", "PP L'appel système open() : — ouvre un fichier."]),
        );
    }

    #[test]
    fn tags_code_and_tables_are_no_prose() {
        check(
            ".SS \"Some options\"\nText.\n.TP\n.BR \\-a \", \" \\-b\nDoes\nthis.\n.IP \\(bu 2\nThat.\n.nf\nx = 1\n.B y\n.fi\nRest.\n\
             .EX\n\\(zz\n.EE\n.TS\na\n.TE\n",
            Some(&[
                "heading Some options",
                "PP Text.",
                "TP Does this.",
                "IP That.",
                "code -",
                "rest Rest.",
                "code -",
                "code -",
            ]),
        );
        check(".SH SYNOPSIS\n.B ls\n[option]\n", Some(&["heading -", "PP -"]));
        check(".SH A\n.TP\n.B b\n\\(zz\n.TP\n.B c\nOne\n two\n", Some(&["heading A", "TP -", "TP -"]));
    }

    #[test]
    fn conditions_and_translators_are_left_out() {
        check(
            ".ie \\n(.g .ds Aq '\n.de Sp\n.if t .sp\n..\n.SH A\n.RS 4\n.ie n \\{\\\n\\h'-04'\\(bu\\c\n.\\}\n.el \\{\\\n\
             .sp -1\n.\\}\nOne\n.RE\n.SH TRADUCTION\nNo\n",
            Some(&["heading A", "rest One"]),
        );
    }

    #[test]
    fn accents_may_be_escaped() {
        check(".SH \\('Etat\nFran\\(,cais, c\\(oeur\n", Some(&["heading État", "PP Français, cœur"]));
    }

    #[test]
    fn unknown_macros_leave_the_page_out() {
        for page in [".Dd May 1\n.SH NAME\n.Xr a 1", ".SH A\n.so man2/open.2", ".SH A\n.SH\nB\n"] {
            check(page, None);
        }
    }

    #[test]
    fn arguments_may_be_quoted() {
        assert_eq!(arguments(r#"a "b c" "d ""e""" f\ g"#), ["a", "b c", "d \"e\"", "f\\ g"]);
        assert_eq!(arguments(""), [""; 0]);
    }
}
