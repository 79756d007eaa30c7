//! Servers that fail, downloads that break, and what is left of them in the store.

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use support::offer::{Offer, copies, copying, out, sha256};
use support::server::{Reply, Server};
use support::space::{Run, for_each_identity};

#[test]
fn a_server_that_fails_is_told_and_the_copy_used() {
    for_each_identity(|space| {
        let (offer, mut seen) = (Offer::new("kept\n", &[("etag", "\"1\"")]), 0);
        let url = offer.url("/x");
        space.stackerfile(&copying(&url));
        offer.change(|state| state.status = Some(503));
        let failing = ["build", "--retries", "0"];
        let run = space.stacker(&failing).ends_with(1);
        run.says(&format!("GET {url}: the server answers 503 Service Unavailable: so it is; no copy of it is kept"));
        run.says("stacker.yaml:6:");
        let offline = space.stacker(&["build", "--offline"]).ends_with(1);
        offline.says(&format!("import {url} is not kept here, and --offline asks no server")).says("stacker.yaml:6:");
        offer.change(|state| state.status = None);
        space.build(&[]);
        offer.change(|state| state.status = Some(503));
        let run = space.build(&["--retries", "0"]);
        run.built(&[]).says("warning: GET http").says("503 Service Unavailable: so it is; the copy of 20");
        // Nobody there at all.
        let mut unreachable = space.command(&failing);
        unreachable.env("http_proxy", "http://127.0.0.1:9");
        let run = space.run_of(&failing, unreachable.output().unwrap()).ends_with(0);
        run.built(&[]).says("refused").says("is used");
        // What the server says of the file itself counts.
        for (status, name) in [(404, "404 Not Found"), (403, "403 Forbidden")] {
            offer.change(|state| state.status = Some(status));
            let run = space.stacker(&["build"]).ends_with(1);
            run.says(name).says("is kept, which --offline uses").says("stacker.yaml:6:");
        }
        offer.asked(&mut seen);
        space.build(&["--offline"]).built(&[]).says_not("warning");
        space.stacker(&["shell", "app", "--offline", "--", "cat", "/out"]).ends_with(0);
        assert!(offer.asked(&mut seen).is_empty());
    });
}

#[test]
fn a_download_that_broke_goes_on() {
    let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 7) as u8).collect();
    for_each_identity(|space| {
        let (offer, mut seen) = (Offer::new(content.clone(), &[("etag", "\"1\"")]), 0);
        let hash = sha256(&content);
        let summing = copying(&format!("{{path: '{}', hash: {hash}}}", offer.url("/x")));
        space.stackerfile(&summing.replace("> /out", "> /out; sha256sum /out > /sum"));
        offer.change(|state| state.cut = Some(1_000_000));
        let run = space.stacker(&["build", "--retries", "0"]).ends_with(1);
        run.says("the connection broke").says("no copy of it is kept");
        assert_eq!(copies(space).len(), 2, "{:?}", copies(space));
        // By the next build, and in it.
        space.stacker(&["build", "--retries", "1"]).ends_with(0);
        let from: Vec<_> = offer.asked(&mut seen).iter().map(|request| request.from()).collect();
        assert_eq!(from, [None, Some(1_000_000), Some(2_000_000)]);
        assert_eq!(space.file("app", "sum").unwrap(), format!("{hash}  /out\n"));
        // What belongs to another file is not gone on with.
        space.stackerfile(&copying(&offer.url("/y")));
        space.stacker(&["build", "--retries", "0"]).ends_with(1);
        offer.headers(&[("etag", "\"2\"")]);
        offer.change(|state| (state.cut, state.content) = (None, b"short".into()));
        space.build(&[]);
        assert_eq!(out(space), "short");
        assert!(copies(space).iter().all(|name| !name.ends_with(".part") && !name.ends_with(".resume")));
    });
}

/// Everything in a directory that holds a text.
fn holding(directory: &Path, texts: &[&str], found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        match path.symlink_metadata().unwrap() {
            it if it.is_dir() => holding(&path, texts, found),
            it if it.is_file() => {
                let content = fs::read(&path).unwrap();
                let holds = |text: &&str| content.windows(text.len()).any(|piece| piece == text.as_bytes());
                if texts.iter().any(holds) {
                    found.push(path.display().to_string());
                }
            }
            _ => {}
        }
    }
}

#[test]
fn passwords_are_sent_and_neither_shown_nor_stored() {
    for_each_identity(|space| {
        let server = Server::start(|request| match (request.header("authorization"), request.path.as_str()) {
            (Some("Basic bWU6czNjcmV0"), "/x") => Reply::new(200, "secret content\n").with("etag", "\"1\""),
            (Some("Basic bWU6czNjcmV0"), _) => Reply::new(404, ""),
            _ => Reply::new(401, ""),
        });
        let url = server.url("/x").replace("http://", "http://me:s3cret@");
        let secrets = ["s3cret", "czNjcmV0"];
        let quiet = |run: &Run| secrets.iter().for_each(|text| assert!(!run.stderr.contains(text), "{run}"));
        space.stackerfile(&copying(&url));
        quiet(&space.build(&["--debug", "--log-timestamp"]));
        quiet(&space.build(&[]));
        assert_eq!(out(space), "secret content\n");
        space.stackerfile(&copying(&url.replace("/x", "/none?s3cret")));
        let run = space.stacker(&["build", "--debug"]).ends_with(1);
        run.says(&format!("GET {}: the server answers 404", server.url("/none"))).says("http://*********@127");
        space.stackerfile(&copying(&server.url("/x")));
        space.stacker(&["build"]).ends_with(1).says("401 Unauthorized");
        let mut found = Vec::new();
        holding(&space.stacker_dir(), &secrets, &mut found);
        holding(&space.path("oci"), &secrets, &mut found);
        assert!(found.is_empty(), "{found:?}");
    });
}

#[test]
fn what_is_kept_is_verified_and_collected() {
    for_each_identity(|space| {
        let offer = Offer::new("content\n", &[("etag", "\"1\"")]);
        space.stackerfile(&copying(&offer.url("/x")));
        space.build(&[]);
        let verify = || space.stacker(&["cache", "verify", "--deep"]);
        assert!(verify().ends_with(0).stdout.contains("1 files from servers: all right"));
        let copy = space.stacker_dir().join("remote").join(format!("sha256-{}", sha256(b"content\n")));
        fs::write(&copy, "Content\n").unwrap();
        let told = verify().ends_with(1).stdout;
        assert!(told.contains(&format!("damaged: copy of {}", offer.url("/x"))), "{told}");
        assert!(!copy.exists());
        space.build(&[]).built(&[]);
        assert!(copy.exists());
        // What was used just now stays, and goes when it is old.
        space.stacker(&["gc", "--older-than", "1h"]).ends_with(0);
        assert!(copy.exists());
        space.stacker(&["gc"]).ends_with(0);
        assert!(copy.exists());
        let collect = || {
            // Ages are whole seconds.
            std::thread::sleep(Duration::from_millis(1100));
            space.stacker(&["gc", "--older-than", "0s"]).ends_with(0).stdout
        };
        let told = collect();
        assert!(told.contains("/remote/sha256-"), "{told}");
        assert_eq!(copies(space), [""; 0]);
        // A part that nobody goes on with.
        offer.headers(&[("etag", "\"2\"")]);
        offer.change(|state| (state.content, state.cut) = (vec![7; 1000], Some(10)));
        space.stacker(&["build", "--retries", "0"]).ends_with(1);
        space.stacker(&["gc"]).ends_with(0);
        assert_eq!(copies(space).len(), 2);
        collect();
        assert_eq!(copies(space), [""; 0]);
        space.stacker(&["clean"]).ends_with(0);
        assert!(!space.stacker_dir().exists());
    });
}

#[test]
fn two_builds_fetch_one_file_after_the_other() {
    for_each_identity(|space| {
        let content = vec![b'x'; 100_000];
        let offer = Offer::new(content.clone(), &[("etag", "\"1\"")]);
        offer.change(|state| state.pause = Duration::from_millis(300));
        space.stackerfile(&copying(&offer.url("/x")));
        let start = |oci: &str| {
            let metadata = format!("{oci}.json");
            let mut command = space.command(&["build", "--oci-dir", oci, "--metadata-file", &metadata]);
            (oci.to_owned(), command.spawn().unwrap())
        };
        for (oci, child) in ["one", "two", "three"].map(start) {
            space.run_of(&[&oci], child.wait_with_output().unwrap()).ends_with(0);
        }
        let asked = offer.server.requests();
        let whole = asked.iter().filter(|request| request.header("if-none-match").is_none()).count();
        assert_eq!((asked.len(), whole), (3, 1), "{asked:?}");
        assert!(copies(space).iter().all(|name| !name.ends_with(".part")));
        assert_eq!(fs::read(space.stacker_dir().join(format!("remote/sha256-{}", sha256(&content)))).unwrap(), content);
    });
}
