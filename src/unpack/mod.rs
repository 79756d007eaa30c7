//! Unpacking a tar into an empty delta directory.
//!
//! An archive is untrusted: no name, link or hard link in it leads out of the directory. Absolute names lose their
//! slash, names with `..` are errors, and a name through a link of the same archive goes where the link leads inside
//! the root (as containerd does); a link that stands where a directory is to be made is replaced by it. Later members
//! replace earlier ones. Directories that the archive does not mention look like those of the layers beneath, or like
//! the root of a fresh image. Knows nothing of compression and digests.

mod archive;
mod limits;
mod member;
mod pax;
mod root;
mod sparse;

use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Uid, chmodat, chownat, mkdirat, statat, utimensat};
use rustix::io::Errno;

use crate::action::Ids;
use crate::listing::{Entry, Kind, Stack, scratch_root, split};
use crate::seal::delta::{self, set_xattr, timestamps};
use crate::seal::failure::{library, machine, users};
use crate::seal::{Marks, Recorded};
use crate::text::escape;
use crate::worker::message::Failure;
use archive::{Archive, invalid};
pub use limits::MAX_LAYER_SIZE;
pub(crate) use limits::oversized;
use limits::{LONGEST_NAME, LONGEST_PATH, Limited, Taken};
use root::{Before, Root, path_of};

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
    let mut archive = Archive::new(Limited::new(reader, most));
    let marks = match whiteouts {
        Whiteouts::Oci(marks) => marks,
        Whiteouts::Literal => Marks::Overlayfs,
    };
    let root = Root::open(dir, marks).map_err(failed)?;
    let ids = if owners.is_some() { Ids::Single } else { Ids::Full };
    let mut unpacking = Unpacking {
        root,
        whiteouts,
        lower,
        owners,
        taken: Taken::new(most),
        directories: HashMap::new(),
        warnings: Vec::new(),
        unsaid: 0,
    };
    let entry = unpacking.beneath(b"")?;
    delta::dress(dir, &entry, ids).map_err(failed)?;
    let opened = unpacking.parent(b"")?;
    unpacking.own(&opened, b".", &entry).map_err(failed)?;
    unpacking.finish_later(&opened, b".", entry).map_err(failed)?;
    let read = |error: io::Error| Failure { users: true, ..machine("read the archive for", b"", error) };
    while let Some(member) = archive.next().map_err(read)? {
        unpacking.member(member, &mut archive)?;
    }
    if archive.unmarked && whiteouts == Whiteouts::Literal {
        return Err(users("unpack", b"", "the archive has no end mark: it was cut off"));
    }
    unpacking.finish()
}

struct Unpacking<'a> {
    root: Root,
    whiteouts: Whiteouts,
    lower: &'a Stack,
    /// Owners that are not given to files.
    owners: Option<&'a mut Recorded>,
    taken: Taken,
    /// What directories get when nothing is put into them any more: attributes (children would inherit a default ACL)
    /// and times. By device and inode, since one directory may have been named in several ways, through links, and
    /// another may stand at its name by then.
    directories: HashMap<(u64, u64), Entry>,
    warnings: Vec<String>,
    /// Warnings that were counted only.
    unsaid: usize,
}

impl Unpacking<'_> {
    /// What a directory looks like that no member describes.
    fn beneath(&self, path: &[u8]) -> Result<Entry, Failure> {
        let lower = self.lower.lookup(path).map_err(|error| library("read listings", error))?;
        let lower = lower.filter(|entry| matches!(entry.kind, Kind::Directory { .. }));
        Ok(lower.unwrap_or(Entry { path: path.to_vec(), ..scratch_root() }))
    }

    /// The directory at `path`, made if need be with all that lead to it.
    fn parent(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>, Failure> {
        if let Some(directory) = self.existing(path)? {
            return Ok(directory);
        }
        // Every name that leads to it, the shortest first; those that exist come before those that do not.
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at]);
        let ways: Vec<&[u8]> = slashes.chain([path]).collect();
        let (mut low, mut high) = (0, ways.len() - 1);
        while low < high {
            let middle = (low + high) / 2;
            match self.existing(ways[middle])? {
                Some(_) => low = middle + 1,
                None => high = middle,
            }
        }
        let above = split(ways[low]).0;
        let gone = || users("unpack", path, "the directory has gone");
        let mut directory = self.existing(above)?.ok_or_else(gone)?;
        for &path in &ways[low..] {
            let (entry, name) = (self.beneath(path)?, split(path).1);
            self.taken.entry(path.len()).map_err(|error| fault(path, error))?;
            self.make_directory(&directory, name, &entry, false)?;
            directory = root::child(&directory, name).map_err(|error| resolving(path, error))?;
        }
        self.root.used(path, &directory);
        Ok(directory)
    }

    fn existing(&mut self, path: &[u8]) -> Result<Option<Rc<OwnedFd>>, Failure> {
        match self.root.directory(path) {
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::NOTDIR)) => Ok(None),
            result => result.map(Some).map_err(|error| resolving(path, error)),
        }
    }

    /// Makes a directory, or takes the one that is there. `replace`: whatever else stands there goes; without it only a
    /// whiteout does.
    fn make_directory(&mut self, at: &Rc<OwnedFd>, name: &[u8], entry: &Entry, replace: bool) -> Result<(), Failure> {
        let path = &entry.path;
        let failed = |error| machine("make directory", path, error);
        let standing = statat(at, name, AtFlags::SYMLINK_NOFOLLOW).ok();
        if !replace && standing.as_ref().is_some_and(|stat| !self.root.marks.is_whiteout(stat)) {
            return Err(users("unpack", path, "is no directory in this archive, yet has names below it"));
        }
        let before = self.root.clear(at, name, true).map_err(failed)?;
        if before != Before::Directory {
            mkdirat(at, name, Mode::from_raw_mode(0o700)).map_err(|error| failed(error.into()))?;
        }
        if before == Before::Whiteout {
            self.root.marks.make_opaque(&path_of(at, name)).map_err(failed)?;
        }
        self.own(at, name, entry).map_err(failed)?;
        self.finish_later(at, name, entry.clone()).map_err(failed)
    }

    fn finish_later(&mut self, at: &OwnedFd, name: &[u8], entry: Entry) -> io::Result<()> {
        let stat = statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
        self.directories.insert((stat.st_dev, stat.st_ino), entry);
        Ok(())
    }

    /// Owner first: changing it takes setuid bits and capabilities away.
    fn own(&mut self, at: &OwnedFd, name: &[u8], entry: &Entry) -> io::Result<()> {
        match &mut self.owners {
            None => {
                let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
                chownat(at, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Some(owners) => {
                // Whatever had this inode before has gone.
                let stat = statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
                owners.insert((stat.st_dev, stat.st_ino), (entry.uid, entry.gid));
            }
        }
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            chmodat(at, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
        }
        Ok(())
    }

    /// Attributes and time, when the content is complete. Attributes that this file system or namespace refuses are a
    /// warning; a value that means nothing is the archive's fault (`InvalidData`).
    fn complete(&mut self, at: &OwnedFd, name: &[u8], entry: &Entry) -> io::Result<()> {
        for (attribute, value) in entry.xattrs.iter().filter(|(attribute, _)| delta::is_kept(attribute)) {
            let value = delta::normal(attribute, value.clone());
            match set_xattr(&path_of(at, name), attribute, &value) {
                Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::PERM | Errno::OPNOTSUPP)) => {
                    let (path, attribute) = (escape(&entry.path), escape(attribute));
                    self.warn(format!("/{path}: the attribute {attribute} cannot be set here: left out"));
                }
                // It may name somebody who does not exist here.
                Err(error)
                    if self.owners.is_some()
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
        utimensat(at, name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(())
    }

    fn warn(&mut self, warning: String) {
        match self.warnings.len() < WARNINGS {
            true => self.warnings.push(warning),
            false => self.unsaid += 1,
        }
    }

    fn finish(mut self) -> Result<Vec<String>, Failure> {
        let mut directories: Vec<_> = std::mem::take(&mut self.directories).into_iter().collect();
        directories.sort_by(|(_, a), (_, b)| b.path.cmp(&a.path));
        for (inode, entry) in directories {
            let failed = |error| fault(&entry.path, error);
            let (above, name) = split(&entry.path);
            let name = if entry.path.is_empty() { b".".as_slice() } else { name };
            // A later member may have removed it.
            let Ok(directory) = self.root.directory(above) else { continue };
            let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW);
            let same = |stat: Stat| {
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory && (stat.st_dev, stat.st_ino) == inode
            };
            if stat.is_ok_and(same) {
                self.complete(&directory, name, &entry).map_err(failed)?;
            }
        }
        if self.unsaid > 0 {
            self.warnings.push(format!("and {} more such warnings", self.unsaid));
        }
        Ok(self.warnings)
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
