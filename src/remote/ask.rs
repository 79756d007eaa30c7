//! Asking one server for one file.

use std::cell::Cell;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use reqwest::blocking::RequestBuilder;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, IF_NONE_MATCH};

use super::kept::{Kept, Note, Part};
use crate::digest::{BlobDigest, ContentDigest};
use crate::error::Result;
use crate::http::{self, Begin, Client, Download, Failure, Got, Same};
use crate::progress::Event;
use crate::resolve::digests_of;

/// Servers of artifacts tell the digest of a file by it, in hexadecimal.
const CHECKSUM: &str = "x-checksum-sha256";

/// How often progress is told.
const OFTEN: Duration = Duration::from_millis(100);

/// One question.
pub struct Ask<'a> {
    /// Whole, with credentials.
    pub url: &'a str,
    /// Who asks.
    pub http: &'a Client,
    /// Where it goes.
    pub kept: &'a Kept<'a>,
    /// Who is told.
    pub events: &'a Sender<Event>,
}

/// What the server has.
#[derive(Debug)]
pub struct Answered {
    /// Its copy is here.
    pub digest: BlobDigest,
    /// The same by blake3, where it was read.
    pub content: Option<ContentDigest>,
}

/// How a download is shown.
struct Shown<'a> {
    what: String,
    events: &'a Sender<Event>,
    /// When it began, and when it was last told.
    times: Cell<Option<(Instant, Instant)>>,
}

impl Ask<'_> {
    /// Fetches the file, unless it is what is `kept`. At most so many bytes.
    pub fn ask(&self, kept: Option<&Note>, most: u64) -> Result<Answered, Failure> {
        let shown = Shown { what: http::shown(self.url), events: self.events, times: Cell::new(None) };
        let part = match self.kept.try_part(self.url)? {
            Some(part) => part,
            None => {
                shown.tell(Event::DownloadWaits { what: shown.what.clone() });
                self.kept.part(self.url)?
            }
        };
        // Another process may just have fetched it.
        let kept = match self.kept.read_note(self.url) {
            Some(note) if Some(&note) == kept || self.kept.is_there(&note.sha256, Some(note.size))? => Some(note),
            _ => None,
        };
        let answered = self.fetch(part, kept.as_ref(), most, &shown);
        shown.end(answered.is_ok());
        answered
    }

    fn fetch(&self, mut part: Part, kept: Option<&Note>, most: u64, shown: &Shown) -> Result<Answered, Failure> {
        let what = format!("GET {}", shown.what);
        let begins = |headers: &HeaderMap| -> Result<Begin, Failure> {
            if kept.is_some_and(|note| is_still(note, headers)) {
                return Ok(Begin::Unwanted);
            }
            self.kept.begin(self.url, http::validator(headers))?;
            Ok(Begin::Wanted)
        };
        let (path, file) = (part.path.clone(), &mut part.file);
        let download = Download {
            what: &what,
            request: &mut || self.request(kept),
            path: &path,
            same: Same::ByValidator { known: self.kept.resume(self.url), begins: &begins },
            most,
            progress: &|done, all| shown.goes_on(done, all),
        };
        let got = self.http.download(download, file).inspect_err(|_| {
            // What has come is gone on with; where nothing has, nothing is left.
            if part.file.metadata().is_ok_and(|found| found.len() == 0) {
                drop(self.kept.drop_part(self.url, &part));
            }
        })?;
        match (got, kept) {
            (Got::Whole(headers), _) => self.keep(part, &headers, &what),
            (Got::Other(response), Some(note)) if is_kept(response.status()) => {
                self.kept.drop_part(self.url, &part)?;
                Ok(Answered { digest: note.sha256, content: None })
            }
            (Got::Other(response), _) => {
                self.kept.drop_part(self.url, &part)?;
                Err(Failure::status(&what, response))
            }
        }
    }

    fn request(&self, kept: Option<&Note>) -> Result<RequestBuilder, Failure> {
        let request = self.http.requests(false)?.get(self.url);
        // A date could only be asked for with "since", which a file that is older than before does not show.
        let tag = kept.and_then(|note| note.validator.as_deref()).filter(|validator| validator.starts_with('"'));
        Ok(match tag {
            Some(tag) => request.header(IF_NONE_MATCH, tag),
            None => request,
        })
    }

    /// Keeps what has come, unless the server itself says that it is something else.
    fn keep(&self, part: Part, headers: &HeaderMap, what: &str) -> Result<Answered, Failure> {
        let (content, sha256) = digests_of(&part.path)?;
        let digest = BlobDigest(sha256);
        if let Some(told) = checksum(headers).filter(|told| *told != digest.hex()) {
            self.kept.drop_part(self.url, &part)?;
            let found = digest.hex();
            return Err(Failure::new(format!("{what}: the server says that its sha256 is {told}, but {found} came")));
        }
        let note = Note {
            format: 1,
            url: http::shown(self.url),
            sha256: digest,
            size: part.file.metadata().map_or(0, |found| found.len()),
            validator: http::validator(headers),
            fetched: jiff::Timestamp::now().as_second(),
        };
        self.kept.keep(self.url, part, &note)?;
        Ok(Answered { digest, content: Some(content) })
    }
}

/// Whether an answer with these headers is the file that is kept.
fn is_still(note: &Note, headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length != note.size) {
        return false;
    }
    match checksum(headers) {
        Some(told) => told == note.sha256.hex(),
        None => note.validator.is_some() && http::validator(headers) == note.validator,
    }
}

/// The statuses of answers without a file where one is kept: it is the same.
fn is_kept(status: StatusCode) -> bool {
    status == StatusCode::NOT_MODIFIED || status == StatusCode::OK
}

/// 64 digits, in lower case.
fn checksum(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CHECKSUM)?.to_str().ok()?.trim().to_ascii_lowercase();
    (text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit())).then_some(text)
}

impl Shown<'_> {
    fn goes_on(&self, bytes: u64, all: Option<u64>) {
        let now = Instant::now();
        let what = self.what.clone();
        match self.times.get() {
            None => {
                self.tell(Event::DownloadStarted { what, bytes: all });
                self.times.set(Some((now, now)));
            }
            Some((begun, told)) if now - told >= OFTEN => {
                self.tell(Event::DownloadGoesOn { what, bytes });
                self.times.set(Some((begun, now)));
            }
            Some(_) => {}
        }
    }

    fn end(&self, well: bool) {
        if let Some((begun, _)) = self.times.get() {
            let seconds = well.then(|| begun.elapsed().as_secs_f64());
            self.tell(Event::DownloadEnded { what: self.what.clone(), seconds });
        }
    }

    fn tell(&self, event: Event) {
        // Without a renderer there is nobody to tell.
        let _ = self.events.send(event);
    }
}
