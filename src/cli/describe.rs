//! `stacker completions` and `stacker man`: the command line described for shells and for readers.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::error::{At, Result};

use super::Cli;

/// What completes command lines in a shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "stacker", &mut text);
    text
}

/// Writes `stacker.1`, and `stacker-COMMAND.1` for each command.
pub fn man(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).at("create", dir)?;
    clap_mangen::generate_to(Cli::command(), dir).at("write manual pages to", dir)
}
