//! Registries that are busy, broken, slow or hostile: tried again, then a clear error, and nothing half-stored in use.

mod support;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::archive::{Archive, Member};
use support::base;
use support::registry::{Dialect, Image, Registry, digest, image};
use support::server::{Reply, Request, Server};
use support::space::{Space, for_each_identity, for_each_user};

const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// A base whose second layer has some megabytes, which gzip does not make smaller.
fn large() -> Image {
    let mut state = 1_u32;
    let noise: Vec<u8> = (0..6_000_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    let noise = Archive::new().member(Member { name: b"noise", body: &noise, ..Member::default() }).end();
    image(ARCH, Dialect::Oci, &[base::tar(), noise])
}

/// A server in front of a registry that answers all that `instead` does not.
fn before(registry: &Registry, instead: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Server {
    let address = registry.address().to_owned();
    Server::start(move |request| instead(request).unwrap_or_else(|| request.forward(&address)))
}

/// A registry with that image under `base:one`.
fn registry_with(image: &Image) -> Registry {
    let registry = Registry::start();
    registry.put("base", "one", image);
    registry
}

fn stackerfile(space: &Space, address: &str) {
    let from = format!("{{type: docker, url: 'docker://{address}/base:one', insecure: true}}");
    space.write("stacker.yaml", format!("app:\n  from: {from}\n  run: ls -l /noise > /seen\n"));
}

fn blob_of(request: &Request) -> Option<&str> {
    request.path.strip_prefix("/v2/base/blobs/")
}

/// Parts of blobs that are kept.
fn parts(space: &Space) -> usize {
    std::fs::read_dir(space.stacker_dir().join("downloads")).unwrap().count()
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    for_each_identity(|space| {
        let image = large();
        let (registry, blob, content) = (registry_with(&image), digest(&image.blobs[2]), image.blobs[2].clone());
        let server = before(&registry, move |request| {
            let cut = match request.from() {
                None => Some(2_500_000),
                Some(from) if from < 4_000_000 => Some(2_000_000),
                Some(_) => None,
            };
            (blob_of(request)? == blob).then(|| Reply { cut, ..Reply::range(request, &content) })
        });
        stackerfile(space, server.address());
        // A try that comes to nothing leaves what it has to the next.
        space.stacker(&["build", "--retries", "0"]).ends_with(1).says("the connection broke");
        assert_eq!(parts(space), 1);
        space.build(&[]).built(&["app"]);
        assert_eq!(parts(space), 0);
        let blob = digest(&image.blobs[2]);
        let requests = server.requests().into_iter().filter(|request| blob_of(request) == Some(&blob));
        let from: Vec<_> = requests.map(|request| request.from()).collect();
        assert_eq!(from.len(), 3, "{from:?}");
        assert!(from[0].is_none() && from[1..].iter().all(|from| *from > Some(1_000_000)), "{from:?}");
    });
}

#[test]
fn busy_registries_are_asked_again() {
    let registry = registry_with(&large());
    let (space, seen) = (Space::new(), Mutex::new(HashMap::<String, usize>::new()));
    let server = before(&registry, move |request| {
        let mut seen = seen.lock().unwrap();
        let count = seen.entry(request.path.clone()).or_default();
        *count += 1;
        match (request.path.contains("manifests"), *count) {
            (true, 1) => Some(Reply::new(429, "").with("Retry-After", "1")),
            (false, 1) if request.path.contains("blobs") => Some(Reply::new(500, "")),
            _ => None,
        }
    });
    stackerfile(&space, server.address());
    space.build(&[]).built(&["app"]);
}

#[test]
fn what_stays_broken_is_said() {
    let registry = registry_with(&large());
    let kind = std::sync::Arc::new(AtomicUsize::new(0));
    let shared = kind.clone();
    let server = before(&registry, move |request| {
        let blob = request.path.contains("/blobs/") && request.method == "GET";
        match (shared.load(Ordering::SeqCst), blob) {
            (0, _) if request.path.contains("manifests") => Some(Reply::new(429, "").with("Retry-After", "9000")),
            (1, true) => Some(Reply::new(500, r#"{"errors": [{"code": "UNKNOWN", "message": "no disk"}]}"#)),
            (2, true) => Some(Reply { pause: Duration::from_secs(4), ..Reply::new(200, "") }),
            (3, _) if request.path.contains("manifests") => {
                let denied = r#"{"errors": [{"code": "DENIED", "message": "not yours"}]}"#;
                Some(Reply::new(403, denied))
            }
            _ => None,
        }
    });
    let space = Space::new();
    stackerfile(&space, server.address());
    let failed = |number: usize| {
        kind.store(number, Ordering::SeqCst);
        space.stacker(&["build", "--retries", "1", "--network-timeout", "1"]).ends_with(1)
    };
    failed(0).says("429 Too Many Requests").says("it wants 9000 s of pause").says("stacker.yaml:2");
    failed(1).says("no disk (UNKNOWN)").says("(tried 2 times)");
    failed(2).says("no answer in time (tried 2 times)");
    failed(3).says("not yours (DENIED)").says("asked without credentials");
    kind.store(9, Ordering::SeqCst);
    space.build(&[]).built(&["app"]);
    assert_eq!(parts(&space), 0);
}

#[test]
fn wrong_bytes_are_never_used() {
    for_each_identity(|space| {
        let image = large();
        let registry = registry_with(&image);
        let wrong = std::sync::Arc::new(Mutex::new(String::new()));
        let shared = wrong.clone();
        let address = registry.address().to_owned();
        let server = before(&registry, move |request| {
            let wrong = shared.lock().unwrap().clone();
            if wrong.is_empty() || !request.path.ends_with(&wrong) || request.method != "GET" {
                return None;
            }
            let mut reply = request.forward(&address);
            let middle = reply.body.len() / 2;
            reply.body[middle] ^= 1;
            Some(reply)
        });
        stackerfile(space, server.address());
        for (path, named) in [
            ("manifests/one".to_owned(), digest(&image.manifest)),
            (digest(&image.blobs[0]), digest(&image.blobs[0])),
            (digest(&image.blobs[2]), digest(&image.blobs[2])),
        ] {
            *wrong.lock().unwrap() = path;
            let failed = space.stacker(&["build", "--retries", "1"]).ends_with(1);
            failed.says("the registry sends something else").says(&named);
        }
        *wrong.lock().unwrap() = String::new();
        space.build(&[]).built(&["app"]);
        space.stacker(&["cache", "verify", "--deep"]).ends_with(0);
    });
}

#[test]
fn builds_that_need_one_blob_fetch_it_once() {
    for_each_user(|space| {
        let image = large();
        let registry = registry_with(&image);
        let server = before(&registry, |_| None);
        let from = format!("{{type: docker, url: 'docker://{}/base:one', insecure: true}}", server.address());
        for name in ["one", "two", "three"] {
            space.write(&format!("{name}.yaml"), format!("{name}:\n  from: {from}\n  run: echo {name} > /{name}\n"));
        }
        let start = |name: &str| {
            let (file, oci) = (format!("{name}.yaml"), format!("oci-{name}"));
            let arguments = ["build", "-f", &file, "--oci-dir", &oci, "--metadata-file", &format!("{name}.json")];
            space.command(&arguments).spawn().unwrap()
        };
        let builds = ["one", "two", "three"].map(start);
        for build in builds {
            let output = build.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        for blob in &image.blobs[1..] {
            let asked = server.requests().iter().filter(|request| request.path.ends_with(&digest(blob))).count();
            assert_eq!(asked, 1, "{}", digest(blob));
        }
    });
}

/// What stands for a registry with tokens, and for who gives them out.
struct Tokens {
    /// How many requests a token is good for.
    good_for: usize,
    given: AtomicUsize,
    used: AtomicUsize,
}

#[test]
fn tokens_are_renewed_when_they_expire() {
    for_each_user(|space| {
        let image = large();
        let registry = registry_with(&image);
        let address = registry.address().to_owned();
        let tokens = Tokens { good_for: 2, given: AtomicUsize::new(0), used: AtomicUsize::new(0) };
        let server = Server::start(move |request| {
            if let Some(query) = request.path.strip_prefix("/token?") {
                assert!(query.contains("service=tests") && query.contains("scope=repository%3Abase%3Apull"), "{query}");
                let number = tokens.given.fetch_add(1, Ordering::SeqCst) + 1;
                tokens.used.store(0, Ordering::SeqCst);
                return Reply::new(200, format!(r#"{{"token": "number-{number}", "expires_in": 1}}"#));
            }
            let now = format!("Bearer number-{}", tokens.given.load(Ordering::SeqCst));
            let good = request.header("authorization") == Some(&now);
            if !good || tokens.used.fetch_add(1, Ordering::SeqCst) >= tokens.good_for {
                let realm = format!("http://{}/token", request.header("host").unwrap());
                let wanted = format!(r#"Bearer realm="{realm}",service="tests",scope="repository:base:pull""#);
                return Reply::new(401, "").with("www-authenticate", &wanted);
            }
            request.forward(&address)
        });
        stackerfile(space, server.address());
        space.build(&[]).built(&["app"]);
        let given = server.requests().iter().filter(|request| request.path.starts_with("/token")).count();
        assert!(given >= 2, "{given} tokens");
    });
}

#[test]
fn credentials_stay_with_their_registry() {
    for_each_user(|space| {
        let image = large();
        // Blobs lie elsewhere, as with large registries.
        let blobs: HashMap<String, Vec<u8>> =
            image.blobs.iter().map(|blob| (format!("/{}", digest(blob)), blob.clone())).collect();
        let elsewhere = Server::start(move |request| Reply::range(request, &blobs[&request.path]));
        let (manifest, media_type, other) = (image.manifest.clone(), image.media_type.clone(), elsewhere.url(""));
        let server = Server::start(move |request| {
            if request.header("authorization") != Some("Basic YnVpbGRlcjp3b3Jk") {
                return Reply::new(401, "").with("www-authenticate", "Basic realm=\"tests\"");
            }
            match request.path.rsplit('/').next().unwrap() {
                "one" => Reply::new(200, manifest.clone()).with("content-type", &media_type),
                blob => Reply::new(307, "").with("location", &format!("{other}/{blob}")),
            }
        });
        stackerfile(space, server.address());
        let auth = format!(r#"{{"auths": {{"{}": {{"auth": "YnVpbGRlcjp3b3Jk"}}}}}}"#, server.address());
        space.write("auth.json", auth);
        let mut command = space.command(&["build"]);
        command.env("REGISTRY_AUTH_FILE", space.path("auth.json"));
        space.run_of(&["build"], command.output().unwrap()).ends_with(0);
        let requests = elsewhere.requests();
        assert!(!requests.is_empty());
        assert!(requests.iter().all(|request| request.header("authorization").is_none()), "{requests:?}");
    });
}

#[test]
fn an_interrupted_download_ends_promptly() {
    for_each_user(|space| {
        let image = large();
        let registry = registry_with(&image);
        let (blob, content) = (digest(&image.blobs[2]), image.blobs[2].clone());
        let (told, hears) = std::sync::mpsc::channel();
        let told = Mutex::new(told);
        let server = before(&registry, move |request| {
            if blob_of(request)? != blob || request.from().is_some() {
                return None;
            }
            // A connection that stands still in mid-blob, as far as the client can tell.
            told.lock().unwrap().send(()).unwrap();
            Some(Reply { pause: Duration::from_secs(100), ..Reply::range(request, &content) })
        });
        stackerfile(space, server.address());
        let build = space.command(&["build"]).spawn().unwrap();
        hears.recv().unwrap();
        let pid = rustix::process::Pid::from_raw(build.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let run = space.run_of(&["build"], build.wait_with_output().unwrap());
        run.ends_with(130).says("interrupted");
    });
}
