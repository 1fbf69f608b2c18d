//! Conversations as the one text, or the tokens, that a model trained for them goes on from.

mod date;
mod filters;
mod load;
mod shield;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use calm_core::Token;
use calm_files::catch_panic;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Value};
use serde::{Deserialize, Serialize};

use self::shield::Shield;
use crate::{Error, Tokenizer};

/// What somebody says in a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it: `system`, `user`, `assistant`, or what else a template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// How a conversation is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatOptions {
    /// Whether the beginning of an answer is added, so that the model goes on with one.
    pub add_generation_prompt: bool,
    /// The time, in UTC, for templates that tell the model today's date. Outputs of such a model differ from
    /// day to day.
    pub now: SystemTime,
}

/// The template of a model, a Jinja template as transformers uses it, that makes a text of a conversation.
///
/// A template comes with a model, and may be anyone's. It sees the messages and the names of some tokens, and
/// nothing else; the work it may do and the memory it may fill are limited.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    path: PathBuf,
    /// The names of special tokens, by those of the variables of the template.
    special: BTreeMap<&'static str, String>,
}

/// Name of the one template of an environment.
const NAME: &str = "chat_template";

/// What a rendering may use: a unit is an instruction or 64 bytes.
const LEAST_FUEL: usize = 1_000_000;

/// Longest template in bytes, several times longer than those of published models.
const LONGEST_SOURCE: usize = 64 << 10;

/// How often a template may join texts. What is joined with what was joined is joined again for each of them
/// while a template is compiled, so that 20,000 in a row take ten seconds.
const MOST_JOINS: usize = 4096;

/// Stack in bytes for a template without anything deep in it.
const LEAST_STACK: usize = 2 << 20;

/// Stack in bytes that the crate minijinja needs at most for an operation on the result of another, which
/// takes a byte of the template, or for a list in a list, which takes a unit of work.
const STACK_OF_NESTING: usize = 640;

impl ChatTemplate {
    /// Compiles a template that was found at `path`.
    fn new(path: PathBuf, source: String, special: BTreeMap<&'static str, String>) -> Result<Self, Error> {
        let joins = source.matches(['~', '+']).count();
        for (what, found, most) in
            [("bytes", source.len(), LONGEST_SOURCE), ("times `~` or `+`", joins, MOST_JOINS)]
        {
            if found > most {
                let reason = format!("it has {found} {what}, but may have {most}");
                return Err(Error::ChatTemplate { path, reason });
            }
        }
        let mut template = ChatTemplate { environment: environment(), source, path, special };
        let (environment, source) = (&mut template.environment, template.source.clone());
        let stack = source.len() * STACK_OF_NESTING;
        deeply(stack, || environment.add_template_owned(NAME, source))
            .map_err(|error| template.failed(&error))?;
        Ok(template)
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// Fails if the template refuses the conversation, for example since roles do not alternate; if it uses
    /// what there is not, or more work or memory than it may.
    pub fn render(&self, messages: &[Message], options: ChatOptions) -> Result<String, Error> {
        let bytes: usize = messages.iter().map(|message| message.content.len()).sum();
        let mut environment = self.environment.clone();
        let fuel = LEAST_FUEL.saturating_add(bytes);
        environment.set_fuel(Some(fuel as u64));
        environment.add_function("strftime_now", move |format: &str| date::strftime(options.now, format));
        let mut context: BTreeMap<&str, Value> =
            self.special.iter().map(|(key, name)| (*key, Value::from(name.as_str()))).collect();
        context.insert("messages", messages.iter().map(value).collect::<Vec<_>>().into());
        context.insert("add_generation_prompt", options.add_generation_prompt.into());
        context.insert("tools", Value::from(()));
        context.insert("documents", Value::from(()));
        let stack = fuel.saturating_mul(STACK_OF_NESTING);
        deeply(stack, || environment.get_template(NAME)?.render(context)).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &minijinja::Error) -> Error {
        let line = error.line().map(|line| format!(", line {line}")).unwrap_or_default();
        let kind = error.kind();
        let reason = match error.detail() {
            // What the template itself says is wrong with the conversation.
            Some(detail) if filters::is_raised(error) => detail.to_owned(),
            Some(detail) => format!("{kind}: {detail}{line}"),
            None => format!("{kind}{line}"),
        };
        Error::ChatTemplate { path: self.path.clone(), reason }
    }
}

impl Tokenizer {
    /// Returns the tokens of a conversation.
    ///
    /// Names of tokens that control are these tokens where the template has them, and text where a message
    /// has them: nobody ends their turn and begins another one's by what they write. Nothing is put around
    /// the text but what the template puts there.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`], and if the tokenizer cannot represent the text.
    pub fn encode_chat(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
        options: ChatOptions,
    ) -> Result<Vec<Token>, Error> {
        let control = self.control_tokens();
        let shield = Shield::new(&template.source, messages).ok_or_else(|| {
            let reason = "messages have every noncharacter from U+FDD0 to U+FDEF".to_owned();
            Error::ChatTemplate { path: template.path.clone(), reason }
        })?;
        let messages: Vec<Message> = messages
            .iter()
            .map(|message| Message {
                role: shield.put(&message.role, &control),
                content: shield.put(&message.content, &control),
            })
            .collect();
        let text = template.render(&messages, options)?;
        self.tokens_with_control(&text, &control, |piece| shield.taken_from(piece))
    }
}

/// Calls the crate minijinja where it has so many bytes of stack.
///
/// It goes through operations on the results of others, and through lists in lists, by recursion without end.
/// There is only memory for what is used of a stack. A namespace that a template puts into itself has no end:
/// where it is written, the stack overflows whatever its size.
fn deeply<T: Send>(
    stack: usize,
    call: impl FnOnce() -> Result<T, minijinja::Error> + Send,
) -> Result<T, minijinja::Error> {
    let failed = |reason: String| minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, reason);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(LEAST_STACK.saturating_add(stack));
        let running = thread.spawn_scoped(scope, || catch_panic(call));
        let running = running.map_err(|error| failed(format!("there is no thread for it: {error}")))?;
        let returned = running.join().map_err(|_| failed("a panic".to_owned()))?;
        returned.unwrap_or_else(|panic| Err(failed(panic)))
    })
}

/// A message as templates see it.
fn value(message: &Message) -> Value {
    Value::from_pairs([("role", message.role.as_str()), ("content", message.content.as_str())])
}

/// An environment as transformers has it (`_cached_compile_jinja_template` in
/// src/transformers/utils/chat_template_utils.py).
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.unwrap_or_default());
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(filters::python_method);
    environment.add_filter("tojson", filters::to_json);
    environment.add_function("raise_exception", filters::raise_exception);
    environment
}
