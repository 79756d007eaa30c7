//! A registry of its own for one test, on a loopback port.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::authority::Authority;

/// The only user of a registry that wants to know who asks.
pub const USER: &str = "builder";
/// Its password.
pub const PASSWORD: &str = "word";
/// The two as htpasswd writes them.
const HTPASSWD: &str = "builder:$2y$05$abcdefghijklmnopqrstuuQDoL5Sa/TtfS/XN4AY/jgq.HBbO1BTu\n";

/// docker-registry (the Debian package of that name), which ends when this is dropped.
pub struct Registry {
    process: Child,
    address: String,
    data: tempfile::TempDir,
    secure: bool,
}

impl Registry {
    /// Starts one for plain HTTP and waits until it listens.
    pub fn start() -> Registry {
        Registry::start_with(false)
    }

    /// Starts one with TLS, by a certificate authority of its own, for [`USER`] alone.
    pub fn start_secure() -> Registry {
        Registry::start_with(true)
    }

    fn start_with(secure: bool) -> Registry {
        let data = tempfile::tempdir().unwrap();
        // The ordinary user reads the authority's certificate.
        fs::set_permissions(data.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let (config, log) = (data.path().join("config.yml"), data.path().join("log"));
        let blobs = data.path().join("data").display().to_string();
        // The kernel chooses the port, so that it is free.
        let (tls, auth) = if secure { protect(data.path()) } else { Default::default() };
        let text = format!(
            "version: 0.1\nlog: {{level: info, formatter: text}}\nhttp: {{addr: '127.0.0.1:0'{tls}}}\n\
             storage: {{filesystem: {{rootdirectory: '{blobs}'}}}}\n{auth}"
        );
        fs::write(&config, text).unwrap();
        // Should the tests be killed, it is killed with them.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "docker-registry", "serve"]).arg(&config).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        let process = command.spawn().expect("setpriv (of util-linux) is installed");
        let mut registry = Registry { process, address: String::new(), data, secure };
        registry.address = registry.wait_for_address(&log);
        registry
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The certificate to trust, of one with TLS.
    pub fn ca_file(&self) -> PathBuf {
        self.data.path().join("ca.pem")
    }

    /// Where it answers, for who may.
    pub fn url(&self, path: &str) -> String {
        match self.secure {
            true => format!("https://{USER}:{PASSWORD}@{}{path}", self.address),
            false => format!("http://{}{path}", self.address),
        }
    }

    /// What requests of a test's own are made with.
    pub fn client(&self) -> reqwest::blocking::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::blocking::Client::builder().tls_danger_accept_invalid_certs(true);
        builder.no_proxy().build().unwrap()
    }

    /// Puts an image there, under a tag or its digest; the digest.
    pub fn put(&self, repository: &str, reference: &str, image: &Image) -> String {
        let client = self.client();
        for blob in &image.blobs {
            let begun = client.post(self.url(&format!("/v2/{repository}/blobs/uploads/"))).send().unwrap();
            let place = begun.headers()["location"].to_str().unwrap().to_owned();
            let url =
                place.replacen(&format!("//{}", self.address), &self.url("")[self.url("").find("//").unwrap()..], 1);
            let end = format!("{url}&digest={}", digest(blob));
            assert_eq!(client.put(end).body(blob.clone()).send().unwrap().status(), 201);
        }
        let reference = if reference.is_empty() { digest(&image.manifest) } else { reference.to_owned() };
        let request = client.put(self.url(&format!("/v2/{repository}/manifests/{reference}")));
        let answer = request.header("content-type", &image.media_type).body(image.manifest.clone()).send().unwrap();
        assert_eq!(answer.status(), 201, "{}", answer.text().unwrap());
        digest(&image.manifest)
    }

    fn wait_for_address(&mut self, log: &Path) -> String {
        let begun = Instant::now();
        loop {
            let text = fs::read_to_string(log).unwrap();
            let after = text.split_once("listening on ").map(|(_, after)| after);
            if let Some((address, _)) = after.and_then(|after| after.split_once(['"', ','])) {
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

/// What is written to the configuration so that there is TLS, and so that it asks for a password.
fn protect(directory: &Path) -> (String, String) {
    let authority = Authority::new();
    let copy = |from: &Path, name: &str| {
        fs::copy(from, directory.join(name)).unwrap();
        directory.join(name).display().to_string()
    };
    copy(&authority.certificate(), "ca.pem");
    let certificate = copy(&authority.server_certificate(), "server.pem");
    let key = copy(&authority.server_key(), "server.key");
    let passwords = directory.join("htpasswd");
    fs::write(&passwords, HTPASSWD).unwrap();
    let tls = format!(", tls: {{certificate: '{certificate}', key: '{key}'}}");
    (tls, format!("auth: {{htpasswd: {{realm: a test, path: '{}'}}}}\n", passwords.display()))
}

/// An image, or an index of images, as it is put to a registry.
#[derive(Clone)]
pub struct Image {
    pub media_type: String,
    pub manifest: Vec<u8>,
    /// Config and layers.
    pub blobs: Vec<Vec<u8>>,
}

impl Image {
    /// Writes it to a layout of its own.
    pub fn write_layout(&self, root: &Path, tag: &str) {
        let blobs = root.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        for blob in self.blobs.iter().chain([&self.manifest]) {
            fs::write(blobs.join(digest(blob).trim_start_matches("sha256:")), blob).unwrap();
        }
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": self.media_type, "digest": digest(&self.manifest), "size": self.manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": tag},
        }]});
        fs::write(root.join("index.json"), index.to_string()).unwrap();
        fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    }
}

/// Which media types an image has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Oci,
    Docker,
}

/// An image with some plain tars as layers.
pub fn image(arch: &str, dialect: Dialect, tars: &[Vec<u8>]) -> Image {
    let name = |oci: &str, docker: &str| match dialect {
        Dialect::Oci => format!("application/vnd.oci.image.{oci}"),
        Dialect::Docker => format!("application/vnd.docker.{docker}"),
    };
    let layers: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
    let config = json!({
        "architecture": arch, "os": "linux", "config": {"Env": ["FROM=registry"]},
        "rootfs": {"type": "layers", "diff_ids": tars.iter().map(|tar| digest(tar)).collect::<Vec<_>>()},
    });
    let config = config.to_string().into_bytes();
    let of =
        |media_type: String, blob: &[u8]| json!({"mediaType": media_type, "digest": digest(blob), "size": blob.len()});
    let tar = || name("layer.v1.tar+gzip", "image.rootfs.diff.tar.gzip");
    let media_type = name("manifest.v1+json", "distribution.manifest.v2+json");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type,
        "config": of(name("config.v1+json", "container.image.v1+json"), &config),
        "layers": layers.iter().map(|layer| of(tar(), layer)).collect::<Vec<_>>(),
    });
    Image { media_type, manifest: manifest.to_string().into_bytes(), blobs: [vec![config], layers].concat() }
}

/// An index of images for platforms (`linux/amd64`), which must be put there before it.
pub fn index(dialect: Dialect, images: &[(&str, &Image)]) -> Image {
    let media_type = match dialect {
        Dialect::Oci => "application/vnd.oci.image.index.v1+json",
        Dialect::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
    };
    let one = |(platform, image): &(&str, &Image)| {
        let (os, arch) = platform.split_once('/').unwrap();
        json!({
            "mediaType": image.media_type, "digest": digest(&image.manifest), "size": image.manifest.len(),
            "platform": {"os": os, "architecture": arch},
        })
    };
    let manifests: Vec<_> = images.iter().map(one).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
    Image { media_type: media_type.to_owned(), manifest: manifest.to_string().into_bytes(), blobs: vec![] }
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", stacker::digest::hex(&Sha256::digest(bytes)))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
