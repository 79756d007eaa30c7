//! Opening: directories, schema version, damage, and what another boot left unsynced.
//!
//! The usual case (the file is there and current) costs a few system calls. All else happens under the lock file
//! `stacker.db.lock`, so that two processes do not set aside or create at the same time. A new database is created and
//! filled in one transaction: killed half-way, the next start does it again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};

use super::Database;
use crate::commit_point::CommitPoint;
use crate::digest::Key;
use crate::error::{At, Error, Result};
use crate::place::StackerDir;
use crate::record::{Record, names, remove};

/// `PRAGMA user_version` after all of [`MIGRATIONS`].
const VERSION: i64 = MIGRATIONS.len() as i64;

/// What leads from each version to the next.
const MIGRATIONS: [&str; 4] = [
    include_str!("../../schema/database.sql"),
    include_str!("../../schema/database-2.sql"),
    include_str!("../../schema/database-3.sql"),
    include_str!("../../schema/database-4.sql"),
];

/// How long a writer waits for another process's write.
const BUSY: Duration = Duration::from_secs(60);

/// What lies at the database's path.
enum Found {
    Ready(Connection),
    Older(Connection, i64),
    Newer(i64),
    Missing,
    Damaged(String),
}

impl Database {
    /// Opens or makes the database, and the directories of `dir`. Also gives back what the user should be told.
    pub fn open(dir: &StackerDir) -> Result<(Database, Vec<String>)> {
        make_directories(dir)?;
        let boot = boot_id()?;
        let mut warnings = Vec::new();
        let connection = match look(dir)? {
            Found::Ready(connection) => connection,
            _ => prepare(dir, &boot, &mut warnings)?,
        };
        let database = Database {
            connection,
            dir: dir.clone(),
            boot,
            damaged: false.into(),
            reading: false.into(),
            used: RefCell::default(),
        };
        database.settle_boot()?;
        Ok((database, warnings))
    }

    /// Drops what another boot wrote and did not sync, unless its record made it to `records/`: that rename comes after
    /// the sync.
    fn settle_boot(&self) -> Result<()> {
        let seen = |connection: &Connection| {
            connection.query_row("SELECT id FROM boot", [], |row| row.get::<_, String>(0)).optional()
        };
        if self.query(seen)?.as_ref() == Some(&self.boot) {
            return Ok(());
        }
        let (records, boot) = (self.dir.records(), &self.boot);
        self.in_transaction(|transaction| {
            let mut unsynced =
                transaction.prepare("SELECT key, record FROM result WHERE unsynced IS NOT NULL AND boot <> ?1")?;
            let rows = unsynced.query_map([boot], |row| Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, String>(1)?)))?;
            for row in rows.collect::<Result<Vec<_>, _>>()? {
                let statement = match records.join(&row.1).exists() {
                    true => "UPDATE result SET unsynced = NULL WHERE key = ?1",
                    false => "DELETE FROM result WHERE key = ?1",
                };
                transaction.execute(statement, [row.0])?;
            }
            transaction.execute(
                "DELETE FROM layer WHERE unsynced IS NOT NULL AND boot <> ?1
                     AND diff_id NOT IN (SELECT diff_id FROM result WHERE diff_id IS NOT NULL)",
                [boot],
            )?;
            transaction.execute("DELETE FROM blob WHERE unsynced IS NOT NULL AND boot <> ?1", [boot])?;
            transaction.execute("UPDATE boot SET id = ?1", [boot])
        })?;
        CommitPoint::DatabaseSettled.reached();
        self.sweep_fresh()
    }

    /// Removes the fresh records of other boots.
    fn sweep_fresh(&self) -> Result<()> {
        let fresh = self.dir.fresh();
        for name in names(&fresh)? {
            let path = fresh.join(name);
            if Record::read(&path)?.is_none_or(|record| record.boot != self.boot) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// Opens what must be there, for commands that only look or remove; warnings are said.
pub fn open_existing(dir: &StackerDir) -> Result<Database> {
    must_exist(dir)?;
    let (database, warnings) = Database::open(dir)?;
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    Ok(database)
}

/// A mistyped directory is no empty cache.
pub fn must_exist(dir: &StackerDir) -> Result<()> {
    if dir.database().exists() {
        return Ok(());
    }
    let path = dir.0.display();
    Err(Error::Usage(format!("there is no cache at {path}: build something, or say --stacker-dir DIR")))
}

/// Is the file itself broken, rather than the disk full or the lock taken?
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Does a statement that is right find no table, or nothing in it? Some other program's database, or half of ours.
fn lacks_tables(error: &rusqlite::Error) -> bool {
    let sql_error = |error: &rusqlite::ffi::Error| error.extended_code == rusqlite::ffi::SQLITE_ERROR;
    matches!(error, rusqlite::Error::QueryReturnedNoRows) || error.sqlite_error().is_some_and(sql_error)
}

/// Leaves a note for the next start.
pub(super) fn mark_damaged(dir: &StackerDir) {
    // The error that led here is reported; that the note could not be written adds nothing to it.
    let _ = File::create(damage_note(dir));
}

fn damage_note(dir: &StackerDir) -> PathBuf {
    dir.0.join("stacker.db.damaged")
}

/// The directories of a stacker directory. Modes are set by hand: the umask is the caller's.
pub fn make_directories(dir: &StackerDir) -> Result<()> {
    if !dir.0.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir.0).at("create", &dir.0)?;
        fs::set_permissions(&dir.0, Permissions::from_mode(0o700)).at("set the mode of", &dir.0)?;
    }
    for name in StackerDir::DIRECTORIES {
        let path = dir.0.join(name);
        let mode = if name == "listings" { 0o755 } else { 0o700 };
        let there = match fs::metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            other => Some(other.at("stat", &path)?),
        };
        if there.is_none() {
            DirBuilder::new().recursive(true).mode(mode).create(&path).at("create", &path)?;
        }
        if there.is_none_or(|there| name == "listings" && there.permissions().mode() & 0o777 != mode) {
            fs::set_permissions(&path, Permissions::from_mode(mode)).at("set the mode of", &path)?;
        }
    }
    Ok(())
}

pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(path).at("read", path)?.trim().to_owned())
}

fn connect(path: &Path, create: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    // The last process to close would pay for a checkpoint, with syncs; writers do it in passing.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // In WAL mode NORMAL syncs at checkpoints only: a power cut loses the last rows, never the file.
    connection.execute_batch("PRAGMA synchronous = NORMAL")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn look(dir: &StackerDir) -> Result<Found> {
    let path = dir.database();
    match fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Missing),
        other => other.at("stat", &path)?,
    };
    if damage_note(dir).exists() {
        return Ok(Found::Damaged("a damaged page was met".to_owned()));
    }
    let version = connect(&path, OpenFlags::empty()).and_then(|connection| {
        let version = connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
        if (1..=VERSION).contains(&version) {
            // Reads the schema and a table.
            connection.query_row("SELECT counter FROM boot", [], |row| row.get::<_, i64>(0))?;
        }
        Ok((connection, version))
    });
    match version {
        Ok((connection, VERSION)) => Ok(Found::Ready(connection)),
        Ok((_, 0)) => Ok(Found::Missing),
        Ok((_, version)) if !(0..=VERSION).contains(&version) => Ok(Found::Newer(version)),
        Ok((connection, version)) => Ok(Found::Older(connection, version)),
        // The version is right but the table that every database has is not there.
        Err(error) if is_damage(&error) || lacks_tables(&error) => Ok(Found::Damaged(error.to_string())),
        Err(source) => Err(Error::Database { path, source }),
    }
}

/// Whatever is not the usual case, one process at a time.
fn prepare(dir: &StackerDir, boot: &str, warnings: &mut Vec<String>) -> Result<Connection> {
    let path = dir.database();
    let lock = dir.0.join("stacker.db.lock");
    let lock_file = OpenOptions::new().write(true).create(true).truncate(false).open(&lock).at("open", &lock)?;
    lock_file.lock().at("lock", &lock)?;
    let fault = |source| Error::Database { path: dir.database(), source };
    match look(dir)? {
        Found::Ready(connection) => Ok(connection),
        Found::Older(connection, version) => {
            let migrations = MIGRATIONS.get(version as usize..).unwrap_or_default();
            migrate(&connection, migrations).map_err(fault)?;
            Ok(connection)
        }
        Found::Newer(version) => Err(Error::Machine(format!(
            "database {} has schema {version}, this stacker knows {VERSION}: use the newer stacker, choose another \
             --stacker-dir, or remove the file (it is made anew from records/)",
            path.display()
        ))),
        Found::Missing => {
            remove_database(dir)?;
            let (connection, count) = create(dir, boot)?;
            if count > 0 {
                warnings.push(format!("database {} was missing: made anew from {count} records", path.display()));
            }
            Ok(connection)
        }
        Found::Damaged(why) => {
            let aside = set_aside(dir)?;
            let (connection, count) = create(dir, boot)?;
            warnings.push(format!(
                "database {} was damaged ({why}): set aside as {}, made anew from {count} records",
                path.display(),
                aside.display()
            ));
            Ok(connection)
        }
    }
}

fn migrate(connection: &Connection, migrations: &[&str]) -> rusqlite::Result<()> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    for migration in migrations {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// `stacker.db` and the two files that SQLite keeps beside it.
fn database_files(dir: &StackerDir) -> [(PathBuf, &'static str); 3] {
    let file = |suffix: &'static str| (dir.0.join(format!("stacker.db{suffix}")), suffix);
    [file(""), file("-wal"), file("-shm")]
}

/// A write-ahead log without its database would be replayed into the new one.
fn remove_database(dir: &StackerDir) -> Result<()> {
    database_files(dir).iter().try_for_each(|(path, _)| remove(path))
}

fn set_aside(dir: &StackerDir) -> Result<PathBuf> {
    let free = |n: &u32| !dir.0.join(format!("stacker.db.damaged-{n}")).exists();
    let aside = dir.0.join(format!("stacker.db.damaged-{}", (1..).find(free).unwrap_or(0)));
    for (path, suffix) in database_files(dir) {
        let to = PathBuf::from(format!("{}{suffix}", aside.display()));
        match fs::rename(&path, &to) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other.at("rename", &path)?,
        }
    }
    remove(&damage_note(dir))?;
    Ok(aside)
}

/// A new database that knows what the records say; also how many results those are.
fn create(dir: &StackerDir, boot: &str) -> Result<(Connection, usize)> {
    let records = surviving_records(dir, boot)?;
    let fill = || {
        let connection = connect(&dir.database(), OpenFlags::SQLITE_OPEN_CREATE)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let transaction = Transaction::new_unchecked(&connection, TransactionBehavior::Immediate)?;
        MIGRATIONS.iter().try_for_each(|migration| transaction.execute_batch(migration))?;
        transaction.execute("INSERT INTO boot (one, id, counter) VALUES (1, ?1, 0)", [boot])?;
        for (name, (record, synced)) in &records {
            super::results::insert(&transaction, record, name, *synced, record.result.created)?;
        }
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
        Ok(connection)
    };
    let connection = fill().map_err(|source| Error::Database { path: dir.database(), source })?;
    CommitPoint::DatabaseMade.reached();
    Ok((connection, records.len()))
}

/// By file name: the newest record of each key in `records/` and this boot's `fresh/`, and whether it is the former.
fn surviving_records(dir: &StackerDir, boot: &str) -> Result<HashMap<String, (Record, bool)>> {
    let mut newest: HashMap<Key, (String, Record, bool)> = HashMap::new();
    for (directory, synced) in [(dir.records(), true), (dir.fresh(), false)] {
        for name in names(&directory)? {
            let Some(record) = Record::read(&directory.join(&name))? else { continue };
            let older = newest.get(&record.key);
            let newer = older.is_none_or(|(_, older, _)| older.result.created <= record.result.created);
            if newer && (synced || record.boot == boot) {
                newest.insert(record.key, (name, record, synced));
            }
        }
    }
    Ok(newest.into_values().map(|(name, record, synced)| (name, (record, synced))).collect())
}
