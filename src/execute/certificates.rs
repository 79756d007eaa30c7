//! The certificates of `--ca-file` for scripts: shown to them outside their keys, as proxies are, and never in a layer.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::digest::Key;
use crate::error::{At, Result};
use crate::http;
use crate::worker::sandbox::CERTIFICATES_FILE;

use super::site::Site;

/// Variables by which programs are told where certificates are: OpenSSL, curl, Python (requests, pip), Node.js, git,
/// Cargo, AWS's tools, Deno, Nix, gRPC, Ruby's bundler.
const VARIABLES: [&str; 11] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
    "NIX_SSL_CERT_FILE",
    "BUNDLE_SSL_CA_CERT",
];

/// Where systems have all that they trust in one file: Debian, Fedora, openSUSE, Alpine.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How a certificate begins and ends in PEM (RFC 7468).
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// What a script gets of them.
pub struct Certificates {
    /// (place, directory beneath `imports`).
    pub mount: (String, String),
    /// Which it has unless something of its own is set.
    pub variables: Vec<(String, String)>,
}

impl Site {
    /// The file for scripts, in its place; none where no further certificates are trusted.
    pub(super) fn have_certificates(&self) -> Result<Option<Certificates>> {
        let Some(file) = &self.ca_file else { return Ok(None) };
        let text = bundle(file)?;
        let name = Key::of(format!("certificates {}", blake3::hash(text.as_bytes()).to_hex()).as_bytes()).short();
        self.in_turn(format!("import {name}"), || match self.has_import(&name)? {
            true => Ok(()),
            false => self.stage_certificates(&text, &name),
        })?;
        let place = format!("/stacker/{CERTIFICATES_FILE}");
        let variables = VARIABLES.map(|variable| (variable.to_owned(), place.clone())).to_vec();
        Ok(Some(Certificates { mount: (place, name), variables }))
    }

    fn stage_certificates(&self, text: &str, name: &str) -> Result<()> {
        let (uid, gid) = self.ready()?.root;
        let tmp = self.unique();
        let directory = self.roots.import(&tmp);
        fs::create_dir(&directory).at("create", &directory)?;
        let file = directory.join("t");
        fs::write(&file, text).at("write", &file)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).at("chmod", &file)?;
        for path in [&file, &directory] {
            chown(path, Some(uid), Some(gid)).at("chown", path)?;
        }
        self.keep_import(&tmp, name)
    }
}

/// All that the host trusts, then what was configured: most programs believe nothing else than what they are told of.
fn bundle(file: &Path) -> Result<String> {
    http::certificates(file)?;
    let configured = fs::read_to_string(file).at("read", file)?;
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let system = named.into_iter().chain(SYSTEM.map(PathBuf::from)).find_map(|path| fs::read_to_string(path).ok());
    Ok(certificates(&system.unwrap_or_default()) + &certificates(&configured))
}

/// Certificates alone: a key that lies in the same file is not for scripts.
fn certificates(pem: &str) -> String {
    let mut inside = false;
    let mut text = String::new();
    for line in pem.lines().map(str::trim_end) {
        inside |= line == BEGIN;
        if inside {
            text += line;
            text.push('\n');
        }
        inside &= line != END;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_certificates_are_shown() {
        let key = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
        let certificate = format!("{BEGIN}\nTUlJ\n{END}\n");
        let pem = format!("Bag Attributes\n{key}{certificate}# another\r\n{}", certificate.replace('\n', "\r\n"));
        assert_eq!(certificates(&pem), format!("{certificate}{certificate}"));
    }
}
