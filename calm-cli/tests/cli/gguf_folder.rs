//! What is fitted to a GGUF file lies in a folder of its name.

use serde_json::json;

use crate::chat_model;
use crate::command::{calm, complaint, generate, printed};

#[test]
fn maps_of_a_gguf_file_lie_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let model = chat_model::write(folder.path(), Some(chat_model::TEMPLATE));
    let lines = |from: usize| -> String {
        let line = |number| json!({ "source": format!("text {number}"), "target": "a" }).to_string() + "\n";
        (from..from + 24).map(line).collect()
    };
    let [train, held_out] = ["train.jsonl", "held_out.jsonl"].map(|name| folder.path().join(name));
    std::fs::write(&train, lines(0)).unwrap();
    std::fs::write(&held_out, lines(100)).unwrap();
    let run = |command: &str, data: &std::path::Path, arguments: &[&str]| {
        let common = [command, "--engine", "cpu", "--max-tokens", "12", "--model", model.to_str().unwrap()];
        let data = ["--data", data.to_str().unwrap()];
        calm([&common[..], &data, arguments].concat(), "")
    };
    let policy = ["--policy", "calm-agreement-0.5", "--engine", "cpu", "--max-tokens", "5"];
    let input = "{\"prompt\": \"a\"}";
    let said = complaint(&generate(&model, &policy, input));
    assert!(said.contains("needs calm.agreement.json beside the model"), "{said}");
    let said = complaint(&run("tune", &train, &[]));
    assert_eq!(said, "the model has no calm.agreement.json, which `calm fit-confidence` makes");

    let fitted = run("fit-confidence", &train, &[]);
    let printed_files = String::from_utf8(fitted.stdout).unwrap();
    assert!(fitted.status.success(), "{}", String::from_utf8_lossy(&fitted.stderr));
    let beside = folder.path().join("tiny.calm");
    for name in ["calm.agreement.json", "calm.beta.json"] {
        assert!(beside.join(name).is_file(), "{name}");
        assert!(printed_files.contains(beside.join(name).to_str().unwrap()), "{printed_files}");
    }
    assert_eq!(printed(generate(&model, &policy, input)).lines().count(), 1);
    let tuned = run("tune", &train, &["--timed", "2", "--agreement", "0.2"]);
    assert!(tuned.status.success(), "{}", String::from_utf8_lossy(&tuned.stderr));

    // A calibration is of the file with what is beside it, and not from what that was fitted to.
    let certificate = folder.path().join("certificate.json");
    let calibrate = |data: &std::path::Path| {
        let arguments = "--measure agreement --thresholds 0.9,0.5 --delta 0.9 --metric chrf --output";
        let arguments: Vec<&str> = arguments.split(' ').chain([certificate.to_str().unwrap()]).collect();
        run("calibrate", data, &arguments)
    };
    let said = complaint(&calibrate(&train));
    assert!(said.contains("was used to fit the confidence of"), "{said}");
    let output = calibrate(&held_out);
    assert!(certificate.is_file(), "{}", String::from_utf8_lossy(&output.stderr));
    let applied = ["--calibration", certificate.to_str().unwrap(), "--engine", "cpu"];
    assert!(generate(&model, &applied, input).status.success());
    std::fs::write(beside.join("calm.beta.json"), "{}").unwrap();
    let said = complaint(&generate(&model, &applied, input));
    assert!(said.contains("the calibration was made with another model"), "{said}");
}
