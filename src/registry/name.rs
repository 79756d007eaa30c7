//! `docker://host/repository:tag@digest`, as people write it.

use std::fmt;

use oci_spec::distribution::Reference;

use crate::digest::BlobDigest;

/// How names of images at registries begin.
pub const SCHEME: &str = "docker://";

/// What answers for `docker.io`.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// An image at a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageName {
    /// Complete: `alpine` is `docker.io/library/alpine:latest`.
    reference: Reference,
    digest: Option<BlobDigest>,
}

/// A repository of a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName {
    /// `HOST` or `HOST:PORT` as written; `docker.io` for Docker Hub.
    pub registry: String,
    /// `library/alpine`.
    pub repository: String,
}

impl ImageName {
    /// Parses a name; the error says what is wrong with it.
    pub fn parse(url: &str) -> Result<ImageName, String> {
        let Some(name) = url.strip_prefix(SCHEME) else {
            return Err(format!("`{url}` does not start with `{SCHEME}`"));
        };
        let reference: Reference = name.parse().map_err(|error| match name.chars().any(char::is_uppercase) {
            // The grammar knows no capitals, and says nothing of them.
            true => format!("`{url}` is no name of an image: {error} (names of repositories are lower case)"),
            false => format!("`{url}` is no name of an image: {error}"),
        })?;
        let digest = match reference.digest() {
            None => None,
            Some(text) => Some(
                text.parse()
                    .map_err(|_| format!("`{url}`: the digest is not supported, only sha256:… in lower case is"))?,
            ),
        };
        Ok(ImageName { reference, digest })
    }

    /// Where it lies.
    pub fn repository(&self) -> RepositoryName {
        let (registry, repository) = (self.reference.registry().to_owned(), self.reference.repository().to_owned());
        RepositoryName { registry, repository }
    }

    /// What its manifest or index must hash to, if it says so.
    pub fn digest(&self) -> Option<BlobDigest> {
        self.digest
    }

    /// Its tag. A name with a digest may have none.
    pub fn tag(&self) -> Option<&str> {
        self.reference.tag()
    }
}

impl RepositoryName {
    /// Where its registry listens: `HOST` or `HOST:PORT`.
    pub fn address(&self) -> &str {
        match self.registry.as_str() {
            "docker.io" => DOCKER_HUB,
            registry => registry,
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.reference)
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_docker_hubs() {
        for (url, whole, address) in [
            ("docker://alpine", "docker://docker.io/library/alpine:latest", DOCKER_HUB),
            ("docker://me/app:1.2", "docker://docker.io/me/app:1.2", DOCKER_HUB),
            ("docker://localhost:5000/a/b/c", "docker://localhost:5000/a/b/c:latest", "localhost:5000"),
            ("docker://quay.io/x/y:z", "docker://quay.io/x/y:z", "quay.io"),
        ] {
            let name = ImageName::parse(url).unwrap();
            assert_eq!((name.to_string().as_str(), name.repository().address()), (whole, address));
        }
    }

    #[test]
    fn what_is_no_name_is_said_to_be_none() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let both = ImageName::parse(&format!("docker://host.example/app:1@{digest}")).unwrap();
        assert_eq!((both.tag(), both.digest().unwrap().to_string()), (Some("1"), digest.clone()));
        let alone = ImageName::parse(&format!("docker://host.example/app@{digest}")).unwrap();
        assert_eq!(alone.tag(), None);
        for (url, says) in [
            ("alpine", "does not start with `docker://`"),
            ("docker://host.example/App", "lower case"),
            ("docker://", "is no name of an image"),
            ("docker://host.example/app:a/b", "is no name of an image"),
            (&format!("docker://app@sha512:{}", "0a".repeat(64)), "only sha256"),
        ] {
            let error = ImageName::parse(url).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
