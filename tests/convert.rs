//! Dockerfiles from everyday life become stackerfiles, these are built without a network, and what comes out is what
//! Docker's rules say: every path with its mode, owner and content, and the image's configuration.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use support::archive::Archive;
use support::identity::identities;
use support::image::Image;
use support::space::{Run, Space};

/// As root and as an ordinary user; all in one store, which unpacks the base once.
#[test]
fn everyday_dockerfiles_build_and_run() {
    for identity in identities() {
        eprintln!("as {identity}:");
        let space = Space::of(identity);
        let cases: [fn(&Space); 5] = [
            a_compiled_program_is_alone_in_its_image,
            a_python_program_with_requirements_from_files,
            a_node_program_with_a_build_script,
            a_web_server_with_its_configuration,
            a_service_with_a_user_a_volume_and_a_health_check,
        ];
        cases.iter().for_each(|case| case(&space));
    }
}

/// Puts a directory of `tests/dockerfiles` and the base image into a space.
fn prepare(space: &Space, name: &str) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dockerfiles");
    let script = "cp -r \"$1/$2\" \"$2\" && chmod -R u=rwX,go=rX \"$2\"
        test -d bases || cp -r --reflink=auto \"$3\" bases";
    let mut copy = Command::new("sh");
    copy.args(["-ec", script, "sh"]).arg(examples).arg(name).arg(support::debian::tools());
    assert!(copy.current_dir(space.path("")).status().unwrap().success());
    own_all(space, name);
    own_all(space, "bases");
}

fn own_all(space: &Space, name: &str) {
    if let Some((uid, gid)) = space.identity().owner() {
        let owner = format!("{uid}:{gid}");
        assert!(Command::new("chown").args(["-R", &owner]).arg(space.path(name)).status().unwrap().success());
    }
}

#[track_caller]
fn convert(space: &Space, name: &str) -> Run {
    let file = |file: &str| format!("{name}/{file}");
    let (input, output, substitutes) = (file("Dockerfile"), file("stacker.yaml"), file("subs.yaml"));
    space.stacker(&["convert", "-i", &input, "-o", &output, "-s", &substitutes]).ends_with(0)
}

/// Builds with every base image being the one at hand. Nothing but the image itself is tagged.
#[track_caller]
fn build(space: &Space, name: &str, bases: &[&str], more: &[&str]) -> Image {
    let file = format!("{name}/stacker.yaml");
    let layout = space.path("bases:debian").display().to_string();
    let bases: Vec<String> = bases.iter().map(|base| format!("BASE_{base}=oci:{layout}")).collect();
    let mut arguments = vec!["-f", &file];
    bases.iter().for_each(|base| arguments.extend(["--substitute", base]));
    arguments.extend(more);
    let run = space.build(&arguments);
    let tags: Vec<String> = run.metadata().images.into_iter().map(|image| image.tag).collect();
    assert_eq!(tags, [name], "{run}");
    // Nothing has to be done again.
    space.build(&arguments).built(&[]);
    Image::read(space, name)
}

/// Runs a program in a copy of the image's files.
#[track_caller]
fn run(space: &Space, name: &str, base: &str, command: &[&str]) -> String {
    let file = format!("{name}/stacker.yaml");
    let base = format!("{base}=oci:{}", space.path("bases:debian").display());
    let arguments = [&["exec", "-f", &file, "--substitute", &base, name, "--"], command].concat();
    space.stacker(&arguments).ends_with(0).stdout
}

fn a_compiled_program_is_alone_in_its_image(space: &Space) {
    prepare(space, "compiled");
    space.write("compiled/secret", "s3cr3t");
    space.write("compiled/greetings/all.log", "noise");
    convert(space, "compiled").says("`Makefile*` became the 0 names that it matches now").says("Dockerfile:7:13");
    // A tag with an argument in it stays one.
    let base = format!("BASE_debian=oci:{}", space.path("bases").display());
    let bases = ["--substitute", &base, "--substitute", "ARG_DEBIAN=debian"];
    let image = build(space, "compiled", &[], &bases);
    holds_the_program(&image);
    let exec = |layer: &str, command: &[&str]| {
        let first = [&["exec", "-f", "compiled/stacker.yaml"], &bases[..], &[layer, "--"]].concat();
        space.stacker(&[&first[..], command].concat()).ends_with(0).stdout
    };
    assert_eq!(exec("compiled", &["/usr/bin/hello", "you"]), "hello you from dev\n");
    // What Docker would not send to the builder was not there.
    let seen = exec("builder", &["find", "/src", "-type", "f", "-printf", "%P\n"]);
    let mut seen: Vec<&str> = seen.lines().collect();
    seen.sort_unstable();
    let texts = ["greetings/cs.txt", "greetings/sv.txt", "main.c"];
    assert_eq!(seen, [&[".dockerignore", "Dockerfile", "go.mod", "greeting.c"][..], &texts].concat());
    // An argument is a substitution.
    let more = [&bases[..], &["--substitute", "ARG_VERSION=2.0"]].concat();
    build(space, "compiled", &[], &more);
    let said = [&["exec", "-f", "compiled/stacker.yaml"], &more[..], &["compiled", "--", "/usr/bin/hello"]].concat();
    assert_eq!(space.stacker(&said).ends_with(0).stdout, "hello nobody from 2.0\n");
}

fn holds_the_program(image: &Image) {
    image.looks(&[
        ("usr", "d 0755 0:0"),
        ("usr/bin/hello", "f 0755 0:0"),
        ("share/sv.txt", "f 0644 7:8"),
        ("share/cs.txt", "f 0644 7:8"),
        ("etc/build/version", "f 0640 0:0"),
        ("copy", "d 0755 0:0"),
        ("copy/sv.txt", "f 0644 0:0"),
    ]);
    image.holds(&[("share/sv.txt", "hej\n"), ("etc/build/version", "module example.com/hello\n")]);
    let names: Vec<&String> = image.files.keys().filter(|path| image.entry(path).kind != 'd').collect();
    let expected = ["copy/cs.txt", "copy/sv.txt", "etc/build/version", "share/cs.txt", "share/sv.txt"];
    assert_eq!(names, [&expected[..], &["usr/bin/hello"]].concat());
    assert_eq!(image.config["Entrypoint"], json!(["/usr/bin/hello"]));
    assert_eq!(image.config["Cmd"], json!(["world"]));
    assert_eq!(image.config.get("WorkingDir"), None);
}

fn a_python_program_with_requirements_from_files(space: &Space) {
    prepare(space, "python");
    let said = convert(space, "python");
    said.says("the cache at /root/.cache/pip is not carried over");
    said.says("RUN --mount=type=bind is not carried over: the script runs without /wheels");
    let image = build(space, "python", &["python"], &[]);
    image.looks(&[
        ("srv/app", "d 0755 0:0"),
        ("srv/app/requirements.txt", "f 0644 0:0"),
        ("srv/app/app", "d 0755 0:0"),
        ("srv/app/app/__main__.py", "f 0644 0:0"),
        ("srv/data", "d 0755 990:990"),
        ("srv/data/run.sh", "f 0755 990:990"),
        ("srv/data/data.json", "f 0644 990:990"),
        ("srv/data/who", "f 0644 990:990"),
        ("home/web", "d 0755 990:990"),
    ]);
    image.holds(&[
        ("srv/data/who", "as web in /srv/app with /home/web\n"),
        ("srv/app/requirements.txt", "greet==1.0\n"),
    ]);
    image.lacks(&["wheels", "packages", "tmp/wheels", "srv/app/packages", "stacker", ".copied"]);
    assert!(image.files.keys().any(|path| path.ends_with("dist-packages/greet.py")));
    assert_eq!(image.config["Cmd"], json!(["python3", "-m", "app", "--data", "/srv/data/data.json"]));
    assert_eq!((&image.config["User"], &image.config["WorkingDir"]), (&json!("web"), &json!("/srv/app")));
    assert_eq!(image.config["ExposedPorts"], json!({"8000/tcp": {}}));
    assert_eq!(image.variable("APP_HOME").as_deref(), Some("/srv/app"));
    let command = "cd /srv/app; export APP_HOME=$PWD
        exec setpriv --reuid web --clear-groups python3 -m app --data /srv/data/data.json";
    let said = run(space, "python", "BASE_python", &["sh", "-c", command]);
    assert_eq!(said, "hello snake /srv/app /srv/app 990\n");
}

fn a_node_program_with_a_build_script(space: &Space) {
    prepare(space, "node");
    space.write("node/node_modules/left/index.js", "");
    space.write("node/dist/old.js", "");
    let said = convert(space, "node");
    said.says("`package*.json` became the 2 names that it matches now");
    said.says("`$NODE_PATH` may be a variable of the base image");
    let image = build(space, "node", &["node"], &[]);
    image.looks(&[
        ("app", "d 0755 0:0"),
        ("app/dist", "d 0755 0:0"),
        ("app/dist/server.js", "f 0600 0:0"),
        ("app/dist/index.js", "l 0:0"),
        ("app/dist/public/index.html", "f 0644 0:0"),
        ("app/package.json", "f 0644 0:0"),
    ]);
    image.holds(&[("app/name.txt", "shop\n"), ("app/dist/index.js", "server.js")]);
    image.lacks(&["app/node_modules", "app/dist/old.js", "app/src", "app/build.js", "app/package-lock.json"]);
    assert_eq!(image.config["Cmd"], json!(["/bin/sh", "-c", "node dist/server.js"]));
    assert_eq!(image.config["ExposedPorts"], json!({"3000/tcp": {}}));
    let variables = (image.variable("PORT"), image.variable("NODE_PATH"), image.variable("NODE_ENV"));
    assert_eq!(variables, (Some("3000".into()), Some("/app/dist:/usr/lib/node".into()), None));
    let command = "cd /app; PORT=3000 NODE_PATH=x exec node dist/index.js";
    let said = run(space, "node", "BASE_node", &["sh", "-c", command]);
    assert_eq!(said, "shop 1.2.3 production on 3000 in /app x\n");
}

fn a_web_server_with_its_configuration(space: &Space) {
    prepare(space, "nginx");
    let assets = Archive::new().directory("./").directory("icons/").file("icons/a.svg", "<svg/>").end();
    space.write("nginx/assets.tar", assets);
    let gzip = Command::new("gzip").arg(space.path("nginx/assets.tar")).status().unwrap();
    assert!(gzip.success());
    own_all(space, "nginx");
    convert(space, "nginx").says_not("warning");
    let image = build(space, "nginx", &["nginx"], &[]);
    image.looks(&[
        ("etc/nginx/nginx.conf", "f 0644 0:0"),
        ("etc/nginx/conf.d/site.conf", "f 0644 0:0"),
        ("usr/share/nginx/html/index.html", "f 0644 33:33"),
        ("usr/share/nginx/html/css", "d 0755 33:33"),
        ("usr/share/nginx/html/css/style.css", "f 0644 33:33"),
        ("usr/share/nginx/html/assets", "d 0755 0:0"),
        ("usr/share/nginx/html/assets/icons/a.svg", "f 0644 0:0"),
        ("usr/share/nginx/html/robots.txt", "f 0644 0:0"),
        ("var/log/nginx/access.log", "l 0:0"),
    ]);
    image.holds(&[
        ("usr/share/nginx/html/assets/icons/a.svg", "<svg/>"),
        ("usr/share/nginx/html/robots.txt", "User-agent: *\nDisallow: /$private\n"),
        ("var/log/nginx/access.log", "/dev/stdout"),
    ]);
    assert_eq!(image.config["Cmd"], json!(["nginx", "-g", "daemon off;"]));
    assert_eq!(image.config["StopSignal"], "SIGQUIT");
    assert_eq!(image.config["ExposedPorts"], json!({"443/tcp": {}, "80/tcp": {}}));
    assert_eq!(image.config["Labels"]["org.opencontainers.image.title"], "the site");
    let ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8099/').read().decode(), end='')";
    let command = format!("nginx && python3 -c \"{ask}\" && kill -QUIT $(cat /tmp/nginx.pid)");
    let said = run(space, "nginx", "BASE_nginx", &["sh", "-ec", &command]);
    assert_eq!(said, "<h1>site</h1>\n");
}

fn a_service_with_a_user_a_volume_and_a_health_check(space: &Space) {
    prepare(space, "service");
    let private = space.path("service/config/private");
    fs::set_permissions(&private, fs::Permissions::from_mode(0o600)).unwrap();
    convert(space, "service").says("SHELL counts for the instructions here");
    let image = build(space, "service", &["debian"], &[]);
    image.looks(&[
        ("usr/local/bin/counter", "f 0755 0:0"),
        ("usr/local/bin/healthy", "f 0755 0:0"),
        ("etc/counter", "d 0755 0:0"),
        ("etc/counter/defaults", "f 0644 0:0"),
        // Docker keeps modes.
        ("etc/counter/private", "f 0600 0:0"),
        ("var/lib/counter", "d 0750 1500:1500"),
        ("var/lib/counter/defaults", "f 0644 1500:1500"),
        ("var/lib/counter/count", "f 0644 1500:1500"),
    ]);
    image.holds(&[("var/lib/counter/count", "41\n"), ("var/lib/counter/by", "1500\n")]);
    image.lacks(&["stacker", "stacker/script"]);
    let expected = json!({
        "Test": ["CMD-SHELL", "healthy || exit 1"], "Interval": 30_000_000_000_u64, "Timeout": 3_000_000_000_u64,
        "StartPeriod": 60_000_000_000_u64, "Retries": 5,
    });
    assert_eq!(image.config["Healthcheck"], expected);
    assert_eq!((&image.config["User"], &image.config["StopSignal"]), (&json!("counter"), &json!("SIGINT")));
    assert_eq!(image.config["Volumes"], json!({"/var/lib/counter": {}}));
    assert_eq!((&image.config["Entrypoint"], &image.config["Cmd"]), (&json!(["counter"]), &json!(["--once"])));
    assert_eq!(image.config["WorkingDir"], "/var/lib/counter");
    let command = "cd /var/lib/counter; as='setpriv --reuid counter --regid counter --clear-groups'
        $as healthy && $as counter --once";
    let said = run(space, "service", "BASE_debian", &["sh", "-ec", command]);
    assert_eq!(said, "42 --once 1500:1500 /var/lib/counter\n");
}
