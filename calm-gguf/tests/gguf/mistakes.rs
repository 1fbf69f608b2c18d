use calm_gguf::Gguf;

use crate::made_file::{ARRAY, BOOL, I32, STRING, U8, U32, array, header, info, pair, string, with_data};

/// A file with one pair.
fn with_pair(pair: Vec<u8>) -> Vec<u8> {
    [header(3, 0, 1), pair].concat()
}

/// A file with tensors, and so many bytes behind their descriptions.
fn with_tensors(infos: &[Vec<u8>], length: usize) -> Vec<u8> {
    with_data([header(3, infos.len() as u64, 0), infos.concat()].concat(), length)
}

/// Arrays within arrays.
fn nested(depth: usize) -> Vec<u8> {
    (1..depth).fold(array(U8, 1, &[5]), |inner, _| array(ARRAY, 1, &inner))
}

fn replaced(mut bytes: Vec<u8>, at: usize, by: &[u8]) -> Vec<u8> {
    bytes[at..at + by.len()].copy_from_slice(by);
    bytes
}

/// Every mistake is an error that says in what and where it is. The first pair of a file is at byte 24.
#[test]
fn mistakes_are_named_with_their_place() {
    let alignment = |value_type, value: &[u8]| with_pair(pair("general.alignment", value_type, value));
    let two_keys = [header(3, 0, 2), pair("k", U8, &[1]), pair("k", U32, &[0; 4])].concat();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    for (bytes, expected) in [
        (vec![], "header, at byte 0: a GGUF file begins with `GGUF`, and this one with ``"),
        (b"GG".to_vec(), "header, at byte 0: a GGUF file begins with `GGUF`, and this one with `GG`"),
        (
            b"ggml\x01\0\0\0".to_vec(),
            "header, at byte 0: a GGUF file begins with `GGUF`, and this one with `ggml`",
        ),
        (b"GGUF\x03".to_vec(), "header, at byte 4: 4 bytes are needed, but the file has 1 from here on"),
        (
            header(1, 0, 0),
            "header, at byte 4: version 1 of the format; only versions 2 and 3 can be read, with the least byte first",
        ),
        (
            header(3_u32.swap_bytes(), 0, 0),
            "header, at byte 4: version 50331648 of the format; only versions 2 and 3 can be read, with the least byte \
             first",
        ),
        (
            header(3, u64::MAX, 0),
            "header, at byte 8: a count of 18446744073709551615, each of at least 33 bytes, but the file has 8 from \
             here on",
        ),
        (
            header(3, 0, 1 << 60),
            "header, at byte 16: a count of 1152921504606846976, each of at least 14 bytes, but the file has 0 from \
             here on",
        ),
        (
            // Enough bytes for one tensor before the pair, and none behind it.
            [header(3, 1, 1), pair("k", STRING, &string("0123456789012345678901234567890123456789"))]
                .concat(),
            "header, at byte 85: a count of 1, each of at least 33 bytes, but the file has 0 from here on",
        ),
        (
            with_pair(pair("", U8, &[0; 9])),
            "key number 0, at byte 24: a name of 0 bytes; names have 1 to 65535",
        ),
        (
            replaced(with_pair(pair("k", U8, &[0; 9])), 24, &u64::MAX.to_le_bytes()),
            "key number 0, at byte 24: a name of 18446744073709551615 bytes; names have 1 to 65535",
        ),
        (
            replaced(with_pair(pair("k", U8, &[0])), 24, &60_000_u64.to_le_bytes()),
            "key number 0, at byte 32: 60000 bytes are needed, but the file has 6 from here on",
        ),
        (
            replaced(with_pair(pair("kkk", U8, &[0])), 33, &[0xff]),
            "key number 0, at byte 33: a text that is not UTF-8",
        ),
        (with_pair(pair("k", 13, &[0; 8])), "key `k`, at byte 33: 13 stands for no type of values"),
        (with_pair(pair("k", BOOL, &[2])), "key `k`, at byte 37: a truth value is 2, neither 0 nor 1"),
        (with_pair(pair("k", STRING, &string(b"a\xc3"))), "key `k`, at byte 46: a text that is not UTF-8"),
        (
            with_pair(pair("k", STRING, &u64::MAX.to_le_bytes())),
            "key `k`, at byte 45: 18446744073709551615 bytes are needed, but the file has 0 from here on",
        ),
        (
            with_pair(pair("k", ARRAY, &array(I32, u64::MAX / 2, &[0; 4]))),
            "key `k`, at byte 41: a count of 9223372036854775807, each of at least 4 bytes, but the file has 4 from \
             here on",
        ),
        (
            with_pair(pair("k", ARRAY, &array(BOOL, 3, &[0, 1, 3]))),
            "key `k`, at byte 51: a truth value is 3, neither 0 nor 1",
        ),
        (
            with_pair(pair("k", ARRAY, &nested(9))),
            "key `k`, at byte 133: arrays within arrays, more than 8 deep",
        ),
        (two_keys, "key `k`, at byte 38: it is there twice, first at byte 24"),
        (
            alignment(U32, &[0; 4]),
            "key `general.alignment`, at byte 49: an alignment has to be a power of two as u32, and it is U32(0)",
        ),
        (
            alignment(U32, &[48, 0, 0, 0]),
            "key `general.alignment`, at byte 49: an alignment has to be a power of two as u32, and it is U32(48)",
        ),
        (
            alignment(I32, &[32, 0, 0, 0]),
            "key `general.alignment`, at byte 49: an alignment has to be a power of two as u32, and it is I32(32)",
        ),
        (
            with_tensors(&[info("t", &[], 0, 0)], 64),
            "tensor `t`, at byte 33: 0 dimensions; tensors have 1 to 4",
        ),
        (
            with_tensors(&[info("t", &[1; 5], 0, 0)], 64),
            "tensor `t`, at byte 33: 5 dimensions; tensors have 1 to 4",
        ),
        (
            with_tensors(&[info("t", &[4, 0], 0, 0)], 64),
            "tensor `t`, at byte 37: dimensions [4, 0], whose product is 0 or too large",
        ),
        (
            with_tensors(&[info("t", &[1 << 32, 1 << 32], 0, 0)], 64),
            "tensor `t`, at byte 37: dimensions [4294967296, 4294967296], whose product is 0 or too large",
        ),
        (
            with_tensors(&[info("t", &[1 << 60], 0, 0)], 64),
            "tensor `t`, at byte 37: dimensions [1152921504606846976], whose product is 0 or too large",
        ),
        (
            with_tensors(&[info("t", &[48, 2], 3, 0)], 64),
            "tensor `t`, at byte 37: rows of 48, but Q4_1 (type 3) has blocks of 32",
        ),
        (
            with_tensors(&[info("t", &[4], 0, 16)], 64),
            "tensor `t`, at byte 49: an offset of 16, which is not a multiple of the alignment, 32",
        ),
        (
            with_tensors(&[info("t", &[4], 0, u64::MAX - 31)], 64),
            "tensor `t`, at byte 49: an offset of 18446744073709551584, which is not a multiple of the alignment, 32",
        ),
        (
            with_tensors(&[info("", &[4], 0, 0)], 64),
            "tensor number 0, at byte 24: a name of 0 bytes; names have 1 to 65535",
        ),
        (
            with_tensors(&[info("t", &[4], 0, 0), info("u", &[4], 0, 32), info("t", &[4], 0, 64)], 96),
            "tensor `t`, at byte 90: it is there twice, first at byte 24",
        ),
        (
            with_tensors(&[info("t", &[17], 0, 0)], 64),
            "tensor `t`, at byte 64: 68 bytes are needed, but the file has 64 from here on",
        ),
        (
            with_tensors(&[info("t", &[1], 0, 64)], 64),
            "tensor `t`, at byte 128: 4 bytes are needed, but the file has 0 from here on",
        ),
        (
            // A type whose size is not known begins within the file at least.
            with_tensors(&[info("t", &[1], 99, 1 << 40)], 64),
            "tensor `t`, at byte 1099511627840: 1 bytes are needed, but the file has 0 from here on",
        ),
        (
            with_tensors(&[info("t", &[4], 0, 32), info("u", &[9], 0, 0)], 96),
            "tensor `t`, at byte 128: it shares bytes with tensor `u`",
        ),
        (
            with_tensors(&[info("t", &[4], 0, 0)], 0)[..40].to_vec(),
            "header, at byte 8: a count of 1, each of at least 33 bytes, but the file has 24 from here on",
        ),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        let error = Gguf::open(&path).unwrap_err().to_string();
        let expected = format!("{}: {expected}", path.display());
        assert_eq!(error, expected);
    }
    let error = Gguf::open(&folder.path().join("none.gguf")).unwrap_err().to_string();
    assert!(error.starts_with("cannot read ") && error.contains("none.gguf: "), "{error}");
}

#[test]
fn what_is_just_allowed_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    for bytes in [
        with_pair(pair("k", ARRAY, &nested(8))),
        with_pair(pair(&"k".repeat(65_535), U8, &[1])),
        with_pair(pair("general.alignment", U32, &(1_u32 << 31).to_le_bytes())),
        with_tensors(&[info("t", &[16], 0, 0), info("u", &[16], 0, 64)], 128),
        with_tensors(&[info("t", &[2, 2, 2, 2], 0, 0)], 64),
        // The size of this type is not known.
        with_tensors(&[info("t", &[7], 99, 0), info("u", &[16], 0, 32)], 96),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        Gguf::open(&path).unwrap();
    }
}
