//! Bases at registries: what is asked for, when, and what is built on.

mod support;

use std::process::Command;

use support::archive::Archive;
use support::base;
use support::registry::{Dialect, Image, PASSWORD, Registry, USER, digest, image, index};
use support::server::{Reply, Request, Server};
use support::space::{Run, Space, for_each_identity, for_each_user};

/// The architecture that tests run on.
const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// A base in two layers.
fn busybox(dialect: Dialect) -> Image {
    image(ARCH, dialect, &[base::tar(), Archive::new().file("etc/release", "one\n").end()])
}

/// A server in front of a registry that answers all that `instead` does not.
fn before(registry: &Registry, instead: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Server {
    let address = registry.address().to_owned();
    Server::start(move |request| instead(request).unwrap_or_else(|| request.forward(&address)))
}

/// What was asked for, as `METHOD manifests/one`, but for the first look at the registry.
fn asked(server: &Server) -> Vec<String> {
    let requests = server.requests();
    let paths = requests.iter().filter_map(|request| {
        let path = request.path.strip_prefix("/v2/")?;
        let at = path.find("manifests/").or_else(|| path.find("blobs/"))?;
        Some(format!("{} {}", request.method, &path[at..]))
    });
    paths.collect()
}

fn stackerfile(space: &Space, address: &str, reference: &str, more: &str) {
    let from = format!("{{type: docker, url: 'docker://{address}/{reference}', insecure: true}}");
    space.write("stacker.yaml", format!("app:\n  from: {from}\n{more}"));
}

/// A run that shows what the base holds.
const RUN: &str = "  run: |\n    cat /etc/release > /seen\n    echo two >> /etc/release\n";

/// `stacker` with variables of its own.
fn with(space: &Space, variables: &[(&str, &str)], arguments: &[&str]) -> Run {
    let mut command: Command = space.command(arguments);
    command.envs(variables.iter().copied());
    space.run_of(arguments, command.output().unwrap())
}

#[test]
fn a_base_is_fetched_when_something_needs_it() {
    for_each_identity(|space| {
        let registry = Registry::start();
        let base = busybox(Dialect::Docker);
        registry.put("base", "one", &base);
        let server = before(&registry, |_| None);
        // Nothing but configuration: neither run nor image needs the files.
        stackerfile(space, server.address(), "base:one", "  build_only: true\n  labels: {a: b}\n");
        space.build(&[]).says_not("downloading");
        let config = digest(&base.blobs[0]);
        assert_eq!(asked(&server), ["GET manifests/one".to_owned(), format!("GET blobs/{config}")]);
        // An image has the base's very bytes.
        stackerfile(space, server.address(), "base:one", "  labels: {a: b}\n");
        space.build(&[]).says(&format!("{}/base sha256:", server.address()));
        let mut blobs = asked(&server).split_off(2);
        blobs.sort();
        let mut wanted = vec!["HEAD manifests/one".to_owned()];
        wanted.extend(base.blobs[1..].iter().map(|blob| format!("GET blobs/{}", digest(blob))));
        wanted.sort();
        assert_eq!(blobs, wanted);
        let layers = space.layers("app");
        let bytes: Vec<_> = layers.iter().map(|layer| std::fs::read(layer).unwrap()).collect();
        assert!(bytes == base.blobs[1..], "the layers of the image are those of the base");
        // Nothing more is asked for but whether the tag has moved.
        stackerfile(space, server.address(), "base:one", RUN);
        let seen = asked(&server).len();
        space.build(&[]).built(&["app"]);
        assert_eq!(space.file("app", "seen").as_deref(), Some("one\n"));
        space.build(&[]).built(&[]).says_not("downloading");
        assert_eq!(asked(&server)[seen..], ["HEAD manifests/one", "HEAD manifests/one"]);
    });
}

#[test]
fn a_tag_that_moves_is_followed() {
    for_each_user(|space| {
        let registry = Registry::start();
        registry.put("base", "latest", &busybox(Dialect::Oci));
        stackerfile(space, registry.address(), "base", RUN);
        space.build(&[]).built(&["app"]);
        let second = image(ARCH, Dialect::Oci, &[base::tar(), Archive::new().file("etc/release", "second\n").end()]);
        registry.put("base", "latest", &second);
        space.build(&[]).built(&["app"]);
        assert_eq!(space.file("app", "seen").as_deref(), Some("second\n"));
    });
}

#[test]
fn one_tag_is_asked_for_once() {
    for_each_user(|space| {
        let registry = Registry::start();
        registry.put("base", "one", &busybox(Dialect::Oci));
        let server = before(&registry, |_| None);
        let layer = |name: &str| {
            let url = format!("docker://{}/base:one", server.address());
            format!("{name}:\n  from: {{type: docker, url: '{url}', insecure: true}}\n  run: echo {name} > /{name}\n")
        };
        space.write("stacker.yaml", ["a", "b", "c"].map(layer).concat());
        space.build(&[]).built(&["a", "b", "c"]);
        let manifests = asked(&server).into_iter().filter(|asked| asked.contains("manifests/")).count();
        let blobs = asked(&server).into_iter().filter(|asked| asked.contains("blobs/")).count();
        assert_eq!((manifests, blobs), (1, 3), "{:?}", asked(&server));
    });
}

#[test]
fn the_platform_chooses() {
    for dialect in [Dialect::Oci, Dialect::Docker] {
        let (space, registry) = (Space::new(), Registry::start());
        let of = |arch: &str| image(arch, dialect, &[Archive::new().file("arch", arch).end()]);
        let (ours, other, note) = (of(ARCH), of("s390x"), of("unknown"));
        for image in [&ours, &other, &note] {
            registry.put("base", "", image);
        }
        let all = [("linux/s390x", &other), ("unknown/unknown", &note), (&format!("linux/{ARCH}"), &ours)];
        registry.put("base", "all", &index(dialect, &all));
        let server = before(&registry, |_| None);
        stackerfile(&space, server.address(), "base:all", "  labels: {a: b}\n");
        space.build(&[]);
        assert_eq!(space.file("app", "arch").as_deref(), Some(ARCH));
        let fetched = asked(&server).join("\n");
        assert!(fetched.contains(&digest(&ours.manifest)) && !fetched.contains(&digest(&other.manifest)), "{fetched}");
        stackerfile(&space, server.address(), "base:all", "  arch: s390x\n  build_only: true\n");
        space.build(&[]);
        assert!(asked(&server).contains(&format!("GET manifests/{}", digest(&other.manifest))));
        stackerfile(&space, server.address(), "base:all", "  arch: riscv64\n");
        let failed = space.stacker(&["build"]).ends_with(1);
        failed.says("wanted linux/riscv64").says(&format!("is for linux/s390x, linux/{ARCH}")).says("stacker.yaml:2");
    }
}

#[test]
fn digests_and_offline_builds_need_no_registry() {
    for_each_identity(|space| {
        let registry = Registry::start();
        let address = registry.address().to_owned();
        let pinned = registry.put("base", "one", &busybox(Dialect::Oci));
        let both = format!("base:one@{pinned}");
        stackerfile(space, &address, &both, RUN);
        let first = space.stacker(&["build", "--offline"]).ends_with(1);
        first.says("is not here, and --offline asks no registry");
        space.build(&[]).built(&["app"]);
        stackerfile(space, &address, "base:one", RUN);
        let first = space.stacker(&["build", "--offline"]).ends_with(1);
        first.says("was never asked for, and --offline asks no registry");
        space.build(&[]).built(&[]);
        drop(registry);

        stackerfile(space, &address, &both, "  run: echo pinned > /pinned\n");
        space.build(&[]).built(&["app"]);
        stackerfile(space, &address, "base:one", "  run: echo tag > /tag\n");
        let failed = space.stacker(&["build", "--retries", "1"]).ends_with(1);
        failed.says("refused").says(&format!("--offline builds on what docker://{address}/base:one led to at 20"));
        failed.says(&pinned).says("tried 2 times");
        space.build(&["--offline"]).built(&["app"]);
    });
}

#[test]
fn a_base_that_is_in_use_survives_gc() {
    for_each_user(|space| {
        let registry = Registry::start();
        let address = registry.address().to_owned();
        registry.put("base", "one", &busybox(Dialect::Oci));
        stackerfile(space, &address, "base:one", RUN);
        space.build(&[]);
        space.stacker(&["cache", "verify", "--deep"]).ends_with(0);
        drop(registry);
        space.stacker(&["gc"]).ends_with(0);
        stackerfile(space, &address, "base:one", "  run: echo new > /new\n");
        space.build(&["--offline"]).built(&["app"]);
        // A damaged blob is found, and fetched anew by who needs it.
        let blobs = space.stacker_dir().join("blobs/sha256");
        let largest = std::fs::read_dir(&blobs).unwrap().map(|entry| entry.unwrap().path());
        let largest = largest.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
        std::fs::write(&largest, "short").unwrap();
        let found = space.stacker(&["cache", "verify"]).ends_with(1);
        assert!(found.stdout.contains("blob of a base image"), "{found}");
        // What nobody used goes, whole.
        let connection = rusqlite::Connection::open(space.stacker_dir().join("stacker.db")).unwrap();
        for table in ["result", "base"] {
            connection.execute(&format!("UPDATE {table} SET last_used = last_used - 864000"), []).unwrap();
        }
        space.stacker(&["gc", "--older-than", "1d"]).ends_with(0);
        assert_eq!(std::fs::read_dir(&blobs).unwrap().count(), 0, "blobs are left");
        let failed = space.stacker(&["build", "--offline"]).ends_with(1);
        failed.says("was never asked for");
    });
}

#[test]
fn tls_and_passwords() {
    for_each_identity(|space| {
        let registry = Registry::start_secure();
        registry.put("team/base", "one", &busybox(Dialect::Oci));
        let (address, ca) = (registry.address().to_owned(), registry.ca_file().display().to_string());
        let from = format!("{{type: docker, url: 'docker://{address}/team/base:one'}}");
        space.write("stacker.yaml", format!("app:\n  from: {from}\n{RUN}"));
        let docker = space.path("docker").display().to_string();
        let login = |password: &str| {
            use std::io::Write;
            let mut encoder = Command::new("base64");
            encoder.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
            let mut encoder = encoder.spawn().unwrap();
            encoder.stdin.take().unwrap().write_all(format!("{USER}:{password}").as_bytes()).unwrap();
            let text = String::from_utf8(encoder.wait_with_output().unwrap().stdout).unwrap();
            format!(r#"{{"auths": {{"{address}": {{"auth": "{}"}}}}}}"#, text.trim())
        };
        let build = |more: &[&str]| with(space, &[("DOCKER_CONFIG", &docker)], &[&["build"], more].concat());

        build(&["--retries", "0"]).ends_with(1).says("--ca-file FILE trusts further certificates");
        let nobody = build(&["--ca-file", &ca]).ends_with(1);
        nobody.says("401").says("asked without credentials").says(&format!("{docker}/config.json"));
        space.write("docker/config.json", login("wrong"));
        let wrong = build(&["--ca-file", &ca]).ends_with(1);
        wrong.says("asked as user \"builder\" with the credentials of").says(&format!("{docker}/config.json"));
        wrong.says_not("wrong");
        space.write("docker/config.json", login(PASSWORD));
        build(&["--ca-file", &ca]).ends_with(0);
        assert_eq!(space.file("app", "seen").as_deref(), Some("one\n"));
        // `insecure` takes any certificate.
        space.edit("stacker.yaml", "base:one'", "base:one', insecure: true");
        build(&[]).ends_with(0);
    });
}

#[test]
fn credentials_come_from_programs_too() {
    for_each_user(|space| {
        let registry = Registry::start_secure();
        registry.put("base", "one", &busybox(Dialect::Oci));
        let address = registry.address().to_owned();
        stackerfile(space, &address, "base:one", "  labels: {a: b}\n");
        let script = format!(
            "#!/bin/sh\nread -r server\n[ \"$1 $server\" = 'get {address}' ] || {{ echo credentials not found in native \
         keychain; exit 1; }}\necho '{{\"Username\": \"{USER}\", \"Secret\": \"{PASSWORD}\"}}'\n"
        );
        space.write("bin/docker-credential-test", script);
        std::fs::set_permissions(
            space.path("bin/docker-credential-test"),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let path = format!("{}:{}", space.path("bin").display(), std::env::var("PATH").unwrap());
        let auth = space.path("auth.json").display().to_string();
        let build = || with(space, &[("PATH", &path), ("REGISTRY_AUTH_FILE", &auth)], &["build"]);
        space.write("auth.json", r#"{"credsStore": "nowhere"}"#);
        build().ends_with(1).says("docker-credential-").says("auth.json");
        space.write("auth.json", format!(r#"{{"credHelpers": {{"{address}": "test"}}}}"#));
        build().ends_with(0);
        space.write("auth.json", r#"{"credsStore": "test"}"#);
        build().ends_with(0);
    });
}

#[test]
fn what_is_not_there_is_said_clearly() {
    for_each_user(|space| {
        let registry = Registry::start();
        registry.put("base", "one", &busybox(Dialect::Oci));
        stackerfile(space, registry.address(), "base:two", "");
        space.stacker(&["build"]).ends_with(1).says("there is no tag \"two\"").says("stacker.yaml:2");
        stackerfile(space, registry.address(), "other:one", "");
        space.stacker(&["build"]).ends_with(1).says("there is no tag \"one\", or no 127.0.0.1");
        stackerfile(space, registry.address(), &format!("base@sha256:{}", "0a".repeat(32)), "");
        space.stacker(&["build"]).ends_with(1).says("there is no such image");
        let old = Server::start(|_| Reply::new(200, r#"{"schemaVersion": 1, "name": "x", "fsLayers": []}"#));
        stackerfile(space, old.address(), "base:one", "");
        space.stacker(&["build"]).ends_with(1).says("docker's schema 1, which is not supported");
    });
}
