//! Requests and downloads with servers that are busy, slow or broken.

mod support;

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use stacker::http::{Begin, Client, Download, Failure, Got, Options, Same};
use support::authority::Authority;
use support::server::{Reply, Server};

/// Nothing is known of what is there.
const BY_VALIDATOR: Same = Same::ByValidator { known: None, begins: &|_| Ok(Begin::Wanted) };

fn client() -> Client {
    Client::new(Options { retries: 2, patience: Duration::from_secs(1), ..Options::default() })
}

fn get(client: &Client, url: &str) -> Result<reqwest::blocking::Response, Failure> {
    client.send(&format!("GET {url}"), &mut || Ok(client.requests(false)?.get(url)))
}

/// Downloads onto what is there already.
fn download(client: &Client, url: &str, there: &[u8], same: Same, most: u64) -> Result<Vec<u8>, Failure> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("part");
    std::fs::write(&path, there).unwrap();
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let (what, progress) = (format!("GET {url}"), |_: u64, _: Option<u64>| {});
    let mut request = || Ok(client.requests(false)?.get(url));
    let download = Download { what: &what, request: &mut request, path: &path, same, most, progress: &progress };
    match client.download(download, &mut file)? {
        Got::Whole(_) => Ok(std::fs::read(&path).unwrap()),
        Got::Other(response) => Err(Failure::status(&what, response)),
    }
}

fn content() -> Vec<u8> {
    (0..3_000_000_u32).map(|at| (at / 7) as u8).collect()
}

#[test]
fn a_busy_server_is_asked_again() {
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::new(503, "later"),
        1 => Reply::new(429, "").with("Retry-After", "1"),
        _ => Reply::new(200, "here"),
    });
    let mut text = String::new();
    get(&client(), &server.url("/x")).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), server.requests().len()), ("here", 3));
}

#[test]
fn failures_say_what_was_asked_and_why() {
    let refused = get(&client(), "http://127.0.0.1:9/x").unwrap_err();
    assert!(refused.unreachable && refused.message.contains("refused"), "{refused}");
    assert!(refused.message.ends_with("(tried 3 times)"), "{refused}");
    let server = Server::start(|request| match request.path.as_str() {
        "/slow" => Reply { pause: Duration::from_secs(5), ..Reply::new(200, "") },
        "/broken" => Reply::new(500, r#"{"errors": [{"code": "UNKNOWN", "message": "no disk"}]}"#),
        "/long" => Reply::new(429, "").with("Retry-After", "9000"),
        _ => Reply::new(404, "nothing"),
    });
    let failed = |path: &str| get(&client(), &server.url(path)).unwrap_err().message;
    let url = |path: &str| server.url(path);
    assert_eq!(failed("/slow"), format!("GET {}: no answer in time (tried 3 times)", url("/slow")));
    let broken = "the server answers 500 Internal Server Error: no disk (UNKNOWN) (tried 3 times)";
    assert_eq!(failed("/broken"), format!("GET {}: {broken}", url("/broken")));
    let long = "the server answers 429 Too Many Requests; it wants 9000 s of pause";
    assert_eq!(failed("/long"), format!("GET {}: {long}", url("/long")));
    // What will stay as it is comes back at once.
    assert_eq!(get(&client(), &server.url("/none")).unwrap().status(), 404);
}

#[test]
fn a_download_goes_on_where_it_broke() {
    let server = Server::start(|request| {
        let cut = match request.from() {
            None => Some(1_200_000),
            Some(from) if from < 2_000_000 => Some(900_000),
            Some(_) => None,
        };
        Reply { cut, ..Reply::range(request, &content()).with("etag", "\"one\"") }
    });
    let got = download(&client(), &server.url("/x"), b"", BY_VALIDATOR, 1 << 30).unwrap();
    assert!(got == content());
    let from: Vec<_> = server.requests().iter().map(|request| request.from()).collect();
    assert_eq!((from.len(), from[0]), (3, None));
    assert!(server.requests()[1..].iter().all(|request| request.header("if-range") == Some("\"one\"")));
}

#[test]
fn what_can_not_be_known_to_be_the_same_is_fetched_anew() {
    let begun = content()[..1000].to_vec();
    // No validator: two answers may be two files.
    let server = Server::start(|request| Reply::range(request, &content()));
    let got = download(&client(), &server.url("/x"), &begun, BY_VALIDATOR, 1 << 30).unwrap();
    assert!(got == content() && server.requests()[0].from().is_none());
    // By digest there is only one.
    let got = download(&client(), &server.url("/x"), &begun, Same::ByDigest, 1 << 30).unwrap();
    assert!(got == content() && server.requests()[1].from() == Some(1000));
    // More than there is: from the beginning.
    let got = download(&client(), &server.url("/x"), &[0; 3_000_001], Same::ByDigest, 1 << 30).unwrap();
    assert!(got == content());
    // A server that has no ranges.
    let plain = Server::start(|_| Reply::new(200, content()));
    assert!(download(&client(), &plain.url("/x"), &begun, Same::ByDigest, 1 << 30).unwrap() == content());
}

#[test]
fn a_download_has_a_limit() {
    let server = Server::start(|request| Reply::range(request, &content()));
    let failed = download(&client(), &server.url("/x"), b"", Same::ByDigest, 1000).unwrap_err();
    assert!(failed.message.contains("more than 1000 B, which are refused"), "{failed}");
}

#[test]
fn secrets_are_not_shown() {
    assert_eq!(stacker::http::shown("https://me:word@host/a?signature=s#f"), "https://host/a");
}

#[test]
fn servers_with_certificates_of_an_unknown_authority_are_trusted_where_it_is_named() {
    let authority = Authority::new();
    let server = Server::start_tls(&authority, |request| Reply::range(request, &content()));
    let unknown = get(&client(), &server.url("/x")).unwrap_err().message;
    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
    assert!(unknown.ends_with("(--ca-file FILE trusts further certificates)"), "{unknown}");
    assert!(server.requests().is_empty());
    let trusting = |file| Client::new(Options { ca_file: Some(file), ..Options::default() });
    let named = trusting(authority.certificate());
    assert!(download(&named, &server.url("/x"), b"", Same::ByDigest, 1 << 30).unwrap() == content());
    let none = trusting(authority.server_key());
    let failed = get(&none, &server.url("/x")).unwrap_err().to_string();
    assert!(failed.contains("it holds no certificate (PEM is needed)"), "{failed}");
}
