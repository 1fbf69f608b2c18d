use calm_data::tokenizer::{SPECIAL_TOKENS, normalize, save, train};
use tokenizers::Tokenizer;

const TEXTS: [(&str, u32); 5] = [
    ("the library reads the files of the library", 3),
    ("la bibliothèque lit les fichiers de la bibliothèque", 2),
    ("a reader of files, the reader's file reading", 1),
    ("« une lecture » : œuvre d'été, 12.5 €", 1),
    ("zéro un deux trois quatre cinq six sept huit neuf", 1),
];

#[test]
fn vocabulary_and_special_tokens() {
    let tokenizer = train(&TEXTS, 60).unwrap();
    assert_eq!(tokenizer.get_vocab_size(true), 60);
    for (id, token) in (0..).zip(SPECIAL_TOKENS) {
        assert_eq!(tokenizer.token_to_id(token), Some(id));
    }
    let encoding = tokenizer.encode("the library", true).unwrap();
    assert_eq!(encoding.get_ids().last(), Some(&1));
    assert_eq!(encoding.get_ids().iter().filter(|&&id| id < 3).count(), 1);
    assert_eq!(tokenizer.encode("漢", false).unwrap().get_ids().last(), Some(&2));
}

#[test]
fn decoding_gives_the_normal_form() {
    let tokenizer = train(&TEXTS, 60).unwrap();
    for (text, expected) in [
        ("les fichiers", "les fichiers"),
        ("  les\u{a0}fichiers\n de\t\u{202f}la  ", "les fichiers de la"),
        ("d\u{2019}e\u{301}te\u{301}", "d'été"),
        ("ﬁle", "file"),
    ] {
        assert_eq!(normalize(text).unwrap(), expected);
        let ids = tokenizer.encode(text, true).unwrap();
        assert_eq!(tokenizer.decode(ids.get_ids(), true).unwrap(), expected);
    }
}

#[test]
fn the_same_texts_give_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = |name: &str, texts: &[(&str, u32)]| {
        let path = folder.path().join(name);
        save(&train(texts, 55).unwrap(), &path).unwrap();
        Tokenizer::from_file(&path).unwrap();
        std::fs::read(&path).unwrap()
    };
    let first = bytes("first.json", &TEXTS);
    let mut reversed = TEXTS;
    reversed.reverse();
    for repeat in 0..4 {
        assert!(bytes("again.json", &reversed) == first, "repeat {repeat}");
    }
}

#[test]
fn too_little_text() {
    let error = train(&TEXTS, 5_000).unwrap_err().to_string();
    assert!(error.starts_with("tokenizer: only ") && error.ends_with(" tokens can be learnt from this text"));
    assert!(train(&TEXTS, 10).is_err());
    for texts in [&[][..], &[("", 1), (" \n", 1)]] {
        let error = train(texts, 60).unwrap_err().to_string();
        assert_eq!(error, "tokenizer: there is no text to learn from");
    }
}
