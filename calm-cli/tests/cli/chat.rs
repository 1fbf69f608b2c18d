//! `calm chat` with lines from standard input.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::chat_model::{self, chat_tokens};
use crate::command::{calm, complaint, generate, llama_with_tokenizer, notes};

fn chat(model: &Path, arguments: &[&str], input: &str) -> Output {
    let common = ["chat", "--device", "cpu", "--model", model.to_str().unwrap()];
    calm([&common, arguments].concat(), input)
}

/// What `calm generate` answers to a conversation, as text.
fn answer(model: &Path, arguments: &[&str], conversation: &[(&str, &str)]) -> String {
    let input = json!({ "input_ids": chat_tokens(model, conversation) }).to_string();
    let line: Value = serde_json::from_str(&said(generate(model, arguments, &input)).0).unwrap();
    line["text"].as_str().unwrap().to_owned()
}

/// What was printed, with what was said beside it.
fn said(output: Output) -> (String, String) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).unwrap(), notes(&output.stderr))
}

#[test]
fn answers_are_those_of_generate_whatever_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    let model = chat_model::write(folder.path(), Some(chat_model::TEMPLATE));
    for policy in [
        "full",
        "static-2",
        "calm-softmax-0.3",
        "shallow-deep-2-0.3",
        "self-speculative",
        "self-speculative-draft2.3",
    ] {
        let arguments = ["--policy", policy, "--max-tokens", "30"];
        let mut conversation = vec![("system", "be short")];
        let mut expected = String::new();
        for text in ["What is Rust?", "é € 😀 and so on"] {
            conversation.push(("user", text));
            let answer = answer(&model, &arguments, &conversation);
            expected += &format!("{answer}\n");
            conversation.push(("assistant", answer.leak()));
        }
        let input = "What is Rust?\né € 😀 and so on\n\nno more\n";
        let (found, _) = said(chat(&model, &[&arguments[..], &["--system", "be short"]].concat(), input));
        assert_eq!(found, expected, "{policy}");
    }
}

#[test]
fn draws_depend_on_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    let model = chat_model::write(folder.path(), Some(chat_model::TEMPLATE));
    let arguments = |seed| ["--max-tokens", "20", "--temperature", "2.5", "--top-k", "90", "--seed", seed];
    let found = |seed| said(chat(&model, &arguments(seed), "Hello\n")).0;
    assert_eq!(found("7"), answer(&model, &arguments("7"), &[("user", "Hello")]) + "\n");
    assert_ne!(found("7"), found("8"));
}

#[test]
fn statistics_follow_each_answer() {
    let folder = tempfile::tempdir().unwrap();
    let model = chat_model::write(folder.path(), Some(chat_model::TEMPLATE));
    let arguments = ["--policy", "static-2", "--max-tokens", "9", "--stats"];
    let (_, beside) = said(chat(&model, &arguments, "one\ntwo\n"));
    let stats: Vec<&str> = beside.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(stats.len(), 2, "{beside}");
    let prompt = chat_tokens(&model, &[("user", "one")]).len();
    assert!(stats[0].contains(" tokens, 2.0 layers per token, "), "{beside}");
    assert!(stats[0].ends_with(&format!(" s for a prompt of {prompt}]")), "{beside}");
}

/// The context of the model is 256.
#[test]
fn a_long_conversation_loses_its_oldest_turns() {
    let folder = tempfile::tempdir().unwrap();
    let model = chat_model::write(folder.path(), Some(chat_model::TEMPLATE));
    let long = "x".repeat(100);
    let arguments = ["--max-tokens", "20", "--system", "be short"];
    let (found, beside) =
        said(chat(&model, &arguments, &format!("{long}\n{long}\n{}\nhi\n", "y".repeat(300))));
    assert!(
        beside.contains("note: the first 2 messages are left out, to fit into the context\n"),
        "{beside}"
    );
    assert!(beside.contains("note: the message is too long"), "{beside}");
    let first = answer(&model, &arguments[..2], &[("system", "be short"), ("user", &long)]);
    // The second message is answered as if the first had not been; so is the one after the long message.
    let last = answer(&model, &arguments[..2], &[("system", "be short"), ("user", "hi")]);
    assert_eq!(found, format!("{first}\n{first}\n{last}\n"));

    let said = complaint(&chat(&model, &["--max-tokens", "256"], "hi\n"));
    assert_eq!(said, "--max-tokens is 256, and the model's context 256");
}

#[test]
fn what_cannot_talk_says_so_before_it_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let model = chat_model::write(folder.path(), None);
    let expected = "cannot write the conversation as the model reads it: the model has no chat template, \
                    which messages need";
    assert_eq!(complaint(&chat(&model, &[], "hi\n")), expected);
    let folder = llama_with_tokenizer();
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let said = complaint(&chat(folder.path(), &["--max-tokens", "9"], "hi\n"));
    assert!(said.contains("holds no tokenizer.json"), "{said}");
}
