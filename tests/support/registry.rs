//! A registry of its own for one test, on a loopback port.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// docker-registry (the Debian package of that name), which ends when this is dropped.
pub struct Registry {
    process: Child,
    address: String,
    _data: tempfile::TempDir,
}

impl Registry {
    /// Starts one and waits until it listens.
    pub fn start() -> Registry {
        let data = tempfile::tempdir().unwrap();
        let (config, log) = (data.path().join("config.yml"), data.path().join("log"));
        let blobs = data.path().join("data").display().to_string();
        // The kernel chooses the port, so that it is free.
        let text = format!(
            "version: 0.1\nlog: {{level: info, formatter: text}}\nhttp: {{addr: '127.0.0.1:0'}}\n\
             storage: {{filesystem: {{rootdirectory: '{blobs}'}}}}\n"
        );
        fs::write(&config, text).unwrap();
        // Should the tests be killed, it is killed with them.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "docker-registry", "serve"]).arg(&config).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        let process = command.spawn().expect("setpriv (of util-linux) is installed");
        let mut registry = Registry { process, address: String::new(), _data: data };
        registry.address = registry.wait_for_address(&log);
        registry
    }

    /// `HOST:PORT`, for plain HTTP.
    pub fn address(&self) -> &str {
        &self.address
    }

    fn wait_for_address(&mut self, log: &Path) -> String {
        let begun = Instant::now();
        loop {
            let text = fs::read_to_string(log).unwrap();
            let after = text.split_once("listening on ").map(|(_, after)| after);
            if let Some((address, _)) = after.and_then(|after| after.split_once('"')) {
                return address.to_owned();
            }
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "docker-registry has ended ({}):\n{text}", ended.unwrap());
            assert!(begun.elapsed() < Duration::from_secs(60), "docker-registry does not listen:\n{text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
