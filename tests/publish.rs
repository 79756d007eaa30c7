//! `stacker publish`: to registries and to layouts, what is sent and what is not.

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use stacker::oci::Layout;
use support::archive::Archive;
use support::base;
use support::registry::{Dialect, PASSWORD, Registry, USER, digest, image, index};
use support::server::{Reply, Request, Server};
use support::space::{Run, Space, for_each_identity, for_each_user};

const ARCH: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// Two images, one upon the other, and a layer that is none.
const LAYERS: &str = r#"
hidden:
  from: {type: built, tag: base}
  build_only: true
  run: echo hidden > /hidden
app:
  from: {type: built, tag: hidden}
  run: echo app > /app
  labels: {of: app}
"#;

fn before(registry: &Registry, instead: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) -> Server {
    let address = registry.address().to_owned();
    Server::start(move |request| instead(request).unwrap_or_else(|| request.forward(&address)))
}

/// The requests that write something, as `METHOD path`.
fn written(server: &Server) -> Vec<String> {
    let writes = server.requests().into_iter().filter(|request| !["GET", "HEAD"].contains(&request.method.as_str()));
    writes.map(|request| format!("{} {}", request.method, request.path)).collect()
}

fn publish(space: &Space, address: &str, more: &[&str]) -> Run {
    let url = format!("docker://{address}/team");
    space.stacker(&[&["publish", "--url", &url, "--tag", "v1", "--skip-tls"], more].concat())
}

#[test]
fn what_is_published_can_be_built_upon() {
    for_each_identity(|space| {
        let registry = Registry::start();
        let server = before(&registry, |_| None);
        space.stackerfile(LAYERS);
        let built = space.build(&[]);
        let first = publish(space, server.address(), &["--tag", "latest"]).ends_with(0);
        for tag in ["v1", "latest"] {
            let place = format!("docker://{}/team/app:{tag}: {}: ", server.address(), built.image("app"));
            assert!(first.stdout.contains(&place), "{first}");
        }
        assert!(!first.stdout.contains("hidden") && first.stdout.contains("/team/base:v1"), "{first}");
        // Nothing is sent twice.
        let before = written(&server).len();
        let second = publish(space, server.address(), &["--tag", "latest"]).ends_with(0);
        assert_eq!(second.stdout.matches(": nothing to upload\n").count(), 4, "{second}");
        assert_eq!(written(&server).len(), before, "{:?}", &written(&server)[before..]);
        // A new tag of what is there sends one manifest.
        publish(space, server.address(), &["--tag", "v2", "--image", "app"]).ends_with(0);
        assert_eq!(written(&server)[before..], ["PUT /v2/team/app/manifests/v2"]);

        let url = format!("docker://{}/team/app:v1", server.address());
        let from = format!("{{type: docker, url: '{url}', insecure: true}}");
        space.write("stacker.yaml", format!("upon:\n  from: {from}\n  run: cat /app /hidden > /both\n"));
        std::fs::remove_dir_all(space.path("oci")).unwrap();
        space.build(&[]).built(&["upon"]);
        assert_eq!(space.file("upon", "both").as_deref(), Some("app\nhidden\n"));
    });
}

#[test]
fn tls_and_passwords() {
    for_each_user(|space| {
        let registry = Registry::start_secure();
        space.stackerfile("");
        space.build(&[]);
        let (url, ca) = (format!("docker://{}", registry.address()), registry.ca_file().display().to_string());
        let run = |variables: &[(&str, &str)], more: &[&str]| {
            let arguments = [&["publish", "--url", &url, "--tag", "v1", "--retries", "0"], more].concat();
            let mut command = space.command(&arguments);
            command.envs(variables.iter().copied());
            space.run_of(&arguments, command.output().unwrap())
        };
        run(&[], &[]).ends_with(1).says("--ca-file FILE trusts further certificates");
        run(&[], &["--ca-file", &ca]).ends_with(1).says("asked without credentials");
        let wrong = run(&[], &["--ca-file", &ca, "--username", USER, "--password", "guess"]).ends_with(1);
        wrong.says("asked as user \"builder\" with the credentials of the command line").says_not("guess");
        run(&[], &["--ca-file", &ca, "--username", USER]).ends_with(2).says("--username needs --password");
        let first = run(&[], &["--ca-file", &ca, "--username", USER, "--password", PASSWORD]).ends_with(0);
        assert!(first.stdout.contains("blobs uploaded"), "{first}");
        let variables = [("REGISTRY_USERNAME", USER), ("REGISTRY_PASSWORD", PASSWORD)];
        let second = run(&variables, &["--skip-tls"]).ends_with(0);
        assert!(second.stdout.ends_with(": nothing to upload\n"), "{second}");
    });
}

#[test]
fn what_is_not_built_is_not_published() {
    for_each_user(|space| {
        let registry = Registry::start();
        let server = before(&registry, |_| None);
        space.stackerfile(LAYERS);
        publish(space, server.address(), &[]).ends_with(1).says("is no OCI layout");
        // How it is compressed and when it says it was made makes no difference.
        space.build(&["--compression", "zstd", "--created", "2020-02-02T00:00:00Z"]);
        let shown = publish(space, server.address(), &["--show-only"]).ends_with(0);
        assert_eq!(shown.stdout.lines().count(), 2, "{shown}");
        assert!(
            shown.stdout.contains(&format!("would publish docker://{}/team/app:v1\n", server.address())),
            "{shown}"
        );
        assert!(written(&server).is_empty());
        for (old, new, why) in [
            ("of: app", "of: another", "app: its configuration is another"),
            ("echo app", "echo other", "app: it has to be built"),
            ("echo hidden", "echo seen", "app: it has to be built"),
        ] {
            space.edit("stacker.yaml", old, new);
            let failed = publish(space, server.address(), &["--image", "app"]).ends_with(1);
            failed.says(why).says("publish with --force");
            publish(space, server.address(), &["--image", "base"]).ends_with(0);
            space.edit("stacker.yaml", new, old);
        }
        // Built since, but not to this layout.
        space.edit("stacker.yaml", "echo app", "echo other");
        space.build(&["--oci-dir", "elsewhere"]);
        publish(space, server.address(), &[]).ends_with(1).says("app: it has other layers");
        publish(space, server.address(), &["--force"]).ends_with(0);
        publish(space, server.address(), &["--image", "hidden"]).ends_with(2).says("`build_only`");
        publish(space, server.address(), &["--image", "ap"]).ends_with(2).says("did you mean `app`?");
        let url = format!("docker://{}", server.address());
        space.stacker(&["publish", "--url", &url]).ends_with(2).says("--tag TAG is needed");
        space.stacker(&["publish", "--url", "ftp://x", "--tag", "a"]).ends_with(2).says("wanted docker://HOST/PREFIX");
    });
}

#[test]
fn the_look_at_what_is_built_asks_no_server() {
    for_each_user(|space| {
        let registry = Registry::start();
        registry.put("base", "one", &image(ARCH, Dialect::Oci, &[base::tar()]));
        let base = before(&registry, |_| None);
        let files = Server::start(|_| Reply::new(200, "from a server").with("etag", "\"one\""));
        let from = format!("{{type: docker, url: 'docker://{}/base:one', insecure: true}}", base.address());
        let import = format!("imports: [{{path: '{}', dest: /file}}]", files.url("/file"));
        space.write("stacker.yaml", format!("app:\n  from: {from}\n  {import}\n  run: cp /file /copy\n"));
        space.build(&[]);
        let asked = (base.requests().len(), files.requests().len());
        publish(space, registry.address(), &[]).ends_with(0);
        assert_eq!((base.requests().len(), files.requests().len()), asked);
    });
}

#[test]
fn blobs_are_taken_from_other_repositories() {
    for_each_user(|space| {
        let registry = Registry::start();
        let base = image(ARCH, Dialect::Oci, &[base::tar(), Archive::new().file("release", "one").end()]);
        registry.put("upstream/base", "one", &base);
        let server = before(&registry, |_| None);
        let url = format!("docker://{}/upstream/base:one", server.address());
        let layer = |name: &str, from: &str, run: &str| format!("{name}:\n  from: {from}\n  run: {run}\n");
        let from = format!("{{type: docker, url: '{url}', insecure: true}}");
        let one = layer("one", &from, "echo one > /one");
        space.write("stacker.yaml", one + &layer("two", "{type: built, tag: one}", "echo two > /two"));
        space.build(&[]);
        let published = publish(space, server.address(), &[]).ends_with(0);
        // Of the first image its layer and config, of the second too.
        assert_eq!(published.stdout.matches("2 blobs uploaded").count(), 2, "{published}");
        let mounts: Vec<_> = written(&server).into_iter().filter(|request| request.contains("mount=")).collect();
        for blob in &base.blobs[1..] {
            let blob = digest(blob).replace(':', "%3A");
            for name in ["one", "two"] {
                let wanted = format!("POST /v2/team/{name}/blobs/uploads/?mount={blob}&from=");
                assert!(mounts.iter().any(|mount| mount.starts_with(&wanted)), "{wanted} in {mounts:#?}");
            }
        }
        assert!(mounts.iter().any(|mount| mount.contains("from=team%2Fone")), "{mounts:#?}");
    });
}

#[test]
fn tokens_are_asked_for_what_is_done() {
    for_each_user(|space| {
        let registry = Registry::start();
        registry.put("upstream/base", "one", &image(ARCH, Dialect::Oci, &[base::tar()]));
        let address = registry.address().to_owned();
        let server = Server::start(move |request| {
            if request.path == "/token" {
                return Reply::new(200, r#"{"access_token": "good"}"#);
            }
            if request.header("authorization") == Some("Bearer good") {
                return request.forward(&address);
            }
            let realm = format!("http://{}/token", request.header("host").unwrap());
            Reply::new(401, "").with("www-authenticate", &format!(r#"Bearer realm="{realm}",service="tests""#))
        });
        // What `docker login` leaves where it was given a token instead of a password.
        let auth = format!(r#"{{"auths": {{"{}": {{"identitytoken": "proof"}}}}}}"#, server.address());
        space.write("auth.json", auth);
        let run = |arguments: &[&str]| {
            let mut command = space.command(arguments);
            command.env("REGISTRY_AUTH_FILE", space.path("auth.json"));
            space.run_of(arguments, command.output().unwrap()).ends_with(0)
        };
        let from = format!("{{type: docker, url: 'docker://{}/upstream/base:one', insecure: true}}", server.address());
        space.write("stacker.yaml", format!("app:\n  from: {from}\n  labels: {{a: b}}\n"));
        run(&["build"]);
        run(&["publish", "--url", &format!("docker://{}/team", server.address()), "--tag", "v1", "--skip-tls"]);
        let asked = server.requests().into_iter().filter(|request| request.path == "/token");
        let bodies: Vec<_> = asked.map(|request| String::from_utf8(request.body).unwrap()).collect();
        assert!(bodies.iter().all(|body| body.starts_with("grant_type=refresh_token&")), "{bodies:?}");
        assert!(bodies.iter().all(|body| body.contains("refresh_token=proof") && body.contains("service=tests")));
        let pull = "repository%3Aupstream%2Fbase%3Apull";
        assert!(bodies[0].ends_with(&format!("scope={pull}")), "{bodies:?}");
        let both = format!("scope=repository%3Ateam%2Fapp%3Apull%2Cpush+{pull}");
        assert!(bodies.iter().any(|body| body.ends_with(&both)), "{bodies:?}");
        assert!(written(&server).iter().any(|request| request.contains("mount=")), "{:?}", written(&server));
    });
}

/// A layer of some pieces, which gzip does not make smaller.
fn large(space: &Space) {
    let mut state = 1_u32;
    let noise: Vec<u8> = (0..20_000_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    space.write("noise", noise);
    let import = "imports: [{path: noise, dest: /noise}]";
    space.write("stacker.yaml", format!("app:\n  from: {{type: scratch}}\n  {import}\n"));
    space.build(&[]);
}

#[test]
fn a_broken_upload_goes_on_where_it_broke() {
    for_each_user(|space| {
        let registry = Registry::start();
        let (pieces, address) = (AtomicUsize::new(0), registry.address().to_owned());
        let lost = Mutex::new(None::<Reply>);
        let server = before(&registry, move |request| {
            let mut lost = lost.lock().unwrap();
            if request.method == "GET" && request.path.contains("/uploads/") {
                // docker-registry itself gives an upload up of which it has more than its client knows.
                return lost.take().map(|reply| Reply { status: 204, ..reply });
            }
            if request.method != "PATCH" {
                return None;
            }
            match pieces.fetch_add(1, Ordering::SeqCst) {
                // The second piece does not arrive.
                1 => Some(Reply::new(502, "")),
                // The third does, its answer is lost.
                3 => {
                    *lost = Some(request.forward(&address));
                    Some(Reply::new(500, ""))
                }
                _ => None,
            }
        });
        large(space);
        publish(space, server.address(), &[]).ends_with(0);
        let sent = server.requests().into_iter().filter(|request| request.method == "PATCH");
        let ranges: Vec<_> = sent.map(|request| request.header("content-range").unwrap().to_owned()).collect();
        assert_eq!(ranges.len(), 4, "{ranges:?}");
        assert_eq!(ranges[1], ranges[2], "{ranges:?}");
        // What came is what was sent.
        let from = format!("{{type: docker, url: 'docker://{}/team/app:v1', insecure: true}}", server.address());
        space.write("stacker.yaml", format!("back:\n  from: {from}\n"));
        std::fs::remove_dir_all(space.stacker_dir().join("blobs")).unwrap();
        space.build(&["--oci-dir", "back"]);
    });
}

#[test]
fn an_upload_that_the_registry_forgets_begins_anew() {
    for_each_user(|space| {
        let registry = Registry::start();
        let forgotten = Mutex::new(None::<String>);
        let server = before(&registry, move |request| {
            let mut forgotten = forgotten.lock().unwrap();
            let path = request.path.split('?').next().unwrap().to_owned();
            let second = request.header("content-range").is_some_and(|range| !range.starts_with("0-"));
            if request.method == "PATCH" && second && forgotten.is_none() {
                *forgotten = Some(path.clone());
            }
            (forgotten.as_ref() == Some(&path))
                .then(|| Reply::new(404, r#"{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}"#))
        });
        large(space);
        publish(space, server.address(), &[]).ends_with(0);
    });
}

#[test]
fn busy_registries_are_asked_again_and_others_are_named() {
    for_each_user(|space| {
        let registry = Registry::start();
        let seen = Mutex::new(std::collections::HashSet::new());
        let server = before(&registry, move |request| {
            let kind = (request.method.clone(), request.path.contains("manifests"));
            seen.lock().unwrap().insert(kind).then(|| match request.method.as_str() {
                "POST" => Reply::new(429, "").with("Retry-After", "1"),
                "PUT" => Reply::new(500, ""),
                _ => Reply::new(503, ""),
            })
        });
        space.stackerfile("");
        space.build(&[]);
        publish(space, server.address(), &[]).ends_with(0);

        let denying = before(&registry, |request| {
            let denied = r#"{"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}"#;
            (request.method == "POST").then(|| Reply::new(403, denied))
        });
        space.edit("stacker.yaml", "base:", "other:");
        space.build(&[]);
        let denied = publish(space, denying.address(), &["--image", "other"]).ends_with(1);
        denied
            .says("403 Forbidden: requested access to the resource is denied (DENIED)")
            .says("asked without credentials");
        let nowhere = publish(space, "127.0.0.1:9", &["--retries", "0"]).ends_with(1);
        nowhere.says("refused");
        publish(space, "127.0.0.1:9", &["--offline"]).ends_with(2).says("--offline asks no registry");
    });
}

#[test]
fn layouts_keep_their_other_tags() {
    for_each_identity(|space| {
        space.stackerfile(LAYERS);
        let built = space.build(&[]);
        let publish = |tag: &str| space.stacker(&["publish", "--url", "oci:out/there", "--tag", tag]);
        std::fs::create_dir(space.path("out")).unwrap();
        space.give(&space.path("out"));
        let first = publish("v1").ends_with(0);
        assert!(first.stdout.contains("app_v1: ") && first.stdout.contains(": copied\n"), "{first}");
        assert_eq!(publish("v1").ends_with(0).stdout.matches("nothing to copy").count(), 2);
        // Where images come from is told on request, and makes them no others.
        space.build(&["--provenance"]);
        assert_eq!(publish("told").ends_with(0).stdout.matches(": copied").count(), 2);
        space.build(&[]);
        publish("v2").ends_with(0);
        let layout = Layout::open(space.path("out/there")).unwrap();
        let tags: Vec<_> = layout.images().into_iter().filter_map(|image| image.tag).collect();
        assert_eq!(tags.len(), 6, "{tags:?}");
        let platform = stacker::action::Platform { os: "linux".into(), arch: ARCH.into() };
        let found = layout.find(Some("app_v2"), &platform);
        assert_eq!(found.unwrap().digest.to_string(), built.image("app"));
    });
}

#[test]
fn an_index_goes_with_all_its_images() {
    for_each_user(|space| {
        let (registry, from) = (Registry::start(), Registry::start());
        let images =
            [ARCH, "s390x"].map(|arch| image(arch, Dialect::Docker, &[Archive::new().file("arch", arch).end()]));
        images.iter().for_each(|image| drop(from.put("app", "", image)));
        let ours = format!("linux/{ARCH}");
        let all = index(Dialect::Docker, &[(&ours, &images[0]), ("linux/s390x", &images[1])]);
        from.put("app", "all", &all);
        let source = format!("docker://{}/app:all", from.address());
        let words =
            ["skopeo", "copy", "-q", "--all", "--src-tls-verify=false", "--src-no-creds", &source, "oci:oci:app"];
        let output = space.other_program(&words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        space.write("stacker.yaml", "app:\n  from: {type: scratch}\n");
        space.stacker(&["build", "--oci-dir", "unused"]).ends_with(0);
        publish(space, registry.address(), &[]).ends_with(1).says("there is an index of several images");
        publish(space, registry.address(), &["--force"]).ends_with(0);
        let from = format!("{{type: docker, url: 'docker://{}/team/app:v1', insecure: true}}", registry.address());
        space.write("stacker.yaml", format!("back:\n  from: {from}\n  arch: s390x\n"));
        space.build(&["--oci-dir", "back"]);
    });
}
