//! Certificates that are trusted besides the system's: for what stacker fetches, and for scripts.

mod support;

use std::fs;

use support::authority::Authority;
use support::server::{Reply, Server};
use support::space::{Space, for_each_identity};

const CA: [&str; 2] = ["--ca-file", "company.pem"];

/// A key lies in the same file, which is nobody's business.
fn write_company_file(space: &Space, authority: &Authority) {
    let [key, certificate] =
        [authority.server_key(), authority.certificate()].map(|path| fs::read_to_string(path).unwrap());
    space.write("company.pem", key + &certificate);
}

#[test]
fn what_is_fetched_from_a_companys_server_is_fetched_where_its_authority_is_named() {
    let authority = Authority::new();
    let server = Server::start_tls(&authority, |_| Reply::new(200, "by TLS\n").with("etag", "\"1\""));
    for_each_identity(|space| {
        write_company_file(space, &authority);
        let url = server.url("/x");
        let app = format!("app: {{from: {{type: built, tag: base}}, imports: [{{path: '{url}', dest: /x}}]}}\n");
        space.stackerfile(&app);
        let run = space.stacker(&["build"]).ends_with(1);
        run.says("UnknownIssuer (--ca-file FILE trusts further certificates); no copy of it is kept");
        space.build(&CA);
        assert_eq!(space.file("app", "x").as_deref(), Some("by TLS\n"));
        // The configuration file says the same.
        space.write("conf.yaml", "ca_file: company.pem\n");
        space.build(&["--config", "conf.yaml"]).built(&[]).says_not("UnknownIssuer");
        space.write("empty.pem", "nothing\n");
        space.stacker(&["build", "--ca-file", "empty.pem"]).ends_with(2).says("it holds no certificate");
        space.stacker(&["build", "--ca-file", "missing.pem"]).ends_with(3).says("missing.pem");
    });
}

#[test]
fn scripts_get_them_and_their_layers_do_not_depend_on_them() {
    let authority = Authority::new();
    let certificate = fs::read_to_string(authority.certificate()).unwrap();
    for_each_identity(|space| {
        write_company_file(space, &authority);
        space.stackerfile(
            "
app:
  from: {type: built, tag: base}
  run: |
    cat \"$SSL_CERT_FILE\" > /bundle
    echo \"$CURL_CA_BUNDLE $REQUESTS_CA_BUNDLE $PIP_CERT $NODE_EXTRA_CA_CERTS $GIT_SSL_CAINFO $CARGO_HTTP_CAINFO\" > /out
    if echo x >> \"$SSL_CERT_FILE\"; then exit 1; fi
  generate_labels: wc -l < \"$SSL_CERT_FILE\" > /stacker/oci-labels/lines
own:
  from: {type: built, tag: base}
  build_env: {SSL_CERT_FILE: /mine}
  run: echo \"$SSL_CERT_FILE\" > /own
",
        );
        let run = space.build(&CA);
        let bundle = space.file("app", "bundle").unwrap();
        assert!(bundle.ends_with(&certificate) && !bundle.contains("PRIVATE KEY"), "{bundle}");
        if let Ok(system) = fs::read_to_string("/etc/ssl/certs/ca-certificates.crt") {
            assert_eq!(bundle, system + &certificate);
        }
        let place = "/stacker/.ca-certificates.pem";
        assert_eq!(space.file("app", "out").unwrap(), [place; 6].join(" ") + "\n");
        assert_eq!(space.file("own", "own").as_deref(), Some("/mine\n"));
        assert_eq!(space.file("app", "stacker/.ca-certificates.pem"), None);
        // As if there were none, in the key and in the image.
        let without = space.build(&[]);
        assert_eq!((without.built(&[]).digests(), without.image("own")), (run.digests(), run.image("own")));
        let anew = space.build(&["--no-cache", "own"]);
        assert_eq!(anew.image("own"), run.image("own"));
        // Commands in a layer's surroundings have them too.
        let look = ["sh", "-c", "cat $SSL_CERT_FILE"];
        for command in [&["shell", "app"][..], &["shell", "app", "--before"], &["shell", "own", "--before"]] {
            let shown =
                space.stacker(&[command, &CA, &["--"], &look].concat()).ends_with(i32::from(command[1] == "own"));
            assert_eq!(shown.stdout, if command[1] == "own" { "" } else { &bundle }, "{shown}");
        }
        let shown = space.stacker(&["exec", "--ca-file", "company.pem", "app", "--", "cat", place]).ends_with(0);
        assert_eq!(shown.stdout, bundle);
        // What failed with them is looked into with them.
        space.edit("stacker.yaml", "run: echo", "run: false; echo");
        space.stacker(&[&["build"], &CA[..]].concat()).ends_with(1);
        let shown = space.stacker(&["shell", "own", "--failed", "--", "cat", place]).ends_with(0);
        assert_eq!(shown.stdout, bundle);
    });
}
