//! What a build does when, seen from outside: by the files that it makes, each in its own directory.
//!
//! Nothing in the program knows of it. The times are those at which this process, which waits for nothing else, hears of
//! a file; a build with `--jobs 1` makes them one after the other.

use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::fs::inotify::{self, ReadFlags, WatchFlags};

/// (what happened, milliseconds since the start of the process).
pub type Marks = Vec<(&'static str, f64)>;

/// Directory, which of its events, what that means.
const MEANINGS: [(Place, WatchFlags, &str); 10] = [
    (Place::Stacker("claims"), WatchFlags::CREATE, "decided"),
    (Place::Roots("trees"), WatchFlags::MOVED_TO, "tree"),
    (Place::Stacker("logs"), WatchFlags::CREATE, "ready"),
    (Place::Roots("nurseries"), WatchFlags::MOVED_TO, "nursery"),
    (Place::Stacker("logs"), WatchFlags::MODIFY, "script"),
    (Place::Roots("deltas"), WatchFlags::MOVED_TO, "kept"),
    (Place::Stacker("fresh"), WatchFlags::MOVED_TO, "recorded"),
    (Place::Stacker("blobs/sha256"), WatchFlags::MOVED_TO, "compressed"),
    (Place::Layout, WatchFlags::MOVED_TO, "exported"),
    (Place::Stacker("records"), WatchFlags::MOVED_TO, "durable"),
];

#[derive(Clone, Copy)]
enum Place {
    Stacker(&'static str),
    Roots(&'static str),
    Layout,
}

/// The directories of a build. Those that are watched are there.
pub struct Watched<'a> {
    pub stacker: &'a Path,
    pub roots: &'a Path,
    pub layout: &'a Path,
}

impl Watched<'_> {
    fn path(&self, place: Place) -> PathBuf {
        match place {
            Place::Stacker(name) => self.stacker.join(name),
            Place::Roots(name) => self.roots.join(name),
            Place::Layout => self.layout.to_owned(),
        }
    }

    /// Executes a build. The last mark is `exit`.
    pub fn build(&self, command: &[PathBuf]) -> io::Result<Marks> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC)?;
        let mut watches = Vec::new();
        for (place, events, meaning) in MEANINGS {
            let number = inotify::add_watch(&watch, self.path(place), events | WatchFlags::MASK_ADD)?;
            watches.push((number, ReadFlags::from_bits_truncate(events.bits()), meaning));
        }
        let (over, begun) = (AtomicBool::new(false), Instant::now());
        let mut child = Command::new(&command[0]).args(&command[1..]).stdin(Stdio::null()).spawn()?;
        std::thread::scope(|scope| {
            let marks = scope.spawn(|| follow(&watch, &watches, &over, begun));
            let status = child.wait()?;
            let exit = begun.elapsed().as_secs_f64() * 1e3;
            over.store(true, Ordering::SeqCst);
            // Wakes who follows.
            let end = self.stacker.join("claims/end");
            File::create(&end).and_then(|_| fs::remove_file(&end))?;
            let mut marks = marks.join().map_err(|_| io::Error::other("the timeline broke"))??;
            marks.push(("exit", exit));
            match status.success() {
                true => Ok(marks),
                false => Err(io::Error::other("a build failed")),
            }
        })
    }
}

fn follow(
    watch: &std::os::fd::OwnedFd,
    watches: &[(i32, ReadFlags, &'static str)],
    over: &AtomicBool,
    begun: Instant,
) -> io::Result<Marks> {
    let mut buffer = [MaybeUninit::uninit(); 1 << 14];
    let mut events = inotify::Reader::new(watch, &mut buffer);
    let mut marks: Marks = Vec::new();
    loop {
        let event = events.next()?;
        if over.load(Ordering::SeqCst) {
            return Ok(marks);
        }
        let meaning =
            watches.iter().find(|(number, flags, _)| *number == event.wd() && event.events().intersects(*flags));
        // Of several of one kind in a row (lines of a log, blobs) the first counts.
        if let Some((.., meaning)) = meaning
            && marks.last().is_none_or(|(last, _)| last != meaning)
        {
            marks.push((meaning, begun.elapsed().as_secs_f64() * 1e3));
        }
    }
}
