//! An authority of a test's own that signs certificates, as companies have them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Made by openssl, in a directory that goes with it.
pub struct Authority {
    directory: tempfile::TempDir,
}

impl Authority {
    /// An authority, and a server's certificate for 127.0.0.1 and localhost that it has signed.
    pub fn new() -> Authority {
        let authority = Authority { directory: tempfile::tempdir().unwrap() };
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        authority.openssl(&format!(
            "req -x509 {key} -keyout ca.key -out ca.pem -days 3650 -subj /CN=stacker-test-authority \
             -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign"
        ));
        authority.openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"));
        let extensions =
            "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n";
        fs::write(authority.path("extensions"), extensions).unwrap();
        let days = "-days 3650 -extfile extensions";
        authority.openssl(&format!("x509 -req -in server.csr -CA ca.pem -CAkey ca.key {days} -out server.pem"));
        authority
    }

    /// The certificate of the authority itself (PEM): what clients are to trust.
    pub fn certificate(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The server's certificate (PEM).
    pub fn server_certificate(&self) -> PathBuf {
        self.path("server.pem")
    }

    /// The server's private key (PEM, PKCS #8).
    pub fn server_key(&self) -> PathBuf {
        self.path("server.key")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        let directory: &Path = self.directory.path();
        let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(directory).output();
        let output = output.expect("openssl (the Debian package of that name) is installed");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
