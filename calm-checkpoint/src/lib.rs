//! Checkpoints of T5 and Llama in the layout of Hugging Face transformers, as every engine reads them.
//!
//! They consist of `config.json`, `tokenizer.json`, weight files, and the rules about them that are not
//! written in any of these.

mod cache_type;
mod chat;
mod config_keys;
mod error;
mod exit_heads;
mod files;
mod gguf;
mod llama;
mod model;
mod model_type;
mod network;
mod safetensors_file;
mod shared_head;
mod sources;
mod t5;
mod tensor_names;
mod tokenizer;
mod weight_file;
mod weight_files;
mod weight_type;

pub use crate::cache_type::CacheType;
pub use crate::chat::{ChatOptions, ChatTemplate, Message};
pub use crate::error::Error;
pub use crate::exit_heads::{HEADS_FILE, read_exit_heads, rounded_to_file, write_exit_heads};
pub use crate::files::{
    MODEL_STEM, checkpoint_fingerprint, files_of, fingerprint, folder_of, is_gguf, weights_hash,
};
pub use crate::gguf::{GgufNames, GgufTokens, gguf_config, halves_of_pairs};
pub use crate::llama::{EMBED_TOKENS, LLAMA_MODEL_TYPES, LlamaConfig, RopeScaling};
pub use crate::model::{EngineKind, LoadOptions, Loader, Model, Teamwork};
pub use crate::model_type::{Naming, model_type};
pub use crate::network::{NetworkConfig, Parameter, load_config};
pub use crate::safetensors_file::SafetensorsFile;
pub use crate::shared_head::{HeadParts, SharedHead};
pub use crate::sources::{
    Kept, check_context, check_sources, cut_source, source_hash, source_seed, trained_source_tokens,
};
pub use crate::t5::{
    DECODER_EMBEDDING, Direction, ENCODER_EMBEDDING, FeedForward, SHARED, T5_MODEL_TYPES, T5Config, bucket,
};
pub use crate::tensor_names::{CLASSIFIER_BIAS, CLASSIFIER_WEIGHT, HEAD, first_names};
pub use crate::tokenizer::{SpecialTokens, Tokenizer};
pub use crate::weight_files::{StoredTensor, WeightFiles};
pub use crate::weight_type::WeightType;
