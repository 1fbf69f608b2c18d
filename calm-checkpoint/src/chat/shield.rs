//! Names of tokens that control inside of messages, hidden while a template is rendered.
//!
//! Once a text is rendered, nothing tells what a template wrote from what a message brought. So names in
//! messages are broken by a character that is nowhere else, and it is taken out again of the text between the
//! control tokens that are left.

use super::Message;
use crate::tokenizer::ControlToken;

/// A character that is in no message and no template.
pub(super) struct Shield(char);

impl Shield {
    /// Chooses a character: a noncharacter, which texts have no use for.
    pub(super) fn new(template: &str, messages: &[Message]) -> Option<Self> {
        let is_in = |c: char, text: &str| text.contains(c);
        let is_free = |c: &char| {
            !is_in(*c, template) && !messages.iter().any(|m| is_in(*c, &m.role) || is_in(*c, &m.content))
        };
        ('\u{fdd0}'..='\u{fdef}').find(is_free).map(Shield)
    }

    /// Breaks every name in a text behind its first character, whatever its case: a template may change that.
    pub(super) fn put(&self, text: &str, names: &[ControlToken]) -> String {
        let is_name = |rest: &str, name: &str| {
            rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        let mut shielded = String::with_capacity(text.len());
        for (at, c) in text.char_indices() {
            shielded.push(c);
            if names.iter().any(|token| is_name(&text[at..], &token.name)) {
                shielded.push(self.0);
            }
        }
        shielded
    }

    /// Gives a text back as it was.
    pub(super) fn taken_from(&self, text: &str) -> String {
        text.replace(self.0, "")
    }
}
