//! The files of a checkpoint: which there are, reading them, writing them, and what tells two checkpoints
//! apart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use calm_files::hex;
use sha2::{Digest, Sha256};

use crate::Error;

/// What the weight files of a published checkpoint are called.
pub const MODEL_STEM: &str = "model";

/// Whether a tensor of this name may be left unused: transformers before PR #8518 stored the embedding up to
/// three times and a position bias that was never used.
pub fn is_known_leftover(name: &str) -> bool {
    matches!(name, "encoder.embed_tokens.weight" | "decoder.embed_tokens.weight")
        || name.ends_with("EncDecAttention.relative_attention_bias.weight")
}

/// `STEM.safetensors`, or the shards that `STEM.safetensors.index.json` lists.
///
/// # Errors
/// There is neither, or the list cannot be read.
pub fn files_of(dir: &Path, stem: &str) -> Result<Vec<PathBuf>, Error> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let single = dir.join(format!("{stem}.safetensors"));
    if single.is_file() {
        return Ok(vec![single]);
    }
    let path = dir.join(format!("{stem}.safetensors.index.json"));
    if !path.is_file() {
        return Err(Error::NoWeights { dir: dir.to_owned() });
    }
    let index: Index = calm_files::read_json(&path)?;
    let shards: BTreeSet<String> = index.weight_map.into_values().collect();
    Ok(shards.into_iter().map(|shard| dir.join(shard)).collect())
}

/// Maps a file that nobody changes while the map lives.
///
/// # Errors
/// The file cannot be opened or mapped.
#[allow(unsafe_code)]
pub fn map_file(path: &Path) -> Result<memmap2::Mmap, Error> {
    let map = std::fs::File::open(path)
        // SAFETY: a file rewritten in place by another process could change under the map. This project
        // itself replaces files by renaming only, which leaves the mapped one as it was.
        .and_then(|file| unsafe { memmap2::Mmap::map(&file) })
        .map_err(calm_files::Error::read(path))?;
    Ok(map)
}

/// SHA-256 of the bytes of all weight files of a checkpoint, in hexadecimal.
fn weights_hash(dir: &Path) -> Result<String, Error> {
    let mut hash = Sha256::new();
    for path in files_of(dir, MODEL_STEM)? {
        hash.update(&map_file(&path)?);
    }
    Ok(hex(&hash.finalize()))
}

/// SHA-256, in hexadecimal, of all that a checkpoint's outputs depend on: weight files, `config.json`,
/// `generation_config.json` and `tokenizer.json` where there are such, and what measures keep in files
/// `calm.*`.
///
/// # Errors
/// A file cannot be read.
pub fn fingerprint(dir: &Path) -> Result<String, Error> {
    let mut hash = Sha256::new_with_prefix(weights_hash(dir)?);
    let files = ["config.json", "generation_config.json", "tokenizer.json"].map(|name| dir.join(name));
    for path in files.iter().filter(|path| path.is_file()) {
        hash.update(calm_files::read(path)?);
    }
    for path in measure_files(dir)? {
        // With their names: a measure looks for its own.
        hash.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(calm_files::read(&path)?);
    }
    Ok(hex(&hash.finalize()))
}

/// The part of a loaded model's fingerprint that [`fingerprint`] gives for its checkpoint, without the type
/// that its weights may have been rounded to.
pub fn checkpoint_fingerprint(of_model: &str) -> &str {
    of_model.rsplit('-').next().unwrap_or(of_model)
}

/// The files `calm.*` of a checkpoint, in order of their names.
fn measure_files(dir: &Path) -> Result<Vec<PathBuf>, calm_files::Error> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(calm_files::Error::read(dir))? {
        let path = entry.map_err(calm_files::Error::read(dir))?.path();
        let name = path.file_name().unwrap_or_default();
        if name.as_encoded_bytes().starts_with(b"calm.") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
