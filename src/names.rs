//! What directories of the host hold, by name.
//!
//! Whoever looks for stackerfiles below a directory meets most of what their layers import. The names that were read on
//! that way are kept, so that each directory is read once, however many look at it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::{Errno, Result};

use crate::stamp::{self, Stamp};

/// The names in one directory, in the order of the kernel, without `.` and `..`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Of each: a letter that says what it is, the name, a zero byte.
    text: Vec<u8>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a> {
    /// Without a path.
    pub name: &'a CStr,
    /// What stands there.
    pub kind: Kind,
}

/// What stands at a name, as far as it matters where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory, not a link to one.
    Directory,
    /// A regular file.
    File,
    /// All the rest.
    Other,
}

/// A directory that is open, with its names.
pub(crate) struct Opened<'k> {
    directory: OwnedFd,
    names: Cow<'k, Names>,
}

/// The names of a directory, and of which one they were.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    /// What was read.
    pub names: Names,
    /// Device and stamp, where every later change of the names changes the stamp.
    sure: Option<(u64, Stamp)>,
}

/// The names of directories by the paths at which they were read.
#[derive(Clone, Debug, Default)]
pub struct KnownNames {
    directories: HashMap<PathBuf, Read>,
    /// Where the way to them began, and the same without links. None of those beneath is one.
    root: Option<(PathBuf, PathBuf)>,
}

/// Bytes of names that are asked for at once.
const AT_ONCE: usize = 1 << 15;

impl Names {
    /// Reads them.
    fn read(directory: &OwnedFd) -> Result<Names> {
        let mut buffer = [MaybeUninit::uninit(); AT_ONCE];
        let mut entries = RawDir::new(directory, &mut buffer);
        let mut text = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Some(kind) = kind(directory, name, entry.file_type())? else { continue };
            text.push(kind.letter());
            text.extend_from_slice(name.to_bytes_with_nul());
        }
        Ok(Names { text })
    }

    /// Each with what it is.
    pub fn iter(&self) -> impl Iterator<Item = Name<'_>> {
        let mut rest = &self.text[..];
        std::iter::from_fn(move || {
            let (letter, after) = rest.split_first()?;
            let name = CStr::from_bytes_until_nul(after).ok()?;
            rest = &after[name.to_bytes_with_nul().len()..];
            Some(Name { name, kind: Kind::from_letter(*letter) })
        })
    }
}

/// What stands at a name; not every file system says so beside it. `None`: it has just gone.
fn kind(directory: &OwnedFd, name: &CStr, found: FileType) -> Result<Option<Kind>> {
    let found = match found {
        FileType::Unknown => match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            found => FileType::from_raw_mode(found?.st_mode),
        },
        known => known,
    };
    Ok(Some(match found {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File,
        _ => Kind::Other,
    }))
}

impl Kind {
    fn letter(self) -> u8 {
        match self {
            Kind::Directory => b'd',
            Kind::File => b'f',
            Kind::Other => b'o',
        }
    }

    fn from_letter(letter: u8) -> Kind {
        match letter {
            b'd' => Kind::Directory,
            b'f' => Kind::File,
            _ => Kind::Other,
        }
    }
}

/// Opens a directory. A link at the path itself is an error, unless it is to be followed.
fn open(path: &Path, follow: bool) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let flags = if follow { flags } else { flags | OFlags::NOFOLLOW };
    loop {
        match rustix::fs::open(path, flags, Mode::empty()) {
            Err(Errno::INTR) => {}
            opened => return opened,
        }
    }
}

/// Reads the names at a path.
pub(crate) fn read(path: &Path, follow: bool) -> Result<Read> {
    let moment = stamp::now();
    let directory = open(path, follow)?;
    let stat = rustix::fs::fstat(&directory)?;
    let names = Names::read(&directory)?;
    let stamp = Stamp::of(&stat);
    let is_sure = stamp.is_settled(moment) && stamp::is_local(&directory);
    Ok(Read { names, sure: is_sure.then_some((stat.st_dev, stamp)) })
}

impl KnownNames {
    /// Of what is below a directory.
    pub(crate) fn below(root: &Path) -> KnownNames {
        let real = root.canonicalize().ok();
        KnownNames { root: real.map(|real| (root.to_path_buf(), real)), ..KnownNames::default() }
    }

    /// Makes room for so many directories.
    pub(crate) fn reserve(&mut self, count: usize) {
        self.directories.reserve(count);
    }

    /// Remembers what was read, if it can be told later whether that has changed.
    pub(crate) fn keep(&mut self, path: PathBuf, read: Read) {
        if read.sure.is_some() {
            self.directories.insert(path, read);
        }
    }

    /// Opens a directory for looking at what it holds; its names are read if they are not known.
    pub(crate) fn open(&self, path: &Path, follow: bool) -> Result<Opened<'_>> {
        let directory = open(path, follow)?;
        let names = match self.directories.get(path) {
            Some(known) if known.is_of(&rustix::fs::fstat(&directory)?) => Cow::Borrowed(&known.names),
            _ => Cow::Owned(Names::read(&directory)?),
        };
        Ok(Opened { directory, names })
    }
}

impl KnownNames {
    /// The path of a regular file without links and `..`, where what is known is enough to say that.
    pub(crate) fn real(&self, path: &Path) -> Option<PathBuf> {
        let (root, real) = self.root.as_ref()?;
        let mut at = PathBuf::with_capacity(path.as_os_str().len());
        for part in path.components() {
            match part {
                // Back from what is no link.
                Component::ParentDir if at != *root && self.directories.contains_key(&at) => drop(at.pop()),
                Component::ParentDir => return None,
                part => at.push(part),
            }
        }
        let known = self.directories.get(at.parent()?)?;
        let name = at.file_name()?.as_bytes();
        let is_file = known.names.iter().any(|it| it.kind == Kind::File && it.name.to_bytes() == name);
        is_file.then(|| at.strip_prefix(root).ok().map(|rest| real.join(rest)))?
    }
}

impl Read {
    fn is_of(&self, stat: &Stat) -> bool {
        self.sure == Some((stat.st_dev, Stamp::of(stat)))
    }
}

impl Opened<'_> {
    /// Each name with what it is.
    pub fn names(&self) -> impl Iterator<Item = Name<'_>> {
        self.names.iter()
    }

    /// What lstat says of a name.
    pub fn lstat(&self, name: &CStr) -> Result<Stat> {
        rustix::fs::statat(self.directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)
    }
}
