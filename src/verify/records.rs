//! Records and the rows of the database, of which each can be made from the other.

use std::path::PathBuf;

use super::Verify;
use super::files::{first_there, wrong_file};
use crate::claim::{Attempt, Claims};
use crate::database::Cause;
use crate::digest::Key;
use crate::error::Result;
use crate::record::{ActionResult, Record, names};

/// What is wrong with a result.
struct Wrong {
    what: &'static str,
    path: PathBuf,
    why: String,
    /// What the record says, or the rows: written anew.
    good: Option<Record>,
    /// The record's file is to be set aside.
    file: bool,
}

impl Verify<'_> {
    /// Every result has a record, which says what its rows say; every record is whole.
    pub(super) fn records(&mut self) -> Result<()> {
        let claims = Claims::new(&self.directories.stacker);
        for key in self.database.result_keys()? {
            self.report.checked.records += 1;
            if self.wrong_result(&key)?.is_none() {
                continue;
            }
            // Who builds it just now writes it anew.
            let Attempt::Got(_claim) = claims.try_claim(&key)? else { continue };
            if let Some(wrong) = self.wrong_result(&key)? {
                self.heal(&key, wrong)?;
            }
        }
        self.torn_records()
    }

    fn wrong_result(&self, key: &Key) -> Result<Option<Wrong>> {
        let Some(name) = self.database.record_name(key)? else { return Ok(None) };
        let stacker = &self.directories.stacker;
        let (records, fresh) = (stacker.records().join(&name), stacker.fresh().join(&name));
        // Another process may be renaming it from `fresh` to `records`.
        let places = [records.clone(), fresh, records.clone()];
        let there = first_there(&places).filter(|path| path.is_file()).cloned();
        let mut record = None;
        for place in &places {
            record = record.or(Record::read(place).unwrap_or_default());
        }
        let record = record.filter(|record| record.key == *key);
        let rows = match (self.database.action(key)?, self.database.result(key)?) {
            (Some(action), Some(result)) => Some(Record::new(&action, &result, "")),
            _ => None,
        };
        let owner = there.as_ref().and_then(|path| wrong_file(path, self.owner, false));
        Ok(match (record, rows) {
            (Some(record), Some(rows)) if says_the_same(&record.result, &rows.result) => owner.map(|why| Wrong {
                what: "record",
                path: there.unwrap_or(records),
                why,
                good: Some(rows),
                file: true,
            }),
            (Some(record), _) => Some(Wrong {
                what: "row",
                path: stacker.database(),
                why: "it is not what its record says".to_owned(),
                good: Some(record),
                file: false,
            }),
            (None, good) => {
                let why = if there.is_some() { "its bytes do not have the digest that is its name" } else { "missing" };
                let file = there.is_some();
                Some(Wrong { what: "record", path: there.unwrap_or(records), why: why.to_owned(), good, file })
            }
        })
    }

    fn heal(&mut self, key: &Key, wrong: Wrong) -> Result<()> {
        let mut done = String::new();
        if wrong.file {
            // Nobody holds a record open, and its rows are kept.
            done = self.set_file_aside("record", &wrong.path, &[])? + ", ";
        }
        match &wrong.good {
            Some(good) => {
                self.database.finish(key, &good.action, &good.result)?;
                done += "written anew";
            }
            None => {
                self.database.forget(key, &Cause::Damaged)?;
                done += "evicted, since the database does not know it either: its step runs again";
            }
        }
        self.damaged(format!("{} of {}", wrong.what, key.first_digits()), &wrong.path, wrong.why, done);
        Ok(())
    }

    /// Files beside those that rows name. One with its right name is whole, whoever wrote it and in whatever format.
    fn torn_records(&mut self) -> Result<()> {
        let stacker = &self.directories.stacker;
        for directory in [stacker.records(), stacker.fresh()] {
            for name in names(&directory)? {
                let path = directory.join(&name);
                if Record::is_named_right(&path) {
                    continue;
                }
                let done = self.set_file_aside("record", &path, &[])?;
                self.damaged("record".to_owned(), &path, "its bytes do not have the digest that is its name", done);
            }
        }
        Ok(())
    }
}

/// Sizes of a layer are left out: they depend on whether its tar was written or only read.
fn says_the_same(a: &ActionResult, b: &ActionResult) -> bool {
    let newest = |result: &ActionResult| result.layer.map(|layer| layer.newest);
    (a.diff_id, newest(a), &a.tier, a.created) == (b.diff_id, newest(b), &b.tier, b.created)
}
