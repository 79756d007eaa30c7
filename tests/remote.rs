//! Imports and tar bases from http servers: what is asked of them, and what is kept.

mod support;

use std::fs;
use std::io::Write;
use std::time::Duration;

use support::offer::{Offer, copying, out, sha256};
use support::server::{Reply, Server};
use support::space::{Space, for_each_identity};

#[test]
fn a_file_is_fetched_once_and_then_asked_for() {
    for_each_identity(|space| {
        let (offer, mut seen) = (Offer::new("first\n", &[("etag", "\"1\"")]), 0);
        let (one, other) = (offer.url("/dir/a%20file?key=1#part"), offer.url("/other"));
        space.stackerfile(&format!(
            "
app:
  from: {{type: built, tag: base}}
  imports: ['{one}', {{path: '{other}', dest: /d/}}, {{path: '{other}', dest: /e/x, mode: 0600}}]
  run: |
    cat '/stacker/imports/a file' /d/other /e/x > /out
    stat -c '%a %u %g' '/stacker/imports/a file' /d/other /e/x >> /out
again: {{from: {{type: built, tag: base}}, imports: [{{path: '{one}', dest: /data}}]}}
old: {{from: {{type: built, tag: base}}, import: '{other}', run: cmp /stacker/other /stacker/imports/other}}
"
        ));
        space.build(&[]).built(&["base", "app", "again", "old"]).says("/other: downloading 6 B");
        assert_eq!(out(space), "first\nfirst\nfirst\n644 0 0\n644 0 0\n600 0 0\n");
        // The base has a directory of that name.
        assert_eq!(space.file("again", "data/a file").as_deref(), Some("first\n"));
        let mut asked: Vec<String> = offer.asked(&mut seen).into_iter().map(|request| request.path).collect();
        asked.sort();
        assert_eq!(asked, ["/dir/a%20file?key=1", "/other"]);
        // A question each, and no body.
        let run = space.build(&[]);
        run.built(&[]).says_not("downloading");
        let asked = offer.asked(&mut seen);
        assert_eq!(asked.len(), 2);
        assert!(asked.iter().all(|request| request.header("if-none-match") == Some("\"1\"")));
        // Another file of the same length.
        offer.change(|state| state.content = b"other\n".into());
        offer.headers(&[("etag", "\"2\"")]);
        space.build(&[]).built(&["app", "again", "old"]);
        assert!(out(space).starts_with("other\nother\nother\n"));
        // What is built only needs what it needs.
        assert_eq!(offer.asked(&mut seen).len(), 2);
        space.build(&["base"]);
        assert!(offer.asked(&mut seen).is_empty());
    });
}

#[test]
fn what_a_hash_names_is_not_asked_for_again() {
    for_each_identity(|space| {
        let (offer, mut seen) = (Offer::new("content\n", &[]), 0);
        let hash = sha256(b"content\n").to_uppercase();
        space.stackerfile(&copying(&format!("{{path: {}, hash: {hash}}}", offer.url("/x"))));
        space.build(&["--require-hash"]).built(&["base", "app"]);
        assert_eq!(offer.asked(&mut seen).len(), 1);
        space.build(&[]).built(&[]);
        // Nor by another URL.
        space.edit("stacker.yaml", "/x", "/elsewhere/x");
        space.build(&[]).built(&[]);
        assert!(offer.asked(&mut seen).is_empty());
        // Without it the server may have something else.
        space.stackerfile(&copying(&offer.url("/x")));
        space.build(&[]).built(&[]);
        assert_eq!(offer.asked(&mut seen).len(), 1);
        space.stacker(&["build", "--require-hash"]).ends_with(1).says("has no `hash`, which --require-hash asks for");
        assert!(offer.asked(&mut seen).is_empty());
    });
}

#[test]
fn a_wrong_hash_is_told_and_nothing_of_it_stays_in_use() {
    for_each_identity(|space| {
        let offer = Offer::new("bad\n", &[("etag", "\"same\"")]);
        let (url, wanted) = (offer.url("/x"), sha256(b"good\n"));
        space.stackerfile(&copying(&format!("{{path: '{url}', hash: {wanted}}}")));
        let told = format!("import {url} has another sha256: wanted {wanted}, found {}", sha256(b"bad\n"));
        space.stacker(&["build"]).ends_with(1).says(&told).says("stacker.yaml:6:");
        // Even if the server says that nothing changed since.
        offer.change(|state| state.content = b"good\n".into());
        space.build(&[]);
        assert_eq!(out(space), "good\n");
        // A copy that was damaged is fetched again.
        let copy = space.stacker_dir().join("remote").join(format!("sha256-{wanted}"));
        fs::write(&copy, "goof\n").unwrap();
        space.build(&["--no-cache"]);
        assert_eq!((out(space).as_str(), fs::read(&copy).unwrap().as_slice()), ("good\n", &b"good\n"[..]));
        // A hash that can not be one, before anything is asked.
        let before = offer.server.requests().len();
        space.edit("stacker.yaml", &wanted, "12");
        space.stacker(&["build"]).ends_with(1).says("64 hexadecimal digits");
        assert_eq!(offer.server.requests().len(), before);
    });
}

#[test]
fn without_a_strong_validator_it_is_fetched_each_time() {
    for_each_identity(|space| {
        let (offer, mut seen) = (Offer::new("same\n", &[("etag", "W/\"weak\"")]), 0);
        space.stackerfile(&copying(&offer.url("/x")));
        space.build(&[]).built(&["base", "app"]);
        space.build(&[]).built(&[]).says("downloading");
        offer.change(|state| state.content = b"else\n".into());
        space.build(&[]).built(&["app"]);
        assert!(offer.asked(&mut seen).iter().all(|request| request.header("if-none-match").is_none()));
        // A date that a change in the same second would have too.
        let now = jiff::Timestamp::now();
        let http = |time: jiff::Timestamp| time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let (date, old) = (http(now), http(now - Duration::from_secs(5)));
        offer.headers(&[("last-modified", &date), ("date", &date)]);
        space.build(&[]).built(&[]).says("downloading");
        offer.change(|state| state.content = b"new!\n".into());
        space.build(&[]).built(&["app"]);
        // An older one: the headers are enough, no body comes.
        offer.headers(&[("last-modified", &old), ("date", &date)]);
        space.build(&[]).built(&[]).says("downloading");
        offer.change(|state| state.cut = Some(0));
        space.build(&[]).built(&[]).says_not("downloading");
        // Also an earlier date is another file.
        let older = http(now - Duration::from_secs(500));
        offer.headers(&[("last-modified", &older), ("date", &date)]);
        offer.change(|state| (state.cut, state.content) = (None, b"back\n".into()));
        space.build(&[]).built(&["app"]);
        assert_eq!(out(space), "back\n");
    });
}

#[test]
fn a_checksum_that_the_server_tells_is_compared() {
    for_each_identity(|space| {
        let sum = sha256(b"content\n");
        let offer = Offer::new("content\n", &[("x-checksum-sha256", &sum)]);
        space.stackerfile(&copying(&offer.url("/x")));
        space.build(&[]);
        // It saves the download.
        offer.change(|state| state.cut = Some(0));
        space.build(&[]).built(&[]);
        offer.change(|state| (state.cut, state.content) = (None, b"changed\n".into()));
        offer.headers(&[("x-checksum-sha256", &sha256(b"sent\n"))]);
        let run = space.stacker(&["build"]).ends_with(1);
        run.says(&format!("its sha256 is {}, but {} came", sha256(b"sent\n"), sha256(b"changed\n")));
        run.says("a copy of 20");
        offer.headers(&[("x-checksum-sha256", &sha256(b"changed\n"))]);
        space.build(&[]).built(&["app"]);
    });
}

#[test]
fn redirects_and_proxies_lead_to_the_file() {
    for_each_identity(|space| {
        let server = Server::start(|request| match request.path.as_str() {
            "/first" => Reply::new(302, "").with("location", "/second/third"),
            "/second/third" => Reply::new(200, "redirected\n"),
            "http://files.invalid/x" => Reply::new(200, "by proxy\n"),
            _ => Reply::new(302, "").with("location", "/loop"),
        });
        // It is called as the URL that was written.
        space.stackerfile(&copying(&server.url("/first")).replace("imports/*", "imports/first"));
        space.build(&[]);
        assert_eq!(out(space), "redirected\n");
        space.stackerfile(&copying("http://files.invalid/x"));
        let mut proxied = space.command(&["build"]);
        proxied.env("http_proxy", server.url(""));
        space.run_of(&["build"], proxied.output().unwrap()).ends_with(0);
        assert_eq!(out(space), "by proxy\n");
        space.stackerfile(&copying(&server.url("/loop")));
        space.stacker(&["build"]).ends_with(1).says("more than ten redirects");
    });
}

#[test]
fn tar_bases_come_from_servers_too() {
    for_each_identity(|space| {
        let mut tar = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        tar.write_all(&support::base::tar()).unwrap();
        let (offer, mut seen) = (Offer::new(tar.finish().unwrap(), &[("etag", "\"1\"")]), 0);
        let url = offer.url("/base.tar.gz");
        let layer =
            |name: &str, url: &str| format!("{name}: {{from: {{type: tar, url: '{url}'}}, run: 'echo x > /out'}}\n");
        space.write("stacker.yaml", layer("app", &url));
        space.build(&[]).built(&["app"]);
        space.build(&[]).built(&[]);
        let asked: Vec<_> = offer.asked(&mut seen).iter().map(|it| it.header("if-none-match").is_some()).collect();
        assert_eq!(asked, [false, true]);
        assert_eq!((space.file("app", "data/doomed").as_deref(), space.layers("app").len()), (Some("doomed"), 2));
        offer.change(|state| state.content = b"no tar".repeat(1000));
        offer.headers(&[("etag", "\"2\"")]);
        space.stacker(&["build"]).ends_with(1).says(&format!("error: app: {url}: "));
        // More than may be is not even fetched.
        offer.headers(&[("etag", "\"3\"")]);
        let run = space.stacker(&["build", "--max-layer-size", "5000B"]).ends_with(1);
        run.says("there are more than 4.9 KiB, which are refused").says("stacker.yaml:1:");
    });
}

#[test]
fn urls_without_a_name_need_a_place() {
    let space = Space::new();
    let offer = Offer::new("content\n", &[("etag", "\"1\"")]);
    let refused = |import: &str, text: &str| {
        space.stackerfile(&copying(import));
        space.stacker(&["build"]).ends_with(1).says(text).says("stacker.yaml:6:").says_not("imports/*'");
    };
    let bare = offer.url("/");
    refused(&bare, "this import has no name of its own");
    refused(&format!("{{path: '{bare}', dest: /d/}}"), "let its `dest` end with the name it is to have");
    refused(&offer.url("/a%2Fb"), "this import has no name of its own");
    refused("http://", "is no URL");
    refused("ftp://host/x", "an import cannot come from `ftp://`");
    assert!(offer.server.requests().is_empty());
    let place = |dest: &str| {
        space.stackerfile(&format!(
            "app: {{from: {{type: built, tag: base}}, imports: [{{path: '{bare}', dest: {dest}}}]}}\n"
        ));
        space.stacker(&["build"])
    };
    place("/d/x").ends_with(0);
    assert_eq!(space.file("app", "d/x").as_deref(), Some("content\n"));
    place("/data").says("/data is a directory, and the import has no name of its own");
}
