//! `calm serve`: its answers are the lines of `calm generate`, whoever asks beside.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use serde_json::{Value, json};

use crate::command::{calm, complaint, generate, printed, reference_checkpoint};

const LINES: &str = "application/jsonl";
const SINGLE: &str = "application/json";

/// A server that is killed at the end of its test, if it has not ended by then.
struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: String,
}

impl Server {
    fn start(model: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_calm"))
            .args(["serve", "--device", "cpu", "--port", "0", "--model"])
            .arg(model)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut server = Self { child, stderr, address: String::new() };
        let line = server.told("serving ");
        server.address = line.trim_end().rsplit_once(" at http://").unwrap().1.to_owned();
        server
    }

    /// The next line on standard error that begins so.
    #[track_caller]
    fn told(&mut self, start: &str) -> String {
        let mut all = String::new();
        loop {
            let mut line = String::new();
            assert!(self.stderr.read_line(&mut line).unwrap() > 0, "{all}");
            if line.starts_with(start) {
                return line;
            }
            all += &line;
        }
    }

    fn ask(&self, method: &str, path: &str, content_type: Option<&str>, body: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut request =
            ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let mut response = agent.run(request.body(body.as_bytes()).unwrap()).unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    /// The answer to one line.
    #[track_caller]
    fn answer(&self, line: &str) -> String {
        let (status, text) = self.ask("POST", "/generate", Some(SINGLE), line);
        assert_eq!(status, 200, "{text}");
        text
    }

    /// The answer to many lines.
    #[track_caller]
    fn answers(&self, lines: &str) -> String {
        let (status, text) = self.ask("POST", "/generate", Some(LINES), lines);
        assert_eq!(status, 200, "{text}");
        text
    }

    fn metric(&self, name: &str) -> f64 {
        let (status, text) = self.ask("GET", "/metrics", None, "");
        assert_eq!(status, 200);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
    }

    fn wait_for(&self, name: &str, value: f64) {
        while self.metric(name) != value {
            std::thread::yield_now();
        }
    }

    /// A connection that sends this and is left open.
    fn open(&self, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    /// A request for many lines that has not ended.
    fn open_lines(&self) -> TcpStream {
        self.open(&format!(
            "POST /generate HTTP/1.1\r\nhost: {}\r\ncontent-type: {LINES}\r\ntransfer-encoding: chunked\r\n\r\n",
            self.address
        ))
    }

    #[cfg(unix)]
    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/debian-en-fr")
}

/// Whether this process ignores Ctrl-C, as background jobs of a shell's script do: so does what it starts.
#[cfg(unix)]
fn ignores_interruptions() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & 2 != 0)
}

/// Lines of all lengths and forms that a model of texts reads.
fn text_lines() -> Vec<String> {
    let words: Vec<&str> =
        "a free mail reader for the terminal with support of many protocols and languages \
                            that shows pictures, plays music and keeps files on other machines"
            .split(' ')
            .collect();
    (0..30)
        .map(|index| {
            let text = words[index % 7..][..1 + index * 5 % 15].join(" ");
            match index % 3 {
                0 => json!({ "id": index, "source": text }).to_string(),
                1 => json!({ "prompt": format!("translate English to French: {text}") }).to_string(),
                _ => format!(
                    "{{\"input_ids\": [{}, 7, 8, 9, 1], \"z\": 1e0, \"a\": [ \"{index}\" ]}}",
                    3 + index
                ),
            }
        })
        .collect()
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A source on which the model spends minutes.
fn endless() -> (PathBuf, [&'static str; 8], String) {
    let arguments = ["--max-tokens", "1000000", "--batch-size", "1", "--workers", "1", "--queue", "1"];
    (reference_checkpoint("v1_1"), arguments, json!({ "input_ids": [5, 6, 1] }).to_string())
}

#[test]
fn answers_are_the_lines_of_generate_whoever_asks_beside() {
    let arguments =
        ["--policy", "calm-agreement-0.9", "--prefix", "translate English to French: ", "--max-tokens", "16"];
    let lines = text_lines();
    let all = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let expected = printed(generate(&bundled(), &arguments, &all));
    let expected_lines: Vec<String> = expected.lines().map(|line| format!("{line}\n")).collect();
    let server = Server::start(&bundled(), &[&arguments[..], &["--batch-size", "4"]].concat());
    std::thread::scope(|scope| {
        let (server, lines, all, expected, expected_lines) =
            (&server, &lines, &all, &expected, &expected_lines);
        for client in 0..12 {
            scope.spawn(move || {
                for turn in 0..lines.len() {
                    let index = (turn * 7 + client * 11) % lines.len();
                    assert_eq!(server.answer(&lines[index]), expected_lines[index]);
                }
            });
            scope.spawn(move || assert_eq!(&server.answers(all), expected));
        }
    });
    let asked = 24.0 * lines.len() as f64;
    assert_eq!(server.metric("calm_requests_total{code=\"200\"}"), 12.0 * lines.len() as f64 + 12.0);
    assert_eq!(server.metric("calm_sources_total"), asked);
    assert_eq!(server.metric("calm_queue_sources"), 0.0);
    let batches = server.metric("calm_batches_total");
    assert!(batches >= asked / 4.0 && batches < asked, "{batches}");
    let values: Vec<Value> = expected.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sum = |of: &dyn Fn(&Value) -> f64| values.iter().map(of).sum::<f64>() * 24.0;
    let tokens = |value: &Value| value["tokens"].as_array().unwrap().len() as f64;
    assert_eq!(server.metric("calm_tokens_total"), sum(&tokens));
    let layers = sum(&|value| tokens(value) * value["average_layers"].as_f64().unwrap());
    assert!((server.metric("calm_exit_layers_total") - layers).abs() < 1e-6 * layers);
}

#[test]
fn other_keys_come_back_as_they_are() {
    let model = reference_checkpoint("v1_1");
    let line = r#"{"z": 12345678901234567890123, "input_ids": [5, 6, 1], "id": {"b": 1.0, "a": null}}"#;
    let expected = printed(generate(&model, &["--max-tokens", "3"], line));
    let start = r#"{"id":{"b": 1.0, "a": null},"z":12345678901234567890123,"tokens":["#;
    assert!(expected.starts_with(start), "{expected}");
    let server = Server::start(&model, &["--max-tokens", "3"]);
    assert_eq!(server.ask("POST", "/generate", None, line), (200, expected));

    let own = r#"{"input_ids": [5], "exit_layers": 3}"#;
    let message = "the key exit_layers is one of the output's own, and cannot be carried there";
    assert_eq!(complaint(&generate(&model, &[], own)), format!("standard input:1: {message}"));
    let (status, text) = server.ask("POST", "/generate", None, own);
    assert_eq!((status, text), (400, format!("{}\n", json!({ "error": message }))));
}

#[test]
fn mistakes() {
    let server = Server::start(&reference_checkpoint("v1_1"), &["--max-tokens", "3", "--max-request", "100"]);
    let long = format!("{{\"input_ids\": [5], \"a\": \"{}\"}}", "b".repeat(100));
    for (method, path, content_type, body, status, expected) in [
        (
            "POST",
            "/generate",
            None,
            "{\"input_ids\": [5,",
            400,
            "EOF while parsing a value at line 1 column 17",
        ),
        ("POST", "/generate", Some(SINGLE), "", 400, "EOF while parsing a value"),
        (
            "POST",
            "/generate",
            Some("Application/JSON; charset=utf-8"),
            "7",
            400,
            "expected an object with source",
        ),
        ("POST", "/generate", None, "{\"text\": \"a\"}", 400, "expected exactly one of source, prompt"),
        ("POST", "/generate", None, "{\"source\": \"a\"}", 400, "holds no tokenizer.json, which texts need"),
        ("POST", "/generate", None, "{\"input_ids\": []}", 400, "the source has no tokens"),
        ("POST", "/generate", None, "{\"input_ids\": [211]}", 400, "token 211 is not in the vocabulary"),
        ("POST", "/generate", None, "{\"a\": 1, \"a\": 1}", 400, "duplicate field `a`"),
        ("POST", "/generate", None, &long, 413, "more than 100 bytes: --max-request allows no more"),
        ("POST", "/generate", Some("text/plain"), "{}", 415, "not text/plain"),
        ("GET", "/generate", None, "", 405, "/generate is for POST"),
        ("POST", "/health", None, "", 405, "/health and /metrics are for GET"),
        ("GET", "/", None, "", 404, "there are /generate, /health and /metrics"),
    ] {
        let (found, text) = server.ask(method, path, content_type, body);
        assert_eq!(found, status, "{method} {path} {body}: {text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(value["error"].as_str().unwrap().contains(expected), "{text}, not {expected}");
    }
    assert_eq!(server.metric("calm_requests_total{code=\"400\"}"), 8.0);
    assert_eq!(server.metric("calm_sources_total"), 0.0);
}

#[test]
fn a_bad_line_has_its_error_in_its_place() {
    let model = reference_checkpoint("v1_1");
    let server = Server::start(&model, &["--max-tokens", "3", "--max-request", "100"]);
    let [good, other] = ["{\"input_ids\": [5]}", "{\"input_ids\": [6, 7]}"];
    let expected = printed(generate(&model, &["--max-tokens", "3"], &format!("{good}\n{other}\n")));
    let [of_good, of_other] = expected.lines().collect::<Vec<_>>()[..] else { panic!("{expected}") };
    let long = "x".repeat(300);
    let found =
        server.answers(&format!("{good}\r\n\n{{\n{other}\n{long}\n  \n{{\"input_ids\": [-1]}}\n{other}"));
    let error = |message: &str| json!({ "error": message }).to_string();
    let expected = [
        of_good.to_owned(),
        error("line 3: EOF while parsing an object at column 1"),
        of_other.to_owned(),
        error("line 5: more than 100 bytes: --max-request allows no more"),
        error("line 7: invalid value: integer `-1`, expected u32 at column 17"),
        of_other.to_owned(),
    ];
    assert_eq!(found.lines().collect::<Vec<_>>(), expected);
    assert_eq!(server.answers("\n"), "");
}

#[test]
fn the_server_says_what_decodes() {
    let server = Server::start(&reference_checkpoint("v1_1"), &["--policy", "static-2", "--threads", "2"]);
    let (status, text) = server.ask("GET", "/health", None, "");
    let health: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &health["status"], &health["policy"]), (200, &json!("ok"), &json!("static-2")));
    assert_eq!((&health["engine"], &health["workers"]), (&json!("cpu f32"), &json!(2)));
    assert_eq!(health["certified"], Value::Null);

    let serve = |arguments: &[&str]| {
        let model = reference_checkpoint("v1_1");
        let common = ["serve", "--device", "cpu", "--model", model.to_str().unwrap()];
        complaint(&calm([&common, arguments].concat(), ""))
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    assert!(serve(&["--port", &port]).starts_with(&format!("cannot listen at 127.0.0.1:{port}: ")));
    assert_eq!(serve(&["--port", "0", "--queue", "0"]), "--queue is 0, but must be at least 1");
    assert!(serve(&["--port", "0", "--policy", "shallow-deep-beta-2-0.9"]).contains("learns from outputs"));
}

#[test]
fn a_full_queue_refuses_and_forgets_whoever_goes() {
    let (model, arguments, line) = endless();
    let server = Server::start(&model, &arguments);
    let request =
        format!("POST /generate HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{line}", line.len());
    let _decoded = server.open(&request);
    server.wait_for("calm_decoding_sources", 1.0);
    let waiting = server.open(&request);
    server.wait_for("calm_queue_sources", 1.0);
    let mut refused = server.open(&request);
    let mut answer = [0; 600];
    let length = refused.read(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
    assert!(answer.starts_with("http/1.1 503 ") && answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert_eq!(server.ask("POST", "/generate", Some(LINES), &line).0, 503);
    drop(waiting);
    server.wait_for("calm_queue_sources", 0.0);
    // Its place is free again.
    let _waiting = server.open(&request);
    server.wait_for("calm_queue_sources", 1.0);
}

#[cfg(unix)]
#[test]
fn a_server_that_is_told_to_end_answers_what_it_was_asked() {
    use std::os::unix::process::ExitStatusExt;

    let model = reference_checkpoint("v1_1");
    let line = "{\"input_ids\": [5, 6, 1]}\n";
    let expected = printed(generate(&model, &["--max-tokens", "3"], line));
    // A request whose first line is answered and whose end has not come.
    let begin = |server: &Server| {
        let mut lines = server.open_lines();
        lines.write_all(chunk(line).as_bytes()).unwrap();
        let mut answers = BufReader::new(lines.try_clone().unwrap());
        let mut found = String::new();
        while !found.contains(&expected) {
            assert!(answers.read_line(&mut found).unwrap() > 0, "{found}");
        }
        (lines, answers)
    };
    for signal in ["-INT", "-TERM"] {
        if signal == "-INT" && ignores_interruptions() {
            continue;
        }
        let mut server = Server::start(&model, &["--max-tokens", "3"]);
        let _idle = server.open("");
        let (mut lines, mut answers) = begin(&server);
        server.signal(signal);
        server.told("note: ending when all that was asked is answered");
        while TcpStream::connect(&server.address).is_ok() {
            std::thread::yield_now();
        }
        lines.write_all((chunk(line) + "0\r\n\r\n").as_bytes()).unwrap();
        let mut rest = String::new();
        answers.read_to_string(&mut rest).unwrap();
        assert!(rest.contains(&expected), "{rest}");
        assert_eq!(server.end().code(), Some(0));
    }

    let mut server = Server::start(&model, &["--max-tokens", "3"]);
    let _lines = begin(&server);
    server.signal("-TERM");
    server.told("note: ending");
    server.signal("-TERM");
    assert_eq!(server.end().signal(), Some(15));
}
