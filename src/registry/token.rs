//! Tokens: who gives them out is asked with what proves who we are (distribution's token specification).

use std::io::Read;

use reqwest::StatusCode;
use serde::Deserialize;

use super::credentials::{Credentials, Secret};
use crate::http::{Client, Failure, shown};

/// How we call ourselves where OAuth 2 wants a name.
const CLIENT: &str = "stacker";

/// Bytes of an answer; more are no token.
const LARGEST: u64 = 1 << 20;

/// Who gives out tokens, and for what.
#[derive(Clone, Debug)]
pub struct Giver<'a> {
    /// A URL.
    pub realm: &'a str,
    /// For whom.
    pub service: Option<&'a str>,
    /// `repository:NAME:pull`, several.
    pub scopes: &'a [String],
    /// The registry speaks TLS, so nothing secret leaves without it.
    pub secure: bool,
    /// Its certificate is not checked.
    pub insecure: bool,
}

/// The answer; both names are in use.
#[derive(Deserialize)]
struct Given {
    token: Option<String>,
    access_token: Option<String>,
}

/// Gets a token.
pub fn get(http: &Client, giver: &Giver, credentials: &Credentials) -> Result<String, Failure> {
    let what = format!("token from {}", shown(giver.realm));
    if giver.secure && credentials.secret.is_some() && !giver.realm.starts_with("https://") {
        return Err(Failure::new(format!("{what}: refused to send credentials there without TLS")));
    }
    let response = http.send(&what, &mut || {
        let requests = http.requests(giver.insecure)?;
        let service = giver.service.map(|service| ("service", service));
        Ok(match &credentials.secret {
            Some(Secret::Identity(token)) => {
                let scope = giver.scopes.join(" ");
                let form = [("grant_type", "refresh_token"), ("client_id", CLIENT), ("refresh_token", token)];
                let form: Vec<_> = form.into_iter().chain(service).chain([("scope", scope.as_str())]).collect();
                requests.post(giver.realm).form(&form)
            }
            secret => {
                let scopes = giver.scopes.iter().map(|scope| ("scope", scope.as_str()));
                let query: Vec<_> = service.into_iter().chain(scopes).collect();
                match secret {
                    Some(Secret::Password { username, password }) => {
                        requests.get(giver.realm).query(&query).basic_auth(username, Some(password))
                    }
                    _ => requests.get(giver.realm).query(&query),
                }
            }
        })
    })?;
    match response.status() {
        StatusCode::OK => {}
        _ => return Err(Failure::status(&what, response)),
    }
    let given: Option<Given> = serde_json::from_reader(response.take(LARGEST)).ok();
    let token = given.and_then(|given| given.token.or(given.access_token)).filter(|token| !token.is_empty());
    token.ok_or_else(|| Failure::new(format!("{what}: the answer holds no token")))
}
