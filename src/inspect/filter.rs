//! Which results `stacker cache ls` shows, and in which order.

use std::cmp::Reverse;

use clap::ValueEnum;
use globset::GlobMatcher;

use crate::database::{CacheRow, Status};

/// What is shown.
#[derive(Debug, Default)]
pub struct Filter {
    /// Those that a layer of such a name used.
    pub layer: Option<GlobMatcher>,
    /// Last used at least so many seconds ago.
    pub older_than: Option<u64>,
    /// Last used at most so many seconds ago.
    pub newer_than: Option<u64>,
    /// With more bytes of file content.
    pub larger_than: Option<u64>,
    /// Of these kinds.
    pub status: Vec<Status>,
    /// The order.
    pub sort: Sort,
}

/// What results are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// When they were last used, the last first.
    #[default]
    Used,
    /// Names of their layers.
    Name,
    /// Bytes of file content, the most first.
    Size,
    /// When they were built, the last first.
    Age,
    /// How long they took to build, the longest first.
    Seconds,
}

impl Filter {
    /// Those that are shown, in order. `now`: seconds since 1970.
    pub fn apply(&self, mut rows: Vec<CacheRow>, now: i64) -> Vec<CacheRow> {
        rows.retain(|row| self.shows(row, now));
        match self.sort {
            Sort::Used => rows.sort_by_key(|row| Reverse(row.last_used)),
            Sort::Name => rows.sort_by(|a, b| a.layers.cmp(&b.layers)),
            Sort::Size => rows.sort_by_key(|row| Reverse(row.bytes)),
            Sort::Age => rows.sort_by_key(|row| Reverse(row.created)),
            Sort::Seconds => rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds)),
        }
        rows
    }

    fn shows(&self, row: &CacheRow, now: i64) -> bool {
        let age = (now - row.last_used).max(0) as u64;
        self.status.contains(&row.status)
            && self.layer.as_ref().is_none_or(|glob| row.layers.iter().any(|layer| glob.is_match(layer)))
            && self.older_than.is_none_or(|seconds| age >= seconds)
            && self.newer_than.is_none_or(|seconds| age <= seconds)
            && self.larger_than.is_none_or(|bytes| row.bytes > bytes)
    }
}
