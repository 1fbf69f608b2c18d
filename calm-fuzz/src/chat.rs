//! Templates of conversations.

use std::time::UNIX_EPOCH;

use calm_checkpoint::{ChatOptions, ChatTemplate, Message, Tokenizer};

use crate::scratch;

/// The file `chat_template.jinja`, and what a user says behind a zero byte.
pub(crate) fn read(input: &[u8]) -> anyhow::Result<()> {
    let mut parts = input.splitn(2, |&byte| byte == 0);
    scratch::file_if_any("chat/chat_template.jinja", parts.next());
    let said = String::from_utf8_lossy(parts.next().unwrap_or_default());
    match ChatTemplate::of_checkpoint(&scratch::folder().join("chat"))? {
        Some(template) => render(&template, None, &said),
        None => Ok(()),
    }
}

/// Renders a conversation.
pub(crate) fn render(
    template: &ChatTemplate,
    tokenizer: Option<&Tokenizer>,
    said: &str,
) -> anyhow::Result<()> {
    let message = |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
    let messages = [message("system", "Be brief."), message("user", said), message("assistant", " Yes. ")];
    let options = ChatOptions { add_generation_prompt: true, now: UNIX_EPOCH };
    if let Some(tokenizer) = tokenizer {
        tokenizer.encode_chat(template, &messages, options)?;
    }
    template.render(&messages, options)?;
    Ok(())
}
