//! The program on a terminal, and somebody who types.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::space::Space;

/// A command line on a terminal of its own. It is `script` that makes the terminal.
pub struct Terminal {
    child: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

const PATIENCE: Duration = Duration::from_secs(30);

impl Terminal {
    /// Runs a command line of sh, in which `$STACKER` is the program with its directories.
    pub fn start(space: &Space, line: &str) -> Terminal {
        let mut command = space.other_program(&["script", "--quiet", "--return", "--command", line, "/dev/null"]);
        command.env("SHELL", "/bin/sh").env("TERM", "vt100").env("STACKER", space.command_line());
        let mut child = command.stdin(Stdio::piped()).spawn().expect("script (of bsdutils) is installed");
        let (keys, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let shown = Arc::new(Mutex::new(String::new()));
        let copy = shown.clone();
        let reader = std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut part) {
                copy.lock().unwrap().push_str(&String::from_utf8_lossy(&part[..length]));
            }
        });
        Terminal { child, keys, shown, reader: Some(reader) }
    }

    /// Types.
    pub fn types(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until a text is shown. What is typed is shown too.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        let start = Instant::now();
        while !self.text().contains(text) {
            let shown = self.text();
            assert!(start.elapsed() < PATIENCE, "{text:?} is not shown, but this:\n{shown}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Types a line and waits for what it prints.
    #[track_caller]
    pub fn enters(&mut self, line: &str, text: &str) {
        self.types(&format!("{line}\n"));
        self.shows(text);
    }

    /// All that was shown so far.
    pub fn text(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    /// The exit code of the command line, and all that was shown.
    #[track_caller]
    pub fn ends(mut self) -> (i32, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end; shown is:\n{}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        };
        self.reader.take().unwrap().join().unwrap();
        (status.code().unwrap(), self.text())
    }
}

impl Drop for Terminal {
    /// Hangs up.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
