//! Removing directories of the store, whoever owns what is in them.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

use crate::seal::failure::users;

use super::failed;
use super::message::Failure;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Removes directories beneath the roots directory; those that are not there are no error. Each gets out of the way at
/// once, and is then taken apart in the trash.
pub fn remove(paths: &[String]) -> Result<(), Failure> {
    for path in paths {
        let path = Path::new(path);
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(users("remove", b"", format!("{} is not beneath the roots directory", path.display())));
        }
        let mut place = path.to_path_buf();
        if !path.starts_with("trash") {
            place = Path::new("trash").join(unique());
            match fs::rename(path, &place) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other.map_err(|error| failed("rename", path, error))?,
            }
        }
        match fs::remove_dir_all(&place) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::NotADirectory => {
                fs::remove_file(&place).map_err(|error| failed("remove", &place, error))?;
            }
            other => other.map_err(|error| failed("remove", &place, error))?,
        }
    }
    Ok(())
}

/// A name that no other worker, dead ones included, gives: its process id may come again, but not at that moment.
pub(super) fn unique() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{}-{}", now.as_nanos(), std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
