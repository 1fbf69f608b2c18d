//! The templates and what they have in common.

use anyhow::Context;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

/// The page of one run.
pub(crate) const REPORT: &str = "report.html";
/// The page of the paper's figures.
pub(crate) const PAPER: &str = "paper.html";

const TEMPLATES: [(&str, &str); 4] = [
    ("base.html", include_str!("templates/base.html")),
    ("macros.html", include_str!("templates/macros.html")),
    (REPORT, include_str!("templates/report.html")),
    (PAPER, include_str!("templates/paper.html")),
];

const STYLE: &str = include_str!("templates/style.css");
const EXPLORER: &str = include_str!("templates/explorer.js");

/// Puts a view into a template. All that a view holds is escaped but what a template says is `safe`.
///
/// # Errors
/// A template asks for what the view does not have.
pub(crate) fn render(template: &str, view: &impl Serialize) -> anyhow::Result<String> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_global("style", STYLE);
    environment.add_global("explorer_script", EXPLORER);
    environment.add_filter("fixed", |value: f64, digits: usize| format!("{value:.digits$}"));
    environment.add_filter("signed", signed);
    for (name, text) in TEMPLATES {
        environment.add_template(name, text)?;
    }
    environment.get_template(template)?.render(Serde(view)).with_context(|| format!("the page {template}"))
}

/// A difference with its sign, none where it rounds to nothing.
pub(crate) fn signed(value: f64, digits: usize) -> String {
    let text = format!("{value:+.digits$}");
    if text.chars().any(|digit| ('1'..='9').contains(&digit)) {
        text.replace('-', "−")
    } else {
        format!("{:.digits$}", 0.0)
    }
}

/// JSON that may stand in a `<script>`: no text in it ends the element.
pub(crate) fn embedded_json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string(value)?.replace('<', "\\u003c"))
}
