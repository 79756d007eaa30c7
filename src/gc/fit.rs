//! Bringing the store down to a size.
//!
//! First goes what can be made again without running anything: trees and deltas of layers that have a blob, staged
//! imports, files from servers. Then whole results, the one first whose bytes are worth least. A result is worth what it
//! would take to make it again, with all that stands on it; the more bytes are free without it, and the longer nobody used
//! it, the sooner it goes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::commit_point::CommitPoint;
use crate::database::{Cause, Database};
use crate::error::Result;
use crate::pins::{Closed, Live};
use crate::worker::message::Job;

use super::stock::{Remakeable, Stock};
use super::{Gc, now};

impl Gc<'_> {
    /// Removes until no more than `max` bytes are left, or nothing that may go. Says whether anything went.
    /// `spare`: if it comes to that, a tenth of it is left free.
    pub(super) fn fit(&mut self, database: &Database, max: u64, spare: bool) -> Result<bool> {
        if self.survey.total() <= max {
            return Ok(false);
        }
        let before = self.told.len();
        let mut stock = Stock::read(database)?;
        let target = if spare { max - max / 10 } else { max };
        self.fit_remakeable(database, &stock, target)?;
        self.fit_results(database, &mut stock, target, &Cause::MaxSize { bytes: max })?;
        Ok(self.told.len() > before)
    }

    /// Those used longest ago first. What frees nothing stays: it is held by something else, and may free more when that
    /// has gone.
    fn fit_remakeable(&mut self, database: &Database, stock: &Stock, max: u64) -> Result<()> {
        let mut all = stock.remakeable(self.directories)?;
        loop {
            let count = all.len();
            let mut left = Vec::new();
            for thing in all {
                if self.survey.total() <= max {
                    return Ok(());
                }
                let names: Vec<String> = thing.paths.iter().chain(&thing.file).cloned().collect();
                let frees = self.survey.ledger().exclusive(&self.survey.numbers(&names)) > 0;
                if !frees {
                    left.push(thing);
                } else if self.drop_remakeable(database, &thing)? {
                    self.gone(&thing.what, &names);
                }
            }
            if left.len() == count {
                return Ok(());
            }
            all = left;
        }
    }

    /// Puts something out of reach that can be made again, unless somebody uses it, or it no longer can.
    fn drop_remakeable(&self, database: &Database, thing: &Remakeable) -> Result<bool> {
        let stacker = &self.directories.stacker;
        let closed = Closed::wait(stacker)?;
        let live = Live::read(stacker, &closed)?;
        if thing.pins.iter().any(|pin| live.holds(pin)) {
            return Ok(false);
        }
        if let Some(diff_id) = &thing.diff_id
            && !database.tars(diff_id)?.iter().any(|blob| stacker.blob(blob).exists())
        {
            return Ok(false);
        }
        if self.dry_run {
            return Ok(true);
        }
        if !thing.paths.is_empty() {
            self.job(Job::SetAside { paths: thing.paths.clone() })?;
            CommitPoint::DataSetAside.reached();
        }
        if let Some(file) = &thing.file {
            crate::record::remove(&stacker.0.join(file))?;
        }
        drop(closed);
        Ok(true)
    }

    /// The cheapest bytes first. What a result is worth falls when what stands on it goes, and what it frees grows, so it
    /// is looked at once more when its turn comes.
    fn fit_results(&mut self, database: &Database, stock: &mut Stock, max: u64, cause: &Cause) -> Result<()> {
        let now = now();
        let mut queue = BinaryHeap::new();
        for number in 0..stock.results.len() {
            queue.extend(self.price(stock, number, now).map(|price| Reverse((price, number))));
        }
        while self.survey.total() > max
            && let Some(Reverse((price, number))) = queue.pop()
        {
            if stock.is_settled(number) {
                continue;
            }
            match self.price(stock, number, now) {
                Some(current) if current > price => queue.push(Reverse((current, number))),
                Some(_) => {
                    let row = stock.results[number].row.clone();
                    let went = self.result(database, &row, cause)?;
                    stock.settle(number, went);
                    let beneath = stock.beneath(number);
                    queue.extend(beneath.and_then(|number| Some(Reverse((self.price(stock, number, now)?, number)))));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Seconds for each byte, as a number that sorts like it; `None`: it holds nothing. Bytes that others hold too count
    /// little: they are free when the last of those has gone.
    fn price(&self, stock: &Stock, number: usize, now: i64) -> Option<u64> {
        let things = self.survey.numbers(&stock.names(number));
        let ledger = self.survey.ledger();
        let bytes = ledger.exclusive(&things) as f64 + ledger.share(&things) as f64 / 1024.0;
        // The bits of positive numbers sort as they do.
        (bytes >= 1.0).then(|| (stock.worth(number, now) / bytes).to_bits())
    }
}
