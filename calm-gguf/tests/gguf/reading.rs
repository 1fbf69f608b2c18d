use std::path::{Path, PathBuf};

use calm_gguf::{Array, Gguf, TensorType, Value, ValueType};
use safetensors::SafeTensors;

use crate::made_file::{STRING, U32, header, info, pair, string, with_data};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Values and shapes of the golden file's tensors equal those that gguf-py computes, to the last bit.
#[test]
fn tensors_of_every_type_have_the_values_of_the_reference() {
    let gguf = Gguf::open(&golden("every_type.gguf")).unwrap();
    let reference = std::fs::read(golden("every_type.safetensors")).unwrap();
    let reference = SafeTensors::deserialize(&reference).unwrap();
    assert_eq!(gguf.tensors().len(), TensorType::ALL.len());
    for tensor in gguf.tensors() {
        let expected = reference.tensor(&tensor.name).unwrap();
        assert_eq!(tensor.shape, expected.shape());
        let kind = gguf.tensor_type(tensor).unwrap();
        assert_eq!(kind.name(), tensor.name);
        assert_eq!(gguf.bytes(tensor).len(), tensor.shape[0] * kind.row_bytes(tensor.shape[1]));
        let mut values = vec![0.0; tensor.shape.iter().product()];
        kind.dequantise(gguf.bytes(tensor), &mut values);
        for (at, (value, bytes)) in values.iter().zip(expected.data().as_chunks().0).enumerate() {
            let expected = f32::from_le_bytes(*bytes);
            let same = value.to_bits() == expected.to_bits() || (value.is_nan() && expected.is_nan());
            assert!(same, "{kind}, value {at}: {value:?}, not {expected:?}");
        }
        // A reader that never sees numbers would pass, too.
        assert!(values.iter().filter(|value| value.is_finite()).count() > values.len() / 2, "{kind}");
    }
    gguf.check_unchanged().unwrap();
}

#[test]
fn metadata_of_every_type_are_found_by_their_keys() {
    let gguf = Gguf::open(&golden("every_type.gguf")).unwrap();
    for (key, value) in [
        ("test.u8", Value::U8(200)),
        ("test.i8", Value::I8(-100)),
        ("test.u16", Value::U16(60_000)),
        ("test.i16", Value::I16(-30_000)),
        ("test.u32", Value::U32(4_000_000_000)),
        ("test.i32", Value::I32(-2_000_000_000)),
        ("test.f32", Value::F32(0.1)),
        ("test.bool", Value::Bool(true)),
        ("test.string", Value::String("naïve 語 😀")),
        ("test.u64", Value::U64(1 << 63)),
        ("test.i64", Value::I64(i64::MIN)),
        ("test.f64", Value::F64(0.1)),
    ] {
        assert_eq!(gguf.metadata(key), Some(value), "{key}");
    }
    assert_eq!(gguf.metadata("test"), None);
    assert_eq!(gguf.list::<&str>("test.strings").unwrap(), ["a", "", "Ġb"]);
    assert_eq!(gguf.list::<i32>("test.i32s").unwrap(), [-1, 0, 1]);
    assert_eq!(gguf.list::<f32>("test.f32s").unwrap(), [0.5, -2.0]);
    assert_eq!(gguf.list::<bool>("test.bools").unwrap(), [true, false]);
    let nested: Array<'_> = gguf.require("test.nested").unwrap();
    let nested: Vec<Value<'_>> = nested.iter().collect();
    let numbers = |value: &Value<'_>| match value {
        Value::Array(array) => array.iter().filter_map(|value| value.integer()).collect(),
        _ => vec![],
    };
    assert_eq!(nested.iter().map(numbers).collect::<Vec<_>>(), [vec![1, 2], vec![3]]);
    let bytes: Array<'_> = gguf.require("test.bytes").unwrap();
    assert_eq!((bytes.item_type(), bytes.bytes()), (ValueType::U8, Some([0, 7, 255].as_slice())));
    let keys: Vec<&str> = gguf.pairs().map(|(key, _)| key).collect();
    assert!(keys.is_sorted() && keys.len() == 19, "{keys:?}");
}

#[test]
fn values_are_read_as_any_type_they_fit_in() {
    let gguf = Gguf::open(&golden("every_type.gguf")).unwrap();
    assert_eq!(gguf.require::<u64>("test.u8").unwrap(), 200);
    assert_eq!(gguf.require::<usize>("test.u32").unwrap(), 4_000_000_000);
    assert_eq!(gguf.require::<i64>("test.i8").unwrap(), -100);
    assert_eq!(gguf.require::<f64>("test.f32").unwrap(), f64::from(0.1_f32));
    assert_eq!(gguf.require::<f32>("test.f64").unwrap(), 0.1);
    assert_eq!(gguf.get::<u32>("test.nothing").unwrap(), None);
    let path = golden("every_type.gguf");
    let message = |error: calm_gguf::Error| error.to_string().replace(&*path.to_string_lossy(), "F");
    for (found, expected) in [
        (gguf.require::<u32>("test.nothing").map(drop), "F has no key `test.nothing`"),
        (
            gguf.require::<u32>("test.i8").map(drop),
            "F: key `test.i8`: it should be an integer from 0 on, below 2^32, and is -100 (i8)",
        ),
        (
            gguf.get::<f32>("test.string").map(drop),
            "F: key `test.string`: it should be a floating-point number, and is the text `naïve 語 😀`",
        ),
        (
            gguf.list::<u32>("test.i32s").map(drop),
            "F: key `test.i32s`: value 0 is not an integer from 0 on, below 2^32",
        ),
        (
            gguf.list::<u64>("test.bytes").map(drop),
            "F: key `test.bytes`: it should be an array whose values are each an integer from 0 on, and is an array \
             of 3 u8",
        ),
        (
            gguf.list::<&str>("test.string").map(drop),
            "F: key `test.string`: it should be an array, and is the text `naïve 語 😀`",
        ),
    ] {
        assert_eq!(message(found.unwrap_err()), expected);
    }
}

#[test]
fn an_unsupported_type_is_listed_and_refused_only_where_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let infos = [
        header(2, 3, 1),
        pair("general.architecture", STRING, &string("llama")),
        info("a", &[256, 2], 11, 0),
        info("b", &[32], 8, 224),
        // No type of now.
        info("c", &[7, 3], 99, 288),
    ];
    std::fs::write(&path, with_data(infos.concat(), 289)).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let listed: Vec<String> =
        gguf.tensors().map(|t| format!("{} {:?} {}", t.name, t.shape, t.ggml_type)).collect();
    assert_eq!(listed, ["a [2, 256] Q3_K (type 11)", "b [32] Q8_0 (type 8)", "c [3, 7] type 99"]);
    let tensor = |name| gguf.tensor(name).unwrap();
    assert_eq!(gguf.tensor_type(tensor("b")).unwrap(), TensorType::Q8_0);
    assert_eq!(gguf.bytes(tensor("a")).len(), 220);
    assert_eq!(gguf.bytes(tensor("b")).len(), 34);
    assert_eq!(gguf.tensor("d"), None);
    let error = gguf.tensor_type(tensor("a")).unwrap_err().to_string();
    assert!(
        error.contains("m.gguf: tensor `a` is stored as Q3_K (type 11), which is not supported"),
        "{error}"
    );
    let error = gguf.tensor_type(tensor("c")).unwrap_err().to_string();
    assert!(error.contains("tensor `c` is stored as type 99,"), "{error}");
}

#[test]
fn tensors_begin_at_multiples_of_the_alignment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let mut bytes = header(3, 1, 1);
    bytes.extend(pair("general.alignment", U32, &64_u32.to_le_bytes()));
    bytes.extend(info("a", &[2], 0, 64));
    let start = bytes.len().next_multiple_of(64) + 64;
    bytes.resize(start, 0);
    bytes.extend([1.5_f32, -2.0].iter().flat_map(|value| value.to_le_bytes()));
    std::fs::write(&path, &bytes).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let mut values = [0.0; 2];
    TensorType::F32.dequantise(gguf.bytes(gguf.tensor("a").unwrap()), &mut values);
    assert_eq!(values, [1.5, -2.0]);
    // Another process replaces the file: what is mapped stays, and it is noticed.
    let other = folder.path().join("other");
    std::fs::write(&other, with_data(bytes, 1)).unwrap();
    std::fs::rename(other, &path).unwrap();
    TensorType::F32.dequantise(gguf.bytes(gguf.tensor("a").unwrap()), &mut values);
    assert_eq!(values, [1.5, -2.0]);
    assert!(gguf.check_unchanged().unwrap_err().to_string().contains("has changed while it was read"));
}

#[test]
fn a_file_may_consist_of_metadata_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    std::fs::write(&path, header(3, 0, 0)).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    assert_eq!((gguf.tensors().len(), gguf.pairs().count()), (0, 0));
    assert_eq!(gguf.path(), path);
}
