//! `calm.heads.safetensors`, the exit heads that lie beside a backbone.
//!
//! The metadata of the file has one key, `calm`, with a JSON document: version, kind, the hash of the
//! backbone's weights, the epsilon of the norms, what the heads were trained on, and how they fared. Tensors
//! are called `layer.N.NAME`. The tokens that heads know, where these are a part of the vocabulary, are the
//! tensor `vocabulary`; what says how likely a head's token is the last layer's, where that was trained, is
//! `layer.N.confidence`: the weights of the state, that of the margin, and what is added.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use calm_core::{BackboneShape, ExitHead, ExitHeads, FittedTo, HeadConfidence, HeadKind, Matrix, Token};
use calm_files::hex;
use half::bf16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::safetensors_file::SafetensorsFile;
use crate::weight_file::tensor_type;
use crate::weight_files::{first_not_finite, position};

/// The file beside a backbone that has its exit heads.
pub const HEADS_FILE: &str = "calm.heads.safetensors";

/// The only version of the file that there is.
const VERSION: u32 = 1;

/// The tensor that has the tokens which heads know.
const VOCABULARY: &str = "vocabulary";

/// The part of a layer's head that says how likely its token is the last layer's.
const CONFIDENCE: &str = "confidence";

/// The key of the metadata.
const KEY: &str = "calm";

/// What the file says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct About {
    version: u32,
    kind: HeadKind,
    /// [`weights_hash`](crate::weights_hash) of the backbone that the heads were trained for.
    backbone: String,
    /// What the heads' own norms add to the mean square.
    epsilon: f32,
    fitted_to: FittedTo,
    /// How the heads fared where they were not trained.
    scores: Value,
}

/// Reads the exit heads that lie beside a backbone; `None` if there are none.
///
/// `weights_hash` gives the hash of the backbone's weights and is not asked where there are no heads.
///
/// # Errors
/// Fails if the file cannot be read or is damaged, if the heads were trained for other weights, or if they do
/// not fit the backbone.
pub fn read_exit_heads(
    dir: &Path,
    shape: &BackboneShape,
    weights_hash: impl FnOnce() -> Result<String, Error>,
) -> Result<Option<ExitHeads>, Error> {
    let path = dir.join(HEADS_FILE);
    if !path.is_file() {
        return Ok(None);
    }
    let failed = |reason: String| Error::ExitHeads { path: path.clone(), reason };
    let file = SafetensorsFile::open(&path)?;
    let about = file.notes().find(|(key, _)| *key == KEY).map(|(_, text)| text);
    let about = about.ok_or_else(|| failed("does not say that it holds exit heads".to_owned()))?;
    let version = serde_json::from_str::<Value>(about).ok().and_then(|about| about.get("version")?.as_u64());
    if version != Some(VERSION.into()) {
        return Err(failed(format!("is of a version that is not {VERSION}")));
    }
    let about: About = serde_json::from_str(about).map_err(|error| failed(format!("is damaged: {error}")))?;
    if about.backbone != weights_hash()? {
        return Err(failed(
            "holds exit heads that were trained for other weights than those beside it: train them anew with \
             `calm train --heads --overwrite`, or remove the file"
                .to_owned(),
        ));
    }
    let mut tensors: BTreeMap<usize, BTreeMap<String, Matrix>> = BTreeMap::new();
    let mut vocabulary = None;
    for (name, info) in file.tensors() {
        let of_type = || failed(format!("has a tensor {name} of the type {:?}", info.dtype));
        if name == VOCABULARY {
            vocabulary = Some(to_tokens(&file.read(info)?, info.dtype).ok_or_else(of_type)?);
            continue;
        }
        let Some((layer, part)) = split(&name) else {
            return Err(failed(format!("has a tensor {name}, which is no part of a head")));
        };
        let bytes = file.read(info)?;
        let (numbers, tensor_type) =
            to_f32(&bytes, info.dtype).zip(tensor_type(info.dtype)).ok_or_else(of_type)?;
        if let Some((index, value)) = first_not_finite(&bytes, tensor_type) {
            let index = position(index, &info.shape);
            return Err(Error::NotFinite { path: path.clone(), name, value, index });
        }
        let columns = info.shape.last().copied().unwrap_or(1);
        if info.shape.len() > 2 {
            return Err(failed(format!("has a tensor {name} of the shape {:?}", info.shape)));
        }
        tensors.entry(layer).or_default().insert(part.to_owned(), Matrix { data: numbers, columns });
    }
    let (mut heads, mut confidences) = (BTreeMap::new(), BTreeMap::new());
    for (layer, mut parts) in tensors {
        let head = ExitHead::of_tensors(about.kind, about.epsilon, |part| {
            let lacks = || failed(format!("lacks the tensor layer.{layer}.{part}"));
            parts.remove(part).ok_or_else(lacks)
        })?;
        if let Some(Matrix { mut data, .. }) = parts.remove(CONFIDENCE) {
            let (Some(bias), Some(margin)) = (data.pop(), data.pop()) else {
                return Err(failed(format!("has a tensor layer.{layer}.{CONFIDENCE} of too few numbers")));
            };
            confidences.insert(layer, HeadConfidence { weight: data, margin, bias });
        }
        if let Some(part) = parts.keys().next() {
            return Err(failed(format!(
                "has a tensor layer.{layer}.{part}, which is no part of a {} head",
                about.kind
            )));
        }
        heads.insert(layer, head);
    }
    let does_not_fit = |reason| failed(format!("does not fit the backbone beside it: {reason}"));
    let mut heads = ExitHeads::new(heads, vocabulary, about.fitted_to, shape).map_err(does_not_fit)?;
    if !confidences.is_empty() {
        heads = heads.with_confidences(confidences, shape).map_err(does_not_fit)?;
    }
    Ok(Some(heads.with_fingerprint(&hex(&Sha256::digest(calm_files::read(&path)?)))))
}

/// Writes the exit heads of a backbone whose weights have the hash `backbone`, in bf16, with what they
/// scored. Confidences are written in f32.
///
/// # Errors
/// Fails if the file cannot be written.
pub fn write_exit_heads(dir: &Path, heads: &ExitHeads, backbone: &str, scores: Value) -> Result<(), Error> {
    let path = dir.join(HEADS_FILE);
    let (mut blobs, mut epsilon) = (Vec::new(), 0.0);
    for (layer, head) in heads.iter() {
        epsilon = head.epsilon();
        for (part, shape, numbers) in head.tensors() {
            let bytes: Vec<u8> = numbers.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
            blobs.push((format!("layer.{layer}.{part}"), Dtype::BF16, shape, bytes));
        }
        if let Some(HeadConfidence { weight, margin, bias }) = heads.confidence(layer) {
            let numbers = weight.iter().chain([margin, bias]);
            let bytes = numbers.flat_map(|x| x.to_le_bytes()).collect();
            blobs.push((format!("layer.{layer}.{CONFIDENCE}"), Dtype::F32, vec![weight.len() + 2], bytes));
        }
    }
    if let Some(tokens) = heads.vocabulary() {
        let bytes = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        blobs.push((VOCABULARY.to_owned(), Dtype::U32, vec![tokens.len()], bytes));
    }
    let about = About {
        version: VERSION,
        kind: heads.kind(),
        backbone: backbone.to_owned(),
        epsilon,
        fitted_to: heads.fitted_to().clone(),
        scores,
    };
    let text = serde_json::to_string(&about)
        .map_err(|error| Error::ExitHeads { path: path.clone(), reason: error.to_string() })?;
    let invalid = |source| Error::Safetensors { path: path.clone(), source };
    let views = blobs.iter().map(|(name, dtype, shape, bytes)| {
        Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(invalid)?;
    // One key: several would be in an order that changes from run to run.
    let metadata = HashMap::from([(KEY.to_owned(), text)]);
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(invalid)?;
    Ok(calm_files::write(&path, bytes)?)
}

/// A number as the file will have it: rounded to bf16, halves to even.
pub fn rounded_to_file(number: f32) -> f32 {
    bf16::from_f32(number).to_f32()
}

/// The layer and the part that a tensor's name says.
fn split(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix("layer.")?.split_once('.')?;
    Some((layer.parse().ok()?, part))
}

/// The numbers of a tensor, or `None` for a type that weights cannot have.
fn to_f32(bytes: &[u8], dtype: Dtype) -> Option<Vec<f32>> {
    match dtype {
        Dtype::F32 => Some(bytes.as_chunks().0.iter().map(|&bits| f32::from_le_bytes(bits)).collect()),
        Dtype::BF16 => {
            Some(bytes.as_chunks().0.iter().map(|&bits| bf16::from_le_bytes(bits).to_f32()).collect())
        }
        _ => None,
    }
}

/// The tokens of a tensor, or `None` for a type that these cannot have.
fn to_tokens(bytes: &[u8], dtype: Dtype) -> Option<Vec<Token>> {
    let is_tokens = dtype == Dtype::U32;
    is_tokens.then(|| bytes.as_chunks().0.iter().map(|&bits| Token::from_le_bytes(bits)).collect())
}
