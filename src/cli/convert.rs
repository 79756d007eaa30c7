//! `stacker convert`.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::convert::{Request, convert};
use crate::error::{Error, Result};
use crate::inputs::absolute;

/// The end of `stacker convert --help`.
const AFTER: &str = "\
What a stackerfile cannot say is told, and stands as a comment above its layer. Base images and ARGs are substitutions:
  stacker build --substitute BASE_python=oci:/path/of/layout:tag --substitute ARG_VERSION=2";

/// `stacker convert`.
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Convert {
    /// The Dockerfile
    #[arg(long, short = 'i', value_name = "FILE", default_value = "Dockerfile")]
    pub docker_file: PathBuf,
    /// The stackerfile that is written (`-`: stdout)
    #[arg(long, short, value_name = "FILE", default_value = "stacker.yaml")]
    pub output_file: PathBuf,
    /// The list of substitutions that is written, for `build --substitute-file`
    #[arg(long, short, value_name = "FILE", default_value = "stacker-subs.yaml")]
    pub substitute_file: PathBuf,
    /// Where COPY starts from, as the last argument of `docker build` (default: the Dockerfile's directory)
    #[arg(long, value_name = "DIR")]
    pub context: Option<PathBuf>,
    /// Replace files that are there
    #[arg(long)]
    pub force: bool,
}

/// Runs it; returns the warnings.
pub(super) fn run(arguments: &Convert, working_dir: &Path, colour: bool) -> Result<Vec<String>> {
    let dockerfile = absolute(&arguments.docker_file)?;
    let context = match &arguments.context {
        Some(context) => absolute(context)?,
        None => dockerfile.parent().unwrap_or(Path::new("/")).to_path_buf(),
    };
    if !context.is_dir() {
        return Err(Error::Usage(format!("--context: {} is not a directory", context.display())));
    }
    let to_stdout = arguments.output_file == Path::new("-");
    convert(&Request {
        dockerfile,
        context,
        output: if to_stdout { None } else { Some(absolute(&arguments.output_file)?) },
        substitutes: absolute(&arguments.substitute_file)?,
        force: arguments.force,
        working_dir: working_dir.to_path_buf(),
        colour,
    })
}
