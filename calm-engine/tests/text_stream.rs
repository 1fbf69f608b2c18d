//! Texts in pieces.

#![allow(clippy::unwrap_used)]

use calm_core::Token;
use calm_engine::engine::TextCodec;
use calm_engine::text_stream::{TextStream, token_ends};
use proptest::prelude::*;

const REPLACEMENT: char = '\u{fffd}';

/// A token for each byte, and one, 256, that has no text.
struct Bytes;

impl TextCodec for Bytes {
    fn encode(&self, text: &str) -> anyhow::Result<Vec<Token>> {
        Ok(text.bytes().map(Token::from).collect())
    }

    fn decode(&self, tokens: &[Token]) -> anyhow::Result<String> {
        let bytes: Vec<u8> = tokens.iter().filter_map(|&token| u8::try_from(token).ok()).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn pieces(tokens: &[Token]) -> Vec<String> {
    let mut stream = TextStream::new(&Bytes);
    let mut pieces: Vec<String> = tokens.iter().map(|&token| stream.push(token).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    assert_eq!(stream.text(), pieces.concat());
    pieces
}

proptest! {
    #[test]
    fn pieces_are_whole_characters_and_together_the_text(text in "\\PC{0,40}") {
        let pieces = pieces(&Bytes.encode(&text).unwrap());
        prop_assert_eq!(pieces.concat(), text.clone());
        // A character comes with its last byte, but for one that stands for bytes that are no text.
        let mut at = 0;
        for (byte, piece) in (1..=text.len()).zip(&pieces) {
            at += piece.len();
            let is_certain = text.is_char_boundary(byte) && !text[..byte].ends_with(REPLACEMENT);
            prop_assert!(at <= byte && (at == byte || !is_certain));
        }
    }

    #[test]
    fn tokens_end_where_their_last_whole_character_does(text in "[a-zé€😀]{0,20}") {
        let ends = token_ends(&Bytes, &Bytes.encode(&text).unwrap(), &text).unwrap();
        let last_boundary = |byte: usize| (0..=byte).rev().find(|&at| text.is_char_boundary(at)).unwrap();
        prop_assert_eq!(ends, (1..=text.len()).map(last_boundary).collect::<Vec<_>>());
    }

    #[test]
    fn all_tokens_together_end_with_the_text(tokens in proptest::collection::vec(0..257 as Token, 1..30)) {
        let text = Bytes.decode(&tokens).unwrap();
        let ends = token_ends(&Bytes, &tokens, &text).unwrap();
        prop_assert!(ends.is_sorted() && ends.iter().all(|&end| text.is_char_boundary(end)));
        prop_assert_eq!((ends.len(), ends.last()), (tokens.len(), Some(&text.len())));
    }

    #[test]
    fn bytes_that_are_no_text_come_out_as_decoded_at_once(tokens in proptest::collection::vec(0..257 as Token, 0..30)) {
        prop_assert_eq!(pieces(&tokens).concat(), Bytes.decode(&tokens).unwrap());
    }
}

#[test]
fn half_a_character_waits_for_its_other_half() {
    let pieces = pieces(&[b'a'.into(), 0xe2, 0x82, 256, 0xac, b'b'.into(), 0xc3]);
    assert_eq!(pieces, ["a", "", "", "", "€", "b", "", "\u{fffd}"]);
}
