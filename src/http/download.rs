//! A file from a server, that goes on where it broke.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use reqwest::StatusCode;
use reqwest::blocking::{RequestBuilder, Response};
use reqwest::header::{CONTENT_RANGE, HeaderMap, IF_RANGE, RANGE};

use super::retry::Tries;
use super::{Client, Failure};
use crate::error::At;

/// So much of a file between two failures counts as progress.
const PROGRESS: u64 = 1 << 20;

/// One download.
pub struct Download<'a> {
    /// For messages: `GET https://host/path`.
    pub what: &'a str,
    /// Makes the request, without `Range`.
    pub request: &'a mut dyn FnMut() -> Result<RequestBuilder, Failure>,
    /// Where the file lies, for messages.
    pub path: &'a Path,
    /// How the rest is known to belong to what the file holds so far.
    pub same: Same<'a>,
    /// More bytes than this are refused.
    pub most: u64,
    /// Told after each piece: bytes so far, and in all, if the server says.
    pub progress: &'a dyn Fn(u64, Option<u64>),
}

/// What tells that two answers are the same file.
#[derive(Clone)]
pub enum Same<'a> {
    /// Whoever downloads checks the digest of the whole.
    ByDigest,
    /// A validator (see [`super::validator`]); without one the file is fetched from its beginning.
    ByValidator {
        /// That of what the file holds.
        known: Option<String>,
        /// Told the headers of each answer that fills the file from its beginning, when the file is empty.
        begins: &'a dyn Fn(&HeaderMap) -> Result<Begin, Failure>,
    },
}

/// Whether an answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// The file is to be filled.
    Wanted,
    /// Its headers said enough: the answer is given back as it is.
    Unwanted,
}

/// How a download ended.
pub enum Got {
    /// The file is whole; the headers of the last answer.
    Whole(HeaderMap),
    /// The server answers something else (304, 401, 404, …), and the file is as it was; or what is not wanted, and the
    /// file is empty.
    Other(Response),
}

impl Client {
    /// Fills `file`, from what it holds already.
    pub fn download(&self, mut download: Download, file: &mut File) -> Result<Got, Failure> {
        let mut tries = Tries::new(self.options.retries);
        loop {
            let before = end_of(file, download.path)?;
            let failed = match once(&mut download, file, before) {
                Ok(got) => return Ok(got),
                Err(failed) => failed,
            };
            if end_of(file, download.path)?.saturating_sub(before) >= PROGRESS {
                tries.begin_anew();
            }
            tries.wait(failed)?;
        }
    }
}

fn once(download: &mut Download, file: &mut File, have: u64) -> Result<Got, Failure> {
    let mut request = (download.request)()?;
    let goes_on = have > 0 && !matches!(download.same, Same::ByValidator { known: None, .. });
    if goes_on {
        request = request.header(RANGE, format!("bytes={have}-"));
        if let Same::ByValidator { known: Some(validator), .. } = &download.same {
            request = request.header(IF_RANGE, validator);
        }
    }
    let response = request.send().map_err(|error| Failure::sending(download.what, &error))?;
    match response.status() {
        StatusCode::PARTIAL_CONTENT if goes_on && starts_at(response.headers()) == Some(have) => {}
        StatusCode::OK => {
            restart(file, download.path)?;
            // What is fetched now is what a later range must belong to.
            if let Same::ByValidator { known, begins } = &mut download.same {
                if begins(response.headers())? == Begin::Unwanted {
                    return Ok(Got::Other(response));
                }
                *known = super::validator(response.headers());
            }
        }
        // The file holds more than there is, or the server starts elsewhere: from the beginning.
        StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PARTIAL_CONTENT if goes_on => {
            restart(file, download.path)?;
            return Err(Failure::passing(format!("{}: the server does not go on where it broke", download.what)));
        }
        status if super::retry::may_pass(status) => return Err(Failure::status(download.what, response)),
        _ => return Ok(Got::Other(response)),
    }
    let headers = response.headers().clone();
    take(download, response, file)?;
    Ok(Got::Whole(headers))
}

fn take(download: &Download, mut response: Response, file: &mut File) -> Result<(), Failure> {
    let mut at = end_of(file, download.path)?;
    let all = response.content_length().map(|rest| at + rest);
    let mut buffer = vec![0; 1 << 17];
    loop {
        if at.max(all.unwrap_or_default()) > download.most {
            let most = bytesize::ByteSize(download.most);
            return Err(Failure::new(format!("{}: there are more than {most}, which are refused", download.what)));
        }
        match response.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                file.write_all(&buffer[..read]).at("write", download.path)?;
                at += read as u64;
                (download.progress)(at, all);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::reading(download.what, &error)),
        }
    }
    match all {
        Some(all) if all != at => Err(Failure::passing(format!("{}: {at} of {all} bytes came", download.what))),
        _ => Ok(()),
    }
}

fn end_of(file: &mut File, path: &Path) -> Result<u64, Failure> {
    Ok(file.seek(SeekFrom::End(0)).at("seek in", path)?)
}

fn restart(file: &mut File, path: &Path) -> Result<(), Failure> {
    Ok(file.set_len(0).and_then(|()| file.rewind()).at("truncate", path)?)
}

/// Where the part begins: `bytes 100-199/200` (RFC 9110, 14.4).
fn starts_at(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.trim().parse().ok()
}
