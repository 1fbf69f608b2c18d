//! JSON Lines and JSON documents, compressed or not.

use calm_data::{Columns, WithoutReference, read_examples, read_segments};

use crate::scratch;

/// The file.
pub(crate) fn read(input: &[u8]) -> anyhow::Result<()> {
    let squad = Columns {
        source: "question".to_owned(),
        context: Some("context".to_owned()),
        target: "answers.text".to_owned(),
        without_reference: WithoutReference::LeaveOut,
        ..Columns::default()
    };
    let path = scratch::file("examples.jsonl", input);
    let lines = read_examples(&path, &Columns::default());
    let path = scratch::file("examples.json", input);
    let document = read_examples(&path, &squad);
    let path = scratch::file("segments", input);
    let segments = read_segments(&path, "target");
    lines.or(document)?;
    segments?;
    Ok(())
}
