//! `stacker report`.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::database::{BuildId, Database, open_existing};
use crate::error::{Error, Result};
use crate::export::metadata::write_whole;
use crate::report::{Report, more, page};
use crate::story;

use super::commands::write;
use super::options::Directories;

/// `stacker report`.
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct ReportArguments {
    /// Which build, by its number (default: the last one)
    #[arg(value_name = "BUILD")]
    pub build: Option<BuildId>,
    /// Where to write the page; `-`: to stdout
    #[arg(long, short, value_name = "FILE", default_value = "report.html")]
    pub output: PathBuf,
}

/// The end of `stacker report --help`.
const AFTER: &str = "\
The page needs nothing but itself: no network, no other file. Of each layer's log it has the end. Printed, it has the
pictures, the table, and what is known of the layers that ran.";

/// Writes the page; returns what goes to stdout.
pub fn report(arguments: &ReportArguments, directories: &Directories) -> Result<String> {
    let database = open_existing(&directories.stacker)?;
    let id = chosen(arguments.build, &database)?;
    let Some(story) = story::read(&database, id)? else {
        let known = database.builds(1)?.first().map_or(0, |(id, _)| *id);
        return Err(Error::Usage(format!("there is no build {id}; the last one is {known}")));
    };
    let more = more(&story, &database, &directories.stacker)?;
    let page = page(&Report { story: &story, more: &more });
    if arguments.output == Path::new("-") {
        return write(page.as_bytes()).map(|_| String::new());
    }
    write_whole(&arguments.output, page.as_bytes())?;
    Ok(format!("build {id}: {}", arguments.output.display()))
}

fn chosen(build: Option<BuildId>, database: &Database) -> Result<BuildId> {
    match build {
        Some(id) => Ok(id),
        None => match database.builds(1)?.first() {
            Some((id, _)) => Ok(*id),
            None => Err(Error::Usage("no build was recorded yet: build something".to_owned())),
        },
    }
}
