//! Unpacking a tar into an empty delta directory.
//!
//! An archive is untrusted: no name, link or hard link in it leads out of the directory. Absolute names lose their
//! slash, names with `..` are errors, and a name through a link of the same archive goes where the link leads inside
//! the root (as containerd does); a link that stands where a directory is to be made is replaced by it. Later members
//! replace earlier ones. Directories that the archive does not mention look like those of the layers beneath, or like
//! the root of a fresh image. Knows nothing of compression and digests.
//!
//! Where only the listing of a layer is wanted, the same rules make a tree in memory instead (see `target`).

mod archive;
mod directories;
mod limits;
mod listed;
mod member;
mod memory;
mod pax;
mod root;
mod sparse;
mod target;
mod trial;

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;

use rustix::io::Errno;

use crate::action::Ids;
use crate::listing::{Entry, Kind, Stack, scratch_root, split};
use crate::seal::delta;
use crate::seal::failure::{library, machine, users};
use crate::seal::{Marks, Recorded};
use crate::text::escape;
use crate::worker::message::Failure;
use archive::{Archive, invalid};
pub use limits::MAX_LAYER_SIZE;
pub(crate) use limits::oversized;
use limits::{LONGEST_NAME, LONGEST_PATH, Limited, Taken};
pub use listed::Listed;
use memory::Memory;
use root::Root;
use target::{Id, Seen, Standing, Target};
use trial::Trial;

/// What names that start with `.wh.` mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// Removed names, as in the layers of an image, which are marked so in the directory.
    Oci(Marks),
    /// Nothing: an error, since a layer could not hold them. Tar bases.
    Literal,
}

/// Ids that the mapped range does not have.
const IDS: u64 = 65_536;

/// More warnings than anybody reads are counted only.
const WARNINGS: usize = 100;

/// Unpacks a plain tar into the empty directory `dir`. The answer is what was left out, and why.
pub fn unpack(reader: impl Read, dir: &Path, whiteouts: Whiteouts) -> Result<Vec<String>, Failure> {
    unpack_onto(reader, dir, whiteouts, &Stack::default(), MAX_LAYER_SIZE, None)
}

/// As [`unpack`], for a layer that lies on others: directories that it uses without mentioning them get the mode, owner
/// and attributes that they have beneath. Where files can have one owner only, what the archive says of others goes into
/// `owners` instead. Neither the tar nor the files in it may have
/// more than `most` bytes.
pub fn unpack_onto(
    reader: impl Read,
    dir: &Path,
    whiteouts: Whiteouts,
    lower: &Stack,
    most: u64,
    owners: Option<&mut Recorded>,
) -> Result<Vec<String>, Failure> {
    let failed = |error| machine("open", b"", error);
    let marks = match whiteouts {
        Whiteouts::Oci(marks) => marks,
        Whiteouts::Literal => Marks::Overlayfs,
    };
    let ids = if owners.is_some() { Ids::Single } else { Ids::Full };
    dress(dir, ids).map_err(failed)?;
    let root = Root::open(dir, marks, owners).map_err(failed)?;
    Unpacking::new(root, whiteouts, lower, most, ids).all(reader).map(|(_, warnings)| warnings)
}

/// What [`unpack_onto`] would make of the layer of an image, as a tree in memory without contents. Which attributes, modes
/// and times files can have there is tried in `trial`, an empty directory beside which it would be unpacked; nothing of
/// the archive is written.
pub fn list_onto(reader: impl Read, trial: &Path, lower: &Stack, most: u64, ids: Ids) -> Result<Listed, Failure> {
    let failed = |error| machine("try what files can have in", b"", error);
    dress(trial, ids).map_err(failed)?;
    let memory = Memory::new(Trial::new(trial, ids).map_err(failed)?);
    let whiteouts = Whiteouts::Oci(Marks::Overlayfs);
    let (memory, warnings) = Unpacking::new(memory, whiteouts, lower, most, ids).all(reader)?;
    Ok(Listed::new(memory, warnings))
}

/// Takes from a directory what it has of the one that it was made in, which what is made in it would have too.
fn dress(dir: &Path, ids: Ids) -> io::Result<()> {
    delta::dress(dir, &scratch_root(), ids)
}

/// The rules, for any target.
struct Unpacking<'a, T: Target> {
    target: T,
    whiteouts: Whiteouts,
    lower: &'a Stack,
    ids: Ids,
    taken: Taken,
    /// The directory that was used last: neighbours in an archive mostly share it.
    last: Option<(Vec<u8>, T::Directory)>,
    /// All directories that are there. By what they are, since one may have been named in several ways, through links,
    /// and another may stand at its name by then.
    directories: HashMap<Id, Pending>,
    warnings: Vec<String>,
    /// Warnings that were counted only.
    unsaid: usize,
}

/// What a directory gets when nothing is put into it any more: attributes (children would inherit a default ACL) and
/// times.
struct Pending {
    entry: Entry,
    /// Where it lies, with no link on the way.
    place: Vec<u8>,
}

impl<'a, T: Target> Unpacking<'a, T> {
    fn new(target: T, whiteouts: Whiteouts, lower: &'a Stack, most: u64, ids: Ids) -> Unpacking<'a, T> {
        Unpacking {
            target,
            whiteouts,
            lower,
            ids,
            taken: Taken::new(most),
            last: None,
            directories: HashMap::new(),
            warnings: Vec::new(),
            unsaid: 0,
        }
    }

    /// Unpacks all of an archive.
    fn all(mut self, reader: impl Read) -> Result<(T, Vec<String>), Failure> {
        let most = self.taken.most();
        let mut archive = Archive::new(Limited::new(reader, most));
        let root = self.beneath(b"")?;
        self.root(root)?;
        let read = |error: io::Error| Failure { users: true, ..machine("read the archive for", b"", error) };
        while let Some(member) = archive.next().map_err(read)? {
            self.member(member, &mut archive)?;
        }
        if archive.unmarked && self.whiteouts == Whiteouts::Literal {
            return Err(users("unpack", b"", "the archive has no end mark: it was cut off"));
        }
        self.finish()
    }

    /// What a directory looks like that no member describes.
    fn beneath(&self, path: &[u8]) -> Result<Entry, Failure> {
        let lower = self.lower.lookup(path).map_err(|error| library("read listings", error))?;
        let lower = lower.filter(|entry| matches!(entry.kind, Kind::Directory { .. }));
        Ok(lower.unwrap_or(Entry { path: path.to_vec(), ..scratch_root() }))
    }

    /// What the root looks like. Attributes that it has beneath stay.
    fn root(&mut self, mut entry: Entry) -> Result<(), Failure> {
        let failed = |error| machine("unpack", b"", error);
        let mut xattrs = self.beneath(b"")?.xattrs;
        xattrs.append(&mut entry.xattrs);
        let root = self.target.open(b"").map_err(failed)?;
        self.target.own(&root, b".", &entry).map_err(failed)?;
        self.directories.insert(self.target.id(&root), Pending { entry: Entry { xattrs, ..entry }, place: Vec::new() });
        Ok(())
    }

    /// Attributes and time, when the content is complete. Attributes that this file system or namespace refuses are a
    /// warning; a value that means nothing is the archive's fault (`InvalidData`).
    fn complete(&mut self, at: &T::Directory, name: &[u8], entry: &Entry) -> io::Result<()> {
        for (attribute, value) in entry.xattrs.iter().filter(|(attribute, _)| delta::is_kept(attribute)) {
            let value = delta::normal(attribute, value.clone());
            match self.target.set_attribute(at, name, attribute, &value) {
                Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::PERM | Errno::OPNOTSUPP)) => {
                    let (path, attribute) = (escape(&entry.path), escape(attribute));
                    self.warn(format!("/{path}: the attribute {attribute} cannot be set here: left out"));
                }
                // It may name somebody who does not exist here.
                Err(error)
                    if self.ids == Ids::Single
                        && attribute.starts_with(b"system.posix_acl_")
                        && Errno::from_io_error(&error) == Some(Errno::INVAL) =>
                {
                    self.warn(format!("/{}: its ACL names ids that are not there: left out", escape(&entry.path)));
                }
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                    let why = "has a value that cannot be (damaged, or with ids that an image cannot have)";
                    return Err(invalid(&format!("the attribute {} {why}", escape(attribute))));
                }
                result => result?,
            }
        }
        self.target.set_time(at, name, entry.mtime)
    }

    fn warn(&mut self, warning: String) {
        match self.warnings.len() < WARNINGS {
            true => self.warnings.push(warning),
            false => self.unsaid += 1,
        }
    }

    fn finish(mut self) -> Result<(T, Vec<String>), Failure> {
        let mut directories: Vec<_> = std::mem::take(&mut self.directories).into_iter().collect();
        directories.sort_by(|(_, a), (_, b)| b.place.cmp(&a.place));
        for (id, Pending { entry, place }) in directories {
            let failed = |error| fault(&entry.path, error);
            let (above, name) = split(&place);
            let name = if place.is_empty() { b".".as_slice() } else { name };
            // A later member may have removed it.
            let Ok(at) = self.open(above) else { continue };
            if self.target.look(&at, name) == Ok(Some(Seen { id, standing: Standing::Directory })) {
                self.complete(&at, name, &entry).map_err(failed)?;
            }
        }
        if self.unsaid > 0 {
            self.warnings.push(format!("and {} more such warnings", self.unsaid));
        }
        Ok((self.target, self.warnings))
    }
}

/// A member that could not be made: what the archive says is its own fault.
fn fault(path: &[u8], error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => users("unpack", path, error.to_string()),
        _ => machine("unpack", path, error),
    }
}

fn resolving(path: &[u8], error: io::Error) -> Failure {
    let errno = Errno::from_io_error(&error);
    let hostile = matches!(errno, Some(Errno::LOOP | Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::NAMETOOLONG));
    Failure { users: hostile, ..machine("unpack", path, error) }
}

/// A name as written in an archive, as a path beneath the root.
fn clean(name: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut path = Vec::new();
    for component in name.split(|&byte| byte == b'/').filter(|component| !matches!(*component, b"" | b".")) {
        if component == b".." {
            return Err(users("unpack", name, "a name with `..` may lead out of the image"));
        }
        if component.len() > LONGEST_NAME {
            return Err(users("unpack", &path, format!("a name in it has more than {LONGEST_NAME} bytes")));
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    if path.len() > LONGEST_PATH {
        return Err(users("unpack", &path[..LONGEST_NAME], format!("its path has more than {LONGEST_PATH} bytes")));
    }
    if path.contains(&0) {
        return Err(users("unpack", name, "a name with a zero byte"));
    }
    Ok(path)
}
