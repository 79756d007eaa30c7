//! `stacker verify`.

use clap::Args;

use crate::error::Result;
use crate::holder::{Holder, Insisted};
use crate::http;
use crate::layer_type::LayerType;
use crate::progress::Mode;
use crate::reproduce::{Report, Request, reproduce};

use super::Global;
use super::archive::Place;
use super::options::Directories;
use super::publish::looking;

/// `stacker verify`.
#[derive(Args, Debug)]
#[command(long_about = VERIFY)]
pub struct Verify {
    /// Layers to build once more (default: all of the stackerfile)
    #[arg(value_name = "LAYER")]
    pub layers: Vec<String>,
    /// Where the layers are looked for.
    #[command(flatten)]
    pub place: Place,
    /// How progress is shown (default: live lines on a terminal, else plain)
    #[arg(long, value_name = "MODE")]
    pub progress: Option<Mode>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `stacker verify --help`.
const VERIFY: &str = "\
Build layers once more and compare what comes out with what the cache has: who builds from the same sources should get the
same bytes. What differs is shown file by file, with what usually mends it.

Each step of these layers is done again, on what the layers beneath, and the steps before, came out as the first time;
inputs are those of the last build. It happens in a second place; nothing of it gets into the cache, and nothing stays.

Exit code 0: all of them come out the same; 1: some do not, or failed. (`stacker cache verify` is something else: whether
what is stored is whole.)";

/// Verifies.
pub fn verify(
    arguments: &Verify,
    global: &Global,
    directories: Directories,
    network: http::Options,
    (kind, sandbox): Insisted,
) -> Result<Report> {
    let (what, load) = arguments.place.what(&directories)?;
    let holder = Holder::start(&directories.stacker, &directories.roots, kind)?.insist(sandbox);
    let mut build = looking(what, load, vec![LayerType::Tar], directories, network);
    build.progress = super::commands::mode(global, arguments.progress);
    reproduce(&Request { build, layers: arguments.layers.clone(), sandbox }, holder)
}
