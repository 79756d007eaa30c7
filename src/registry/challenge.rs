//! `WWW-Authenticate` (RFC 9110, 11.6.1): what a registry wants to be shown.

use std::collections::HashMap;

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// What a registry wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token that somebody else gives out.
    Bearer {
        /// Who: a URL.
        realm: String,
        /// For whom.
        service: Option<String>,
        /// For what.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The one that proves most of those that an answer has; `None`: there is none that we know.
    pub fn of(headers: &HeaderMap) -> Option<Challenge> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let all: Vec<_> = texts.flat_map(challenges).collect();
        let bearer = all.iter().find_map(|(scheme, parameters)| match scheme.as_str() {
            "bearer" => Some(Challenge::Bearer {
                realm: parameters.get("realm")?.clone(),
                service: parameters.get("service").cloned(),
                scope: parameters.get("scope").cloned(),
            }),
            _ => None,
        });
        bearer.or_else(|| all.iter().any(|(scheme, _)| scheme == "basic").then_some(Challenge::Basic))
    }
}

/// Schemes in lower case with their parameters. What cannot be understood ends the list.
fn challenges(text: &str) -> Vec<(String, HashMap<String, String>)> {
    let mut all: Vec<(String, HashMap<String, String>)> = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = match after.trim_start().strip_prefix('=') {
            Some(value) => {
                let Some((value, after)) = value_of(value.trim_start()) else { return all };
                if let Some((_, parameters)) = all.last_mut() {
                    parameters.insert(word.to_ascii_lowercase(), value);
                }
                after
            }
            None => {
                all.push((word.to_ascii_lowercase(), HashMap::new()));
                after
            }
        };
        rest = rest.trim_start_matches([' ', ',']);
    }
    all
}

/// A token or a quoted string, and what follows it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find([' ', ',']).unwrap_or(text.len()));
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(texts: &[&'static str]) -> Option<Challenge> {
        let headers = texts.iter().map(|text| (WWW_AUTHENTICATE, text.parse().unwrap()));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        Challenge::of(&map)
    }

    #[test]
    fn challenges_are_understood() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            let (service, scope) = (service.map(str::to_owned), scope.map(str::to_owned));
            Some(Challenge::Bearer { realm: realm.to_owned(), service, scope })
        };
        let hub = r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull,push""#;
        assert_eq!(
            challenge(&[hub]),
            bearer("https://auth.example/token", Some("reg"), Some("repository:a/b:pull,push"))
        );
        assert_eq!(challenge(&[r#"BASIC realm="a \"b\", c""#]), Some(Challenge::Basic));
        assert_eq!(challenge(&["Negotiate", r#"bearer realm=x , service = "s""#]), bearer("x", Some("s"), None));
        assert_eq!(challenge(&[r#"Basic realm="r", Bearer realm="t""#]), bearer("t", None, None));
        // Of no use.
        assert_eq!(challenge(&["Negotiate"]), None);
        assert_eq!(challenge(&[r#"Bearer realm="open"#]), None);
        assert_eq!(challenge(&[]), None);
    }
}
