//! Checks of what lies in the store against its listings.

use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;

use crate::action::Ids;
use crate::digest::{Chain, ChainId, DiffId};
use crate::listing::Entry;
use crate::place;
use crate::seal::check;
use crate::seal::failure::library;

use super::message::{Checked, Failure};
use super::{Files, Worker};

/// What reading of something damaged may fail with; anything else says nothing about what lies there.
const DAMAGE: [Errno; 10] = [
    Errno::ACCESS,
    Errno::BADMSG,
    Errno::INVAL,
    Errno::IO,
    Errno::LOOP,
    Errno::NOENT,
    Errno::NOTDIR,
    Errno::PERM,
    Errno::UCLEAN,
    Errno::NXIO,
];

impl Worker<'_> {
    /// A delta with its listing.
    pub(super) fn check_delta(
        &self,
        stack: &ChainId,
        diff_id: DiffId,
        ours: bool,
        deep: bool,
        files: &mut Files,
    ) -> Result<Checked, Failure> {
        let mut out = files.next_file()?;
        // The name may be a link of the store.
        let directory = place::delta(stack).join(".");
        let listed = self.entries(&diff_id).map_err(damage);
        let marks = self.store.form().marks();
        let relisted = |contents| {
            let mut found = check::delta(&directory, marks, contents)?;
            self.own(&mut found, listed.as_deref().unwrap_or_default());
            Ok(found)
        };
        let difference = match &listed {
            Ok(listed) => differs(relisted(deep), listed, deep)?,
            Err(Ok(why)) => Some(why.clone()),
            Err(Err(failure)) => return Err(failure.clone()),
        };
        if difference.is_none() && !deep {
            return Ok(Checked::default());
        }
        match relisted(true).and_then(|found| found.finish(&directory, (!ours).then_some(diff_id), &mut out)) {
            Ok(sealed) => Ok(Checked { difference, relisted: Some(sealed) }),
            Err(failure) => {
                let why = damage(failure)?;
                Ok(Checked { difference: Some(difference.unwrap_or(why)), relisted: None })
            }
        }
    }

    /// A tree with what its listings show together.
    pub(super) fn check_tree(&self, chain: &Chain, deep: bool) -> Result<Checked, Failure> {
        let listed = self.stack(chain)?.subtree(b"");
        let difference = match listed {
            Ok(listed) => {
                let mut found = check::tree(&place::tree(&chain.id()).join("."), self.store.form().marks(), deep);
                found.iter_mut().for_each(|found| self.own(found, &listed));
                differs(found, &listed, deep)?
            }
            Err(error) => Some(error.to_string()),
        };
        Ok(Checked { difference, relisted: None })
    }

    /// Where all files belong to one, only the listing knows whose they are.
    fn own(&self, found: &mut check::Relisted, listed: &[Entry]) {
        if self.setting.ids == Ids::Single {
            let one = std::fs::metadata(".").map_or((0, 0), |roots| (roots.uid(), roots.gid()));
            found.take_owners(listed, one);
        }
    }

    fn entries(&self, diff_id: &DiffId) -> Result<Vec<Entry>, Failure> {
        let read = || {
            let listing = self.listing(diff_id)?;
            listing.entries().collect::<crate::Result<_>>().map_err(|error| library("read the listing", error))
        };
        // Where no system call failed, the text is wrong.
        read().map_err(|failure: Failure| Failure { users: failure.errno.is_none(), ..failure })
    }
}

fn differs(
    found: Result<check::Relisted, Failure>,
    listed: &[Entry],
    contents: bool,
) -> Result<Option<String>, Failure> {
    match found {
        Ok(found) => Ok(found.difference(listed, contents)),
        Err(failure) => damage(failure).map(Some),
    }
}

/// What a failure says about what was read; it stays a failure where the machine's state may be the cause.
fn damage(failure: Failure) -> Result<String, Failure> {
    let by_damage = |errno: i32| DAMAGE.iter().any(|damage| damage.raw_os_error() == errno);
    match failure.users || failure.errno.is_some_and(by_damage) {
        true => Ok(format!("{}: {}", failure.step, failure.message)),
        false => Err(failure),
    }
}
