//! A headless Chromium (Debian package `chromium`), told what to do through the protocol of its developer tools, on pipes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A browser with one page.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    last: u64,
    session: Option<String>,
    events: Vec<Value>,
    _profile: TempDir,
}

/// Where an ordinary look at a page is taken.
const DESK: (u32, u32) = (1280, 800);

impl Browser {
    /// `None` where there is no Chromium, which is said.
    pub fn start() -> Option<Browser> {
        let profile = tempfile::Builder::new().prefix("stacker-browser-").tempdir().unwrap();
        // Descriptors 3 and 4 are the pipes.
        let script =
            "command -v chromium > /dev/null || exit 0; exec chromium \"$@\" 3<&0 4>&1 < /dev/null > /dev/null 2>&1";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
        command.args(["--disable-dev-shm-usage", "--disable-background-networking", "--remote-debugging-pipe"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let (last, session, events) = (0, None, Vec::new());
        let mut browser = Browser { child, to, from, last, session, events, _profile: profile };
        if browser.ask("Target.getTargets", json!({})).is_none() {
            super::skipped("pages in a browser: there is no chromium (Debian package `chromium`)");
            return None;
        }
        let target = browser.tell("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = browser.tell("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.tell(&format!("{domain}.enable"), json!({}));
        }
        browser.size(DESK);
        Some(browser)
    }

    /// The size of the window in CSS pixels.
    pub fn size(&mut self, (width, height): (u32, u32)) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.tell("Emulation.setDeviceMetricsOverride", size);
    }

    /// `screen` or `print`, `light` or `dark`.
    pub fn medium(&mut self, medium: &str, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.tell("Emulation.setEmulatedMedia", json!({"media": medium, "features": features}));
    }

    /// Whether pages may run scripts.
    pub fn scripts(&mut self, allowed: bool) {
        self.tell("Emulation.setScriptExecutionDisabled", json!({"value": !allowed}));
    }

    /// Opens a file, and waits until it is all there.
    pub fn open(&mut self, path: &Path) {
        self.events.clear();
        self.tell("Page.navigate", json!({"url": format!("file://{}", path.display())}));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.read().expect("the browser lives");
            self.events.push(event);
        }
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        let told = self.tell("Runtime.evaluate", json!({"expression": expression, "returnByValue": true}));
        assert!(told["exceptionDetails"].is_null(), "{expression}: {told:#}");
        told["result"]["value"].clone()
    }

    /// Presses keys by their names, one after the other.
    pub fn press(&mut self, keys: &[&str]) {
        for key in keys {
            let code = match *key {
                "Tab" => 9,
                "Enter" => 13,
                "Escape" => 27,
                "End" => 35,
                "Home" => 36,
                "ArrowLeft" => 37,
                "ArrowUp" => 38,
                "ArrowRight" => 39,
                "ArrowDown" => 40,
                other => panic!("no such key: {other}"),
            };
            let text = if *key == "Enter" { "\r" } else { "" };
            let down = json!({"type": "keyDown", "key": key, "windowsVirtualKeyCode": code, "text": text});
            self.tell("Input.dispatchKeyEvent", down);
            self.tell("Input.dispatchKeyEvent", json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code}));
        }
    }

    /// Types a text where the focus is.
    pub fn type_text(&mut self, text: &str) {
        self.tell("Input.insertText", json!({"text": text}));
    }

    /// What the page complained of since it was opened, and what it asked the network for.
    pub fn complaints(&mut self) -> Vec<String> {
        // Whatever was on its way is here once an answer is.
        self.value("0");
        let complaint = |event: &Value| match event["method"].as_str()? {
            "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded" => Some(event.to_string()),
            "Network.requestWillBeSent" => {
                let request = &event["params"];
                let url = request["request"]["url"].as_str()?;
                let own = url.starts_with("data:") || request["type"] == "Document";
                (!own).then(|| url.to_owned())
            }
            _ => None,
        };
        self.events.iter().filter_map(complaint).collect()
    }

    #[track_caller]
    fn tell(&mut self, method: &str, parameters: Value) -> Value {
        let answer = self.ask(method, parameters.clone()).expect("the browser lives");
        assert!(answer["error"].is_null(), "{method} {parameters}: {answer}");
        answer["result"].clone()
    }

    /// `None`: the browser has gone.
    fn ask(&mut self, method: &str, parameters: Value) -> Option<Value> {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).ok()?;
        loop {
            let message = self.read()?;
            if message["id"] == json!(self.last) {
                return Some(message);
            }
            self.events.push(message);
        }
    }

    fn read(&mut self) -> Option<Value> {
        let mut bytes = Vec::new();
        self.from.read_until(0, &mut bytes).ok().filter(|count| *count > 0)?;
        serde_json::from_slice(bytes.strip_suffix(b"\0")?).ok()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.session = None;
        let _ = self.ask("Browser.close", json!({}));
        let _ = self.child.wait();
    }
}
