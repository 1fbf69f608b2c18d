//! docs/book/new-measure.md has the code of this crate, which is compiled here.

#![allow(clippy::unwrap_used)]

use std::path::Path;

#[test]
fn the_page_has_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/book/new-measure.md")).unwrap();
    for file in ["src/lib.rs", "src/main.rs", "src/bin/calm-entropy.rs"] {
        let code = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert!(
            page.contains(&format!("```rust\n{code}```\n")),
            "{file} differs from docs/book/new-measure.md"
        );
    }
}
