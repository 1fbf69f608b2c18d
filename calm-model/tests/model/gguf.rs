//! GGUF files: the same network as in Hugging Face's layout.

use calm_checkpoint::{HEADS_FILE, fingerprint};
use calm_model::Llama;

use crate::reference::{load_from, tolerance};
use crate::shared::{GGUF_F32, cases_of_gguf, check_alone, check_in_batches};
use crate::{checkpoint, device};

#[test]
fn files_of_f32_are_the_checkpoints_that_they_were_made_of() {
    for name in GGUF_F32 {
        let path = checkpoint(name).join("model-F32.gguf");
        let (model, cases) = (load_from(name, &path), cases_of_gguf(name));
        assert_eq!(model.fingerprint(), fingerprint(&path).unwrap());
        assert_eq!(model.unexpected(), &[] as &[String]);
        check_alone(&*model, &cases, tolerance());
        check_in_batches(&*model, &cases, tolerance());
    }
}

/// Files `calm.*` lie in a folder of the file's name.
#[test]
fn what_belongs_to_a_file_lies_in_a_folder_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.gguf");
    std::fs::copy(checkpoint("llama_gqa_tied").join("model-Q8_0.gguf"), &path).unwrap();
    assert!(Llama::load(&path, device()).is_ok());
    let beside = folder.path().join("some.calm");
    std::fs::create_dir(&beside).unwrap();
    std::fs::write(beside.join(HEADS_FILE), "no heads").unwrap();
    let error = Llama::load(&path, device()).err().unwrap().to_string();
    assert!(error.contains(HEADS_FILE), "{error}");
}
