//! The parts of GGUF files, made by hand so that each can be wrong.

pub(crate) const U8: u32 = 0;
pub(crate) const U32: u32 = 4;
pub(crate) const I32: u32 = 5;
pub(crate) const BOOL: u32 = 7;
pub(crate) const STRING: u32 = 8;
pub(crate) const ARRAY: u32 = 9;

pub(crate) fn header(version: u32, tensors: u64, pairs: u64) -> Vec<u8> {
    [b"GGUF".as_slice(), &version.to_le_bytes(), &tensors.to_le_bytes(), &pairs.to_le_bytes()].concat()
}

pub(crate) fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

pub(crate) fn pair(key: &str, value_type: u32, value: &[u8]) -> Vec<u8> {
    [string(key), value_type.to_le_bytes().to_vec(), value.to_vec()].concat()
}

pub(crate) fn array(item_type: u32, length: u64, items: &[u8]) -> Vec<u8> {
    [&item_type.to_le_bytes(), length.to_le_bytes().as_slice(), items].concat()
}

pub(crate) fn info(name: &str, dimensions: &[u64], ggml_type: u32, offset: u64) -> Vec<u8> {
    let mut bytes = string(name);
    bytes.extend((dimensions.len() as u32).to_le_bytes());
    bytes.extend(dimensions.iter().flat_map(|dimension| dimension.to_le_bytes()));
    bytes.extend(ggml_type.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

/// Fills up to where tensors may begin, and adds so many bytes for them.
pub(crate) fn with_data(mut bytes: Vec<u8>, length: usize) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(32) + length, 1);
    bytes
}
