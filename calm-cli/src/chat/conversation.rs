//! What was said so far, as much of it as a model can read.

use calm_checkpoint::Message;
use calm_core::Token;

/// A conversation that begins with what the model is told, if anything.
pub(super) struct Conversation {
    messages: Vec<Message>,
    /// 1 with a system message, which stays, else 0.
    kept: usize,
}

/// A conversation that was cut in front.
pub(super) struct Fitted {
    /// The tokens of the conversation; `None` where not even the last message fits.
    pub(super) tokens: Option<Vec<Token>>,
    /// How many messages are left out for good.
    pub(super) left_out: usize,
}

impl Conversation {
    pub(super) fn new(system: Option<String>) -> Self {
        let messages: Vec<Message> = system.map(|text| message("system", text)).into_iter().collect();
        Self { kept: messages.len(), messages }
    }

    /// The messages of a conversation that somebody has opened.
    pub(super) fn opened(&self) -> Vec<Message> {
        [&self.messages[..self.kept], &[message("user", "Hello".to_owned())]].concat()
    }

    pub(super) fn push(&mut self, role: &str, content: String) {
        self.messages.push(message(role, content));
    }

    /// Takes the last message back.
    pub(super) fn pop(&mut self) {
        self.messages.pop();
    }

    /// Leaves out the oldest turns, a message with its answer each, until there are `longest` tokens at most.
    /// The last message stays.
    pub(super) fn fit(
        &mut self,
        longest: usize,
        tokens: impl Fn(&[Message]) -> anyhow::Result<Vec<Token>>,
    ) -> anyhow::Result<Fitted> {
        let mut left_out = 0;
        loop {
            let found = tokens(&self.messages)?;
            if found.len() <= longest {
                return Ok(Fitted { tokens: Some(found), left_out });
            }
            if self.messages.len() < self.kept + 3 {
                return Ok(Fitted { tokens: None, left_out });
            }
            self.messages.drain(self.kept..self.kept + 2);
            left_out += 2;
        }
    }
}

fn message(role: &str, content: String) -> Message {
    Message { role: role.to_owned(), content }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token for each word.
    fn words(messages: &[Message]) -> anyhow::Result<Vec<Token>> {
        Ok(messages.iter().flat_map(|message| message.content.split(' ')).map(|_| 0).collect())
    }

    #[test]
    fn the_oldest_turns_are_left_out_and_the_system_message_stays() {
        let mut conversation = Conversation::new(Some("be short".to_owned()));
        for (role, text) in [("user", "a b c"), ("assistant", "d"), ("user", "e"), ("assistant", "f g")] {
            conversation.push(role, text.to_owned());
        }
        conversation.push("user", "h i".to_owned());
        let fitted = conversation.fit(11, words).unwrap();
        assert_eq!((fitted.tokens.map(|tokens| tokens.len()), fitted.left_out), (Some(11), 0));
        let fitted = conversation.fit(10, words).unwrap();
        assert_eq!((fitted.tokens.map(|tokens| tokens.len()), fitted.left_out), (Some(7), 2));
        let texts: Vec<&str> = conversation.messages.iter().map(|message| &*message.content).collect();
        assert_eq!(texts, ["be short", "e", "f g", "h i"]);
        let fitted = conversation.fit(3, words).unwrap();
        assert!(fitted.tokens.is_none());
        conversation.pop();
        assert_eq!(conversation.messages, [message("system", "be short".to_owned())]);
    }
}
