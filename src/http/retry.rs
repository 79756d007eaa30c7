//! When a request is sent again.

use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::Failure;

/// Servers that want a longer pause are not waited for.
const LONGEST: Duration = Duration::from_secs(120);

/// How often something was tried, and how long to wait before the next time: half a second, then twice as long each
/// time, up to 20 s, and up to as much again by chance, so that many builds that failed together do not return together.
pub(super) struct Tries {
    all: usize,
    made: usize,
    delays: ExponentialBackoff,
}

impl Tries {
    pub(super) fn new(retries: usize) -> Tries {
        let delays = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(500))
            .with_max_delay(Duration::from_secs(20))
            .with_max_times(retries)
            .with_jitter();
        Tries { all: retries, made: 1, delays: delays.build() }
    }

    /// Waits for the next try, or gives the failure back when there is none.
    pub(super) fn wait(&mut self, failed: Failure) -> Result<(), Failure> {
        let Some(asked) = failed.again else { return Err(failed) };
        let Some(delay) = self.delays.next() else {
            let message = match self.made {
                1 => failed.message,
                made => format!("{} (tried {made} times)", failed.message),
            };
            return Err(Failure { message, ..failed });
        };
        let delay = asked.unwrap_or(delay).max(delay);
        if delay > LONGEST {
            let message = format!("{}; it wants {} s of pause", failed.message, delay.as_secs());
            return Err(Failure { message, ..failed });
        }
        std::thread::sleep(delay);
        self.made += 1;
        Ok(())
    }

    /// There was progress: what comes next is not a repetition.
    pub(super) fn begin_anew(&mut self) {
        *self = Tries::new(self.all);
    }
}

/// Answers of a server that has too much to do, or trouble behind it.
pub fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or a date.
pub(super) fn after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(SystemTime::from(date.timestamp()).duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())])
    }

    #[test]
    fn pauses_are_seconds_or_dates() {
        assert_eq!(after(&header("7")), Some(Duration::from_secs(7)));
        assert_eq!(after(&header("Wed, 21 Oct 2015 07:28:00 GMT")), Some(Duration::ZERO));
        assert_eq!(after(&header("soon")), None);
        let later = after(&header("Tue, 31 Dec 2199 23:59:59 GMT")).unwrap();
        assert!(later > Duration::from_secs(3600 * 24 * 365));
    }

    #[test]
    fn what_stays_is_not_tried_again() {
        assert!(Tries::new(5).wait(Failure::new("no such name")).is_err());
        let failed = Failure { again: Some(Some(Duration::from_secs(3600))), ..Failure::new("busy") };
        assert_eq!(Tries::new(5).wait(failed).unwrap_err().message, "busy; it wants 3600 s of pause");
    }

    #[test]
    fn tries_end() {
        let mut tries = Tries::new(1);
        tries.wait(Failure::passing("broken")).unwrap();
        assert_eq!(tries.wait(Failure::passing("broken")).unwrap_err().message, "broken (tried 2 times)");
    }
}
