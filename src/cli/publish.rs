//! `stacker publish`: from the command line to a request.

use crate::build::{self, What};
use crate::error::{Error, Result};
use crate::http;
use crate::inputs::absolute;
use crate::layer_type::LayerType;
use crate::load;
use crate::progress::Mode;
use crate::publish::{Request, Target};
use crate::registry::Secret;
use crate::worker::message::Compression;

use super::commands::{file, pattern, substituting};
use super::options::Directories;
use super::{Global, Publish};

/// What is published, how, and whereto.
pub fn request(
    arguments: Publish,
    global: &Global,
    directories: Directories,
    network: http::Options,
) -> Result<Request> {
    let mut load = substituting(&arguments.substitutes, &directories)?;
    let what = match &arguments.search_dir {
        Some(directory) => {
            let pattern = Some(pattern(&arguments.stacker_file_pattern)?);
            load = load::Options { pattern, every_file: true, ..load };
            What::All(absolute(directory)?)
        }
        None => What::File(file(arguments.file.as_ref())?, Vec::new()),
    };
    let (target, given) = (Target::parse(&arguments.url)?, given(arguments.username, arguments.password)?);
    Ok(Request {
        build: looking(what, load, arguments.layer_type, directories, network),
        target,
        tags: arguments.tag,
        images: arguments.image,
        given,
        insecure: arguments.skip_tls,
        force: arguments.force,
        show_only: arguments.show_only,
        quiet: global.quiet,
    })
}

/// The build that would make what is looked at.
pub(super) fn looking(
    what: What,
    load: load::Options,
    layer_types: Vec<LayerType>,
    directories: Directories,
    network: http::Options,
) -> build::Request {
    build::Request {
        what,
        load,
        no_cache: false,
        rebuild: Vec::new(),
        keep_going: true,
        jobs: 1,
        progress: Some(Mode::None),
        metadata_file: None,
        trace: None,
        // It makes no difference for what is compared.
        compression: Compression::Gzip(6),
        layer_types,
        max_layer_size: u64::MAX,
        created: None,
        // What it tells is not compared.
        provenance: None,
        after_failure: None,
        cache_max_size: None,
        directories,
        network,
    }
}

/// Name and password, from flags or else from the environment.
fn given(username: Option<String>, password: Option<String>) -> Result<Option<Secret>> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let username = username.or_else(|| variable("REGISTRY_USERNAME"));
    let password = password.or_else(|| variable("REGISTRY_PASSWORD"));
    match (username, password) {
        (Some(username), Some(password)) => Ok(Some(Secret::Password { username, password })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Error::Usage("publish: --username needs --password (or REGISTRY_PASSWORD)".to_owned())),
        (None, Some(_)) => Err(Error::Usage("publish: --password needs --username (or REGISTRY_USERNAME)".to_owned())),
    }
}
