//! The files of a checkpoint: which there are, reading them, writing them, and what tells two checkpoints
//! apart.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use calm_files::hex;
use sha2::{Digest, Sha256};

use crate::model_type::Naming;
use crate::model_type::model_type;
use crate::tensor_names::first_names;
use crate::weight_file::WeightFile;
use crate::{Error, LLAMA_MODEL_TYPES};

/// What the weight files of a published checkpoint are called.
pub const MODEL_STEM: &str = "model";

/// Bytes of a file that are read at once where all of them go into a hash.
const HASHED_BYTES: usize = 1 << 20;

/// Whether a checkpoint is a GGUF file, and no directory. One that is not there is what its name says.
pub fn is_gguf(path: &Path) -> bool {
    path.is_file() || !path.is_dir() && path.extension().is_some_and(|extension| extension == "gguf")
}

/// Where what belongs to a checkpoint lies, such as files `calm.*`: in its directory, or in one that is named
/// after a GGUF file, `NAME.calm` beside `NAME.gguf`.
pub fn folder_of(path: &Path) -> PathBuf {
    if is_gguf(path) { path.with_extension("calm") } else { path.to_owned() }
}

/// `STEM.safetensors`, or the shards that `STEM.safetensors.index.json` lists.
///
/// # Errors
/// There is neither, or the list cannot be read.
pub fn files_of(dir: &Path, stem: &str) -> Result<Vec<PathBuf>, Error> {
    let single = dir.join(format!("{stem}.safetensors"));
    if single.is_file() {
        return Ok(vec![single]);
    }
    let Some(map) = WeightMap::read(dir, stem)? else {
        return Err(Error::NoWeights { dir: dir.to_owned(), stem: stem.to_owned(), instead: instead(dir) });
    };
    let shards: BTreeSet<String> = map.index.weight_map.into_values().collect();
    Ok(shards.into_iter().map(|shard| dir.join(shard)).collect())
}

/// The list of shards of a checkpoint of several files.
pub(crate) struct WeightMap {
    path: PathBuf,
    index: Index,
}

#[derive(serde::Deserialize)]
struct Index {
    /// Numbers and words about the whole checkpoint.
    #[serde(default)]
    metadata: BTreeMap<String, serde_json::Value>,
    /// The file of each tensor.
    weight_map: BTreeMap<String, String>,
}

impl WeightMap {
    /// Reads the list, if the checkpoint has one and goes by it.
    pub(crate) fn read(dir: &Path, stem: &str) -> Result<Option<Self>, Error> {
        let path = dir.join(format!("{stem}.safetensors.index.json"));
        if dir.join(format!("{stem}.safetensors")).is_file() || !path.is_file() {
            return Ok(None);
        }
        let index = calm_files::read_json(&path)?;
        Ok(Some(WeightMap { path, index }))
    }

    /// Checks that each tensor is where the list says it is.
    pub(crate) fn check(&self, files: &[WeightFile], naming: &Naming) -> Result<(), Error> {
        let stored: BTreeMap<&OsStr, BTreeSet<String>> = files
            .iter()
            .filter_map(|file| {
                let names = file.tensors(naming).into_iter().map(|info| info.stored);
                Some((file.path().file_name()?, names.collect()))
            })
            .collect();
        for (name, shard) in &self.index.weight_map {
            let holds = Path::new(shard).file_name().and_then(|shard| stored.get(shard));
            if !holds.is_some_and(|names| names.contains(name)) {
                let (path, name, shard) = (self.path.clone(), name.clone(), shard.clone());
                return Err(Error::NotInShard { path, name, shard });
            }
        }
        Ok(())
    }

    /// Lists what is written about the whole checkpoint.
    pub(crate) fn notes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.index.metadata.iter().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }
}

/// What a folder without weights holds instead, and what to do about it: the end of a sentence.
fn instead(dir: &Path) -> String {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let find = |is: &dyn Fn(&str) -> bool| names.iter().find(|name| is(name));
    if let Some(adapter) = find(&|name| name.starts_with("adapter_model.")) {
        return format!(
            "but {adapter}, an adapter without its model: merge it into the model with peft's \
             merge_and_unload(), and save that with save_pretrained"
        );
    }
    let is_pickled = |name: &str| name.starts_with("pytorch_model") && name.ends_with(".bin");
    if let Some(pickled) = find(&is_pickled) {
        let is_llama = model_type(dir).is_ok_and(|found| LLAMA_MODEL_TYPES.contains(&found.as_str()));
        let class = if is_llama { "AutoModelForCausalLM" } else { "AutoModelForSeq2SeqLM" };
        let dir = dir.display();
        return format!(
            "but {pickled}, which is a Python pickle: convert it with python -c \"from transformers import \
             {class} as M; M.from_pretrained('{dir}').save_pretrained('{dir}')\""
        );
    }
    let others = [("tf_model.h5", "from_tf"), ("flax_model.msgpack", "from_flax")];
    if let Some((name, flag)) = others.into_iter().find(|(name, _)| names.iter().any(|found| found == name)) {
        return format!(
            "but {name}: convert it with a transformers before 5, by from_pretrained(.., {flag}=True) and \
             save_pretrained"
        );
    }
    if let Some(shard) = find(&|name| name.ends_with(".safetensors")) {
        return format!("but {shard}: a file of another name, or one of several whose list is missing");
    }
    match names.is_empty() {
        true => "and is empty".to_owned(),
        false => format!("but {}", first_names(&names)),
    }
}

/// SHA-256 of the bytes of all weight files of a checkpoint, in hexadecimal.
///
/// # Errors
/// There is no such file, or one cannot be read.
pub fn weights_hash(dir: &Path) -> Result<String, Error> {
    let mut hash = Sha256::new();
    let files = if is_gguf(dir) { vec![dir.to_owned()] } else { files_of(dir, MODEL_STEM)? };
    for path in files {
        let failed = calm_files::Error::read(&path);
        let mut file = File::open(&path).map_err(&failed)?;
        let mut block = vec![0; HASHED_BYTES];
        loop {
            match file.read(&mut block) {
                Ok(0) => break,
                Ok(length) => hash.update(&block[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error).into()),
            }
        }
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
    fingerprint_with(dir, &weights_hash(dir)?)
}

/// The same where the hash of the weight files is known.
pub(crate) fn fingerprint_with(dir: &Path, weights_hash: &str) -> Result<String, Error> {
    let mut hash = Sha256::new_with_prefix(weights_hash);
    let dir = &folder_of(dir);
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

/// The part of a loaded model's fingerprint that [`fingerprint`] gives for its checkpoint, without the types
/// that its weights, or keys and values, may have been rounded to.
pub fn checkpoint_fingerprint(of_model: &str) -> &str {
    of_model.rsplit('-').next().unwrap_or(of_model)
}

/// The files `calm.*` of a checkpoint, in order of their names.
fn measure_files(dir: &Path) -> Result<Vec<PathBuf>, calm_files::Error> {
    let mut files = Vec::new();
    if !dir.is_dir() {
        return Ok(files);
    }
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
