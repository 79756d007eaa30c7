//! The one error type of the library: what was being done, on what, why; and which exit code that means.

use std::path::{Path, PathBuf};

use crate::need::Need;
use crate::room::{self, Room};

/// The result of nearly every function here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stackerfiles are wrong; the texts were rendered by [`crate::diag`] with places and carets.
    #[error("{0}")]
    Stackerfile(String),
    /// The user's build failed (a script, a hash that does not match, a missing import): exit code 1.
    #[error("{0}")]
    Build(String),
    /// The command line is wrong: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// stacker or the machine failed: exit code 3.
    #[error("{0}")]
    Machine(String),
    /// The machine lacks something that the build needs; with what was seen: exit code 3.
    #[error("{}", .0.lacking(.1))]
    Lacking(Need, String),
    /// A system call on a file failed: exit code 3.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// A verb: `read`, `create`, `rename`.
        doing: &'static str,
        /// The file it was done on.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The database failed: exit code 3.
    #[error("database {}: {source}", path.display())]
    Database {
        /// The SQLite file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A signal asked us to end (the number): exit code 128 + number.
    #[error("interrupted")]
    Interrupted(i32),
}

impl Error {
    /// Where there is no room, if that is why. [`Error::Lacking`] says so by itself.
    pub fn full(&self) -> Option<String> {
        match self {
            Error::Io { source, path, .. } if room::is_lacking(source) => {
                Room::of(path).map(|room| room.told(source.raw_os_error()))
            }
            Error::Database { source, path } => {
                use rusqlite::ErrorCode::{CannotOpen, DiskFull, SystemIoFailure};
                let room = Room::of(path)?;
                let full = match source.sqlite_error_code()? {
                    DiskFull => true,
                    // Why it cannot make or write one of its files, SQLite does not always say.
                    CannotOpen | SystemIoFailure => room.is_out(),
                    _ => false,
                };
                full.then(|| room.to_string())
            }
            _ => None,
        }
    }

    /// The same once more, for the next who meets it.
    pub fn again(&self) -> Error {
        match (self, self.full()) {
            (Error::Lacking(need, found), _) => Error::Lacking(*need, found.clone()),
            (error, Some(full)) => Error::Lacking(Need::Space, format!("{error}; {full}")),
            (error, None) => Error::Machine(error.to_string()),
        }
    }

    /// 0 done, 1 the user's build or stackerfile failed, 2 wrong usage, 3 stacker or the machine failed.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Stackerfile(_) | Error::Build(_) => 1,
            Error::Usage(_) => 2,
            Error::Machine(_) | Error::Lacking(..) | Error::Io { .. } | Error::Database { .. } => 3,
            Error::Interrupted(signal) => 128 + signal,
        }
    }
}

/// Gives an I/O error the verb and the path that every message must carry.
pub trait At<T> {
    /// `File::open(p).at("open", p)?`
    fn at(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, doing: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|source| Error::Io { doing, path: path.as_ref().to_path_buf(), source: source.into() })
    }
}
