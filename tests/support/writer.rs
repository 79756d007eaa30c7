//! Somebody who keeps writing a file, always with as many bytes, while the program reads it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;

use rustix::fs::inotify;

/// How a file gets its next content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Its bytes from here on are overwritten.
    InPlace(u64),
    /// Another file takes its name.
    Renamed,
}

/// When a file gets its next content.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// Each time it has been read, except for the first `spared` times, and no more than `changes` times.
    Read { spared: u32, changes: u32 },
    /// As often as can be.
    Always,
}

/// The content number `n`.
pub fn version(n: u32) -> String {
    format!("version {n:010}\n")
}

/// Where the content stands in a larger file.
pub fn version_at(bytes: &[u8]) -> u64 {
    bytes.windows(14).position(|piece| piece == b"version 000000").expect("a version is in it") as u64
}

/// A thread that writes.
pub struct Writer {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU32>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Starts with the version after `last`.
    pub fn start(path: &Path, how: How, when: When, last: u32) -> Writer {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(last)));
        let (stopped, count, of) = (stop.clone(), written.clone(), path.to_owned());
        // Before the thread, so that no reading is missed.
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&watch, path.parent().unwrap(), inotify::WatchFlags::CLOSE_NOWRITE).unwrap();
        let thread = std::thread::spawn(move || match when {
            When::Always => {
                while !stopped.load(Ordering::SeqCst) {
                    write(&of, how, count.load(Ordering::SeqCst) + 1);
                    count.fetch_add(1, Ordering::SeqCst);
                }
            }
            When::Read { mut spared, mut changes } => {
                let mut buffer = [std::mem::MaybeUninit::uninit(); 1 << 12];
                let mut events = inotify::Reader::new(&watch, &mut buffer);
                while let Ok(event) = events.next() {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let name = event.file_name().map(|name| name.to_bytes().to_owned());
                    if changes == 0 || name.as_deref() != of.file_name().map(|name| name.as_encoded_bytes()) {
                    } else if spared > 0 {
                        spared -= 1;
                    } else {
                        write(&of, how, count.load(Ordering::SeqCst) + 1);
                        count.fetch_add(1, Ordering::SeqCst);
                        changes -= 1;
                    }
                }
            }
        });
        Writer { path: path.to_owned(), stop, written, thread }
    }

    /// Ends it; returns the number of the last version.
    pub fn stop(self) -> u32 {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes it.
        drop(File::open(&self.path).unwrap());
        self.thread.join().unwrap();
        self.written.load(Ordering::SeqCst)
    }
}

/// Writes a version; the size and the modification time stay.
pub fn write(path: &Path, how: How, n: u32) {
    let before = fs::metadata(path).unwrap();
    match how {
        How::InPlace(at) => {
            let file = File::options().write(true).open(path).unwrap();
            file.write_all_at(version(n).as_bytes(), at).unwrap();
            file.set_modified(before.modified().unwrap()).unwrap();
        }
        How::Renamed => {
            // Beside the directory, which may be imported as a whole.
            let made = path.parent().unwrap().with_extension("new");
            fs::write(&made, version(n)).unwrap();
            File::options().write(true).open(&made).unwrap().set_modified(before.modified().unwrap()).unwrap();
            fs::rename(&made, path).unwrap();
        }
    }
    assert_eq!(fs::metadata(path).unwrap().len(), before.len());
}
