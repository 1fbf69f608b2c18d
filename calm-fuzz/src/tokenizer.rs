//! The file `tokenizer.json`.

use calm_checkpoint::Tokenizer;

use crate::scratch;

/// The file, which may be followed by a zero byte and a text.
pub(crate) fn read(input: &[u8]) -> anyhow::Result<()> {
    let (document, text) = match input.iter().rposition(|&byte| byte == 0) {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, b"".as_slice()),
    };
    let path = scratch::file("tokenizer.json", document);
    let tokenizer = Tokenizer::load(&path)?;
    let _ = tokenizer.encode(&String::from_utf8_lossy(text));
    use_all(&tokenizer)
}

/// Turns some texts into tokens and back.
pub(crate) fn use_all(tokenizer: &Tokenizer) -> anyhow::Result<()> {
    tokenizer.unknown_token();
    let size = tokenizer.vocab_size() as u32;
    let _ = tokenizer.decode(&[0, 1, 2, 3, size / 2, size, u32::MAX]);
    for text in ["", "Hello, world 12", " the\tcat\u{301} \u{1f600}</s><s>\n"] {
        tokenizer.decode(&tokenizer.encode(text)?)?;
        tokenizer.decode(&tokenizer.encode_plain(text)?)?;
    }
    Ok(())
}
