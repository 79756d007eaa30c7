//! A small HTTP server of a test's own, which can be as broken as real ones are.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::authority::Authority;

/// What was asked.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With its query.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The connection is closed after so many bytes of the body, which is announced in full.
    pub cut: Option<usize>,
    /// Nothing is sent for so long.
    pub pause: Duration,
}

/// Listens on a loopback port until the test ends.
pub struct Server {
    scheme: &'static str,
    address: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// `answer` is called for each request, from several threads.
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        Server::listen("http", answer, Some)
    }

    /// The same with TLS, with the authority's certificate for a server.
    pub fn start_tls(authority: &Authority, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        let certificates = CertificateDer::pem_file_iter(authority.server_certificate()).unwrap();
        let key = PrivateKeyDer::from_pem_file(authority.server_key()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(certificates.map(Result::unwrap).collect(), key);
        let config = Arc::new(config.unwrap());
        Server::listen("https", answer, move |connection| {
            Some(StreamOwned::new(ServerConnection::new(config.clone()).ok()?, connection))
        })
    }

    fn listen<C: Read + Write>(
        scheme: &'static str,
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
        accept: impl Fn(TcpStream) -> Option<C> + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, accept, log) = (Arc::new(answer), Arc::new(accept), seen.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (answer, accept, log) = (answer.clone(), accept.clone(), log.clone());
                std::thread::spawn(move || accept(connection).map(|connection| serve(connection, &*answer, &log)));
            }
        });
        Server { scheme, address, seen }
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `http://HOST:PORT/path`, or with https.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Where a `Range: bytes=N-` begins.
    pub fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }

    /// The answer of another server to the same request.
    pub fn forward(&self, to: &str) -> Reply {
        let mut server = TcpStream::connect(to).unwrap();
        let mut text = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            if !["connection", "transfer-encoding", "content-length"].contains(&name.as_str()) {
                text += &format!("{name}: {value}\r\n");
            }
        }
        text += &format!("content-length: {}\r\n\r\n", self.body.len());
        server.write_all(text.as_bytes()).and_then(|()| server.write_all(&self.body)).unwrap();
        let mut reader = BufReader::new(server);
        let (first, headers) = head(&mut reader).unwrap();
        let status = first.split(' ').nth(1).unwrap().parse().unwrap();
        let body = if self.method == "HEAD" { Vec::new() } else { body(&mut reader, &headers, true) };
        let kept = |(name, _): &(String, String)| !["connection", "transfer-encoding"].contains(&name.as_str());
        let headers = headers.into_iter().filter(kept).collect();
        Reply { status, headers, body, cut: None, pause: Duration::ZERO }
    }
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        Reply { status, headers: Vec::new(), body: body.into(), cut: None, pause: Duration::ZERO }
    }

    pub fn with(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// All of `content`, or what a range asks for of it.
    pub fn range(request: &Request, content: &[u8]) -> Reply {
        match request.from() {
            Some(from) if from < content.len() => {
                let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
                Reply::new(206, &content[from..]).with("content-range", &range)
            }
            Some(_) => Reply::new(416, ""),
            None => Reply::new(200, content),
        }
    }
}

fn serve(connection: impl Read + Write, answer: &dyn Fn(&Request) -> Reply, log: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(connection);
    let Some((first, headers)) = head(&mut reader) else { return };
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    if headers.iter().any(|(name, value)| name == "expect" && value.contains("100")) {
        let _ = reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    let body = body(&mut reader, &headers, false);
    let request = Request { method, path, headers, body };
    log.lock().unwrap().push(request.clone());
    let reply = answer(&request);
    std::thread::sleep(reply.pause);
    let _ = send(reader.get_mut(), &request, &reply);
}

fn send(connection: &mut impl Write, request: &Request, reply: &Reply) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {} of the test\r\nconnection: close\r\n", reply.status);
    if !reply.headers.iter().any(|(name, _)| name == "content-length") {
        text += &format!("content-length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        text += &format!("{name}: {value}\r\n");
    }
    connection.write_all(format!("{text}\r\n").as_bytes())?;
    let end = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
    if request.method != "HEAD" {
        connection.write_all(&reply.body[..end])?;
    }
    connection.flush()
}

fn head(reader: &mut impl BufRead) -> Option<(String, Vec<(String, String)>)> {
    let mut first = String::new();
    reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    Some((first.trim_end().to_owned(), headers))
}

/// A body by its length, in chunks, or (of an answer) to the end.
fn body(reader: &mut impl BufRead, headers: &[(String, String)], to_end: bool) -> Vec<u8> {
    let header = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let mut body = Vec::new();
    if header("transfer-encoding") == Some("chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let size = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
            reader.by_ref().take(size).read_to_end(&mut body).unwrap();
            reader.read_line(&mut line).unwrap();
            if size == 0 {
                return body;
            }
        }
    }
    match header("content-length").map(|length| length.parse().unwrap()) {
        Some(length) => drop(reader.take(length).read_to_end(&mut body)),
        None if to_end => drop(reader.read_to_end(&mut body)),
        None => {}
    }
    body
}
