//! A command whose processes stand still at each commit point until the test lets them go on.

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use std::time::Duration;

use stacker::commit_point::WATCHER;
use stacker::holder::wire::{self, Packet};

use super::space::Space;

/// It runs, and says where it stands.
pub struct Watched {
    pub child: Child,
    connection: UnixStream,
}

/// A process that stands until this is dropped.
pub struct Standing(Packet);

impl Watched {
    /// Starts a command of a space.
    pub fn start(space: &Space, mut command: Command) -> Watched {
        let socket = space.path("watcher");
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        space.give(&socket);
        let child = command.env(WATCHER, &socket).spawn().unwrap();
        let (connection, _) = listener.accept().unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Watched { child, connection }
    }

    /// Who comes to a point next; `None`: all processes have ended.
    pub fn next(&self) -> Option<Standing> {
        wire::receive(&self.connection).expect("it hangs").map(Standing)
    }

    /// All go on until they end.
    pub fn let_go(&self) {
        while self.next().is_some() {}
    }
}

impl Standing {
    /// The point's name.
    pub fn point(&self) -> &str {
        self.words().0
    }

    /// Of the process.
    pub fn pid(&self) -> i32 {
        self.words().1.parse().unwrap()
    }

    fn words(&self) -> (&str, &str) {
        str::from_utf8(&self.0.text).unwrap().split_once(' ').unwrap()
    }
}
