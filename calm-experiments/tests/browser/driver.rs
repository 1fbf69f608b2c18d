//! A headless Chromium, spoken to by WebDriver (<https://www.w3.org/TR/webdriver2/>).

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

/// What elements are called in JSON (section 12.2 of the standard).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one page, which is closed when this is dropped.
pub(crate) struct Browser {
    process: Child,
    /// `http://127.0.0.1:PORT/session/ID`.
    session: String,
}

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    /// Width of the window in CSS pixels.
    pub(crate) width: u32,
    /// `light` or `dark`.
    pub(crate) scheme: &'static str,
}

impl Browser {
    /// Starts a browser, or fails and says how to get one.
    pub(crate) fn start() -> Self {
        let driver = std::env::var("CHROMEDRIVER").unwrap_or_else(|_| "chromedriver".to_owned());
        let process =
            Command::new(&driver).arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut process = process.unwrap_or_else(|error| {
            panic!("{driver}: {error}: run scripts/setup-chromium.sh, or set CALM_NO_BROWSER=1 to go without")
        });
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        // Its first lines end in "on port 12345.".
        let port = lines
            .map_while(Result::ok)
            .find_map(|line| {
                line.trim_end_matches('.')
                    .rsplit_once("successfully on port ")
                    .map(|(_, port)| port.to_owned())
            })
            .expect("chromedriver says its port");
        let options =
            json!({ "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
        let capabilities = json!({ "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let mut browser = Self { process, session: format!("http://127.0.0.1:{port}/session") };
        let session = browser.post("", json!({ "capabilities": { "alwaysMatch": capabilities } }));
        browser.session += &format!("/{}", session["sessionId"].as_str().unwrap());
        browser
    }

    /// Opens a file.
    pub(crate) fn open(&self, page: &Path) {
        let url = format!("file://{}", page.display());
        self.post("/url", json!({ "url": url }));
        // A busy machine may answer before the page is there.
        let is_there = || self.run("return [location.href, document.readyState]") == json!([url, "complete"]);
        assert!((0..10_000).any(|_| is_there()), "{url} was not loaded");
    }

    /// Makes the window as wide and as high as a screen.
    pub(crate) fn show_on(&self, screen: Screen) {
        let Screen { width, scheme } = screen;
        let media = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": media }));
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// Asks the browser's own protocol.
    pub(crate) fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", json!({ "cmd": command, "params": parameters }))
    }

    /// Takes a picture of the whole page, which people may look at.
    pub(crate) fn picture(&self, path: &Path) {
        let shot = json!({ "format": "png", "captureBeyondViewport": true });
        let picture = self.devtools("Page.captureScreenshot", shot);
        let png = BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        std::fs::write(path, png).unwrap();
    }

    /// Runs the body of a function in the page.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({ "script": script, "args": [] }))
    }

    /// As [`run`](Self::run), for a function that gives a text.
    pub(crate) fn text(&self, script: &str) -> String {
        self.run(script).as_str().unwrap_or_default().to_owned()
    }

    /// Clicks the first element of a CSS selector.
    pub(crate) fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.post(&format!("/element/{element}/click"), json!({}));
    }

    /// Writes into the first element of a CSS selector.
    pub(crate) fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.post(&format!("/element/{element}/clear"), json!({}));
        self.post(&format!("/element/{element}/value"), json!({ "text": text }));
    }

    /// Moves the pointer over the first element of a CSS selector.
    pub(crate) fn hover(&self, selector: &str) {
        let origin = json!({ ELEMENT: self.element(selector) });
        let moves = json!([{ "type": "pointerMove", "duration": 0, "x": 0, "y": 0, "origin": origin }]);
        let pointer = json!({ "type": "pointer", "id": "mouse", "parameters": { "pointerType": "mouse" }, "actions": moves });
        self.post("/actions", json!({ "actions": [pointer] }));
    }

    /// Presses keys one after the other, whatever has the focus. Keys without a character have the code
    /// points of the standard's section 17.4.2.
    pub(crate) fn press(&self, keys: &[char]) {
        let strokes: Vec<Value> = keys
            .iter()
            .flat_map(|key| {
                ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() }))
            })
            .collect();
        self.post(
            "/actions",
            json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": strokes }] }),
        );
    }

    /// What the console has heard since it was asked last.
    pub(crate) fn console(&self) -> Vec<Value> {
        let messages = self.post("/se/log", json!({ "type": "browser" }));
        messages.as_array().cloned().unwrap_or_default()
    }

    fn element(&self, selector: &str) -> String {
        let found = self.post("/element", json!({ "using": "css selector", "value": selector }));
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    fn post(&self, path: &str, body: Value) -> Value {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let response = agent.post(format!("{}{path}", self.session)).send(body.to_string());
        let text = response.unwrap().body_mut().with_config().limit(1 << 28).read_to_string().unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        let value = answer["value"].clone();
        assert!(value["error"].is_null(), "{path} {body}: {value}");
        value
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It closes its browser when it ends by itself.
        let _ = ureq::delete(&self.session).call();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
