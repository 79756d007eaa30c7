//! The caller's terminal: its size, and its raw mode, which is undone however the program ends (but for SIGKILL).

use std::io::{self, IsTerminal};
use std::sync::{Mutex, MutexGuard};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// How the terminal was, while it is raw.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal passes on every key. Dropping it brings back what was.
pub struct Raw(());

/// Rows and columns, where standard input and output both are a terminal.
pub fn size() -> Option<(u16, u16)> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return None;
    }
    let size = tcgetwinsize(io::stdin()).ok()?;
    Some((size.ws_row, size.ws_col))
}

impl Raw {
    /// Begins.
    pub fn begin() -> io::Result<Raw> {
        *before() = Some(tcgetattr(io::stdin())?);
        let raw = Raw(());
        raw.again()?;
        Ok(raw)
    }

    /// Once more: whoever stopped us may have changed it.
    pub fn again(&self) -> io::Result<()> {
        let Some(mut modes) = before().clone() else { return Ok(()) };
        modes.make_raw();
        Ok(tcsetattr(io::stdin(), OptionalActions::Drain, &modes)?)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Brings back what was before; nothing where the terminal is not raw. For who ends the program at once.
pub fn restore() {
    if let Some(modes) = before().take() {
        // Without its terminal there is nothing to bring back.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &modes);
    }
}

fn before() -> MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(|broken| broken.into_inner())
}
