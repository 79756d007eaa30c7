//! Who we are to a registry: the flags of `publish`, else the files and programs to which docker and podman log in.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use serde_json::{Value, json};

use super::name::RepositoryName;
use crate::error::{At, Error, Result};

/// What docker calls its Hub in its files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// What proves who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// For Basic, and to get tokens with.
    Password { username: String, password: String },
    /// To get tokens with (OAuth 2 calls it a refresh token).
    Identity(String),
}

/// Credentials, or where they were looked for.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// `None`: we are nobody.
    pub secret: Option<Secret>,
    /// For messages: what they came from, else all that was looked at.
    pub whence: String,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("(not shown)")
    }
}

impl Secret {
    /// For messages: `user me`.
    pub fn shown(&self) -> String {
        match self {
            Secret::Password { username, .. } => format!("user {username:?}"),
            Secret::Identity(_) => "an identity token".to_owned(),
        }
    }
}

/// Looks for the credentials for a repository, in the order of the files; in one file, the entry for the longest part
/// of `HOST/path/of/repository` counts.
pub fn find(name: &RepositoryName) -> Result<Credentials> {
    let files = files();
    for file in &files {
        let bytes = match fs::read(file) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            other => other.at("read", file)?,
        };
        if let Some(secret) = in_file(file, &bytes, name)? {
            return Ok(Credentials { secret: Some(secret), whence: file.display().to_string() });
        }
    }
    let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    Ok(Credentials { secret: None, whence: files.join(", ") })
}

/// Podman's file, then docker's. One that a variable names is the only one of its kind.
fn files() -> Vec<PathBuf> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut files = Vec::new();
    match (variable("REGISTRY_AUTH_FILE"), variable("XDG_RUNTIME_DIR")) {
        (Some(file), _) => files.push(file),
        (None, Some(runtime)) => files.push(runtime.join("containers/auth.json")),
        (None, None) => {}
    }
    if let Some(config) = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config"))) {
        files.push(config.join("containers/auth.json"));
    }
    if let Some(config) = variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")?.join(".docker"))) {
        files.push(config.join("config.json"));
    }
    files
}

fn in_file(file: &Path, bytes: &[u8], name: &RepositoryName) -> Result<Option<Secret>> {
    let wrong = |why: String| Error::Build(format!("credentials in {}: {why}", file.display()));
    if bytes.is_empty() {
        return Ok(None);
    }
    let config: Value = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
    // Entries of repositories and of what they lie in are podman's; programs are asked for whole registries alone.
    let entries = json!({"auths": config.get("auths")});
    let whole = name.to_string();
    let mut beneath = whole.as_str();
    while let Some((above, _)) = beneath.rsplit_once('/') {
        if let Some(secret) = ask(&entries, beneath).map_err(wrong)? {
            return Ok(Some(secret));
        }
        beneath = above;
    }
    let servers = match name.registry.as_str() {
        "docker.io" => &[DOCKER_HUB, "docker.io"][..],
        registry => &[registry],
    };
    for server in servers {
        if let Some(secret) = ask(&config, server).map_err(wrong)? {
            return Ok(Some(secret));
        }
    }
    Ok(None)
}

fn ask(config: &Value, server: &str) -> Result<Option<Secret>, String> {
    let text = config.to_string();
    match get_credential_from_reader(text.as_bytes(), server) {
        Ok(DockerCredential::IdentityToken(token)) => Ok(Some(Secret::Identity(token))),
        Ok(DockerCredential::UsernamePassword(username, password)) => Ok(Some(Secret::Password { username, password })),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
        // What every such program says of a server that it does not know.
        Err(CredentialRetrievalError::HelperFailure { stdout, .. }) if stdout.contains("credentials not found") => {
            Ok(None)
        }
        Err(CredentialRetrievalError::HelperFailure { helper, stdout, stderr }) => {
            Err(format!("{helper} fails for {server}: {} {}", stdout.trim(), stderr.trim()))
        }
        Err(CredentialRetrievalError::HelperCommunicationError) => {
            Err(format!("the program docker-credential-… that it names for {server} cannot be run: is it in PATH?"))
        }
        Err(error) => Err(format!("{server}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &Value, registry: &str, repository: &str) -> Option<String> {
        let name = RepositoryName { registry: registry.to_owned(), repository: repository.to_owned() };
        match in_file(Path::new("file"), config.to_string().as_bytes(), &name).unwrap()? {
            Secret::Password { username, .. } => Some(username),
            Secret::Identity(token) => Some(token),
        }
    }

    #[test]
    fn the_longest_part_of_the_name_counts() {
        // "a:x" and so on.
        let config = json!({"auths": {
            "host.example": {"auth": "YTp4"}, "host.example/team": {"auth": "Yjp4"},
            "host.example/team/app": {"auth": "Yzp4"}, "https://index.docker.io/v1/": {"auth": "ZDp4"},
            "token.example": {"identitytoken": "e"}, "empty.example": {},
        }});
        let found = |registry, repository| found(&config, registry, repository);
        assert_eq!(found("host.example", "other").as_deref(), Some("a"));
        assert_eq!(found("host.example", "team/other").as_deref(), Some("b"));
        assert_eq!(found("host.example", "team/app").as_deref(), Some("c"));
        assert_eq!(found("docker.io", "library/alpine").as_deref(), Some("d"));
        assert_eq!(found("token.example", "app").as_deref(), Some("e"));
        assert_eq!((found("empty.example", "app"), found("unknown.example", "app")), (None, None));
    }

    #[test]
    fn a_file_that_is_no_json_is_named() {
        let name = RepositoryName { registry: "host.example".to_owned(), repository: "app".to_owned() };
        let error = in_file(Path::new("/some/file"), b"{", &name).unwrap_err().to_string();
        assert!(error.starts_with("credentials in /some/file: "), "{error}");
    }
}
