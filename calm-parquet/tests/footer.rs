//! Footers that no writer made.

// Clippy exempts test functions, but not their helpers.
#![allow(clippy::unwrap_used)]

use std::fs::File;

use calm_parquet::{ParquetFile, guarded};

/// Returns why a file with this footer is not read.
fn complaint(footer: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.parquet");
    let length = u32::try_from(footer.len()).unwrap().to_le_bytes();
    std::fs::write(&path, [b"PAR1", footer, &length, b"PAR1"].concat()).unwrap();
    ParquetFile::open(&path, File::open(&path).unwrap()).unwrap_err().to_string()
}

/// Headers of fields: the step to the next number in the high bits, the type in the low ones.
const STRUCT: u8 = 0x1c;
const SECOND_IS_LIST: u8 = 0x29;
const END: u8 = 0;

#[test]
fn what_would_overflow_the_stack() {
    assert!(complaint(&[STRUCT; 1 << 20]).ends_with("its metadata is nested without end"));

    // Each element of the schema is a group of the name `a` with one field, the next element.
    let element = [0x48, 1, b'a', 0x15, 2, END];
    let count = 1 << 16;
    // The length of a long list of structs has its own bytes.
    let mut schema = vec![SECOND_IS_LIST, 0xfc, 0x80, 0x80, 0x04];
    schema.extend(element.repeat(count));
    schema.push(END);
    assert!(complaint(&schema).ends_with("its columns are nested without end"), "{}", complaint(&schema));
}

#[test]
fn numbers_without_a_limit() {
    let endless = [&[SECOND_IS_LIST, 0xfc][..], &[0xff; 9], &[0x01, END]].concat();
    assert!(complaint(&endless).contains("the file is damaged"), "{}", complaint(&endless));
    // A text of 2^63 bytes as the creator.
    let text = [&[0x68][..], &[0x80; 9], &[0x01, END]].concat();
    assert!(complaint(&text).ends_with("its metadata is cut off"), "{}", complaint(&text));
}

#[test]
fn what_is_no_footer() {
    assert!(complaint(&[]).contains("the file is damaged"), "{}", complaint(&[]));
    assert!(complaint(&[END]).starts_with("Parquet error: "), "{}", complaint(&[END]));
}

#[test]
fn a_panic_is_an_error() {
    let result = guarded::<()>(|| panic!("{} apples", 3));
    let expected = "Parquet error: the file is damaged: it cannot be decoded (3 apples)";
    assert_eq!(result.unwrap_err().to_string(), expected);
    assert_eq!(guarded(|| Ok(1)).unwrap(), 1);
}
