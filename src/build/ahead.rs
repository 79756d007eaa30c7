//! The part of a build before anything runs, for those who only look: no server is asked.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use crate::database::Database;
use crate::decide::{Decider, Settings};
use crate::error::Result;
use crate::execute::{self, Site};
use crate::graph::{LayerGraph, LayerIndex};
use crate::holder::Holder;
use crate::http::{Client, Options};
use crate::inputs::{self, Scope};
use crate::load::Loaded;
use crate::pins::Pins;
use crate::progress::Event;
use crate::remote::{self, Fetching};

use super::{Request, packings, scope, settle};

/// A build that has not begun. Bases by tag, and files of servers, are what they were when they were last asked for.
pub(crate) struct Ahead<'a> {
    request: &'a Request,
    loaded: &'a Loaded,
    database: &'a Database,
    holder: Holder,
    scope: Scope,
    pins: Pins,
    warnings: Vec<String>,
}

/// What such a build is decided by.
pub(crate) struct Decided<S> {
    /// Makes the site, for somebody who is told what happens.
    pub site: S,
    /// It has not been asked yet.
    pub decider: Decider,
    /// With one job.
    pub options: execute::Options,
    /// What is to be told.
    pub warnings: Vec<String>,
}

impl<'a> Ahead<'a> {
    /// Nothing of what layers take from elsewhere has been looked at.
    pub fn new(
        request: &'a Request,
        graph: &LayerGraph,
        loaded: &'a Loaded,
        database: &'a Database,
        mut holder: Holder,
    ) -> Result<Ahead<'a>> {
        let warnings = settle(&request.directories, database)?.into_iter().collect();
        holder.expect(database.store(&request.directories.roots)?);
        let http = Arc::new(Client::new(Options { offline: true, ..request.network.clone() }));
        let scope = Scope { http, ..scope(request, graph, holder.owners()?)? };
        let pins = Pins::start(&request.directories.stacker)?;
        Ok(Ahead { request, loaded, database, holder, scope, pins, warnings })
    }

    /// The layers that take something from servers that was never asked for, with what that is.
    pub fn unknown(&self, graph: &LayerGraph, wanted: &BTreeSet<LayerIndex>) -> Result<BTreeMap<LayerIndex, String>> {
        let mut unknown = inputs::unknown_bases(graph, wanted, &self.scope, self.database)?;
        unknown.extend(remote::unknown(graph, &self.fetching(wanted))?);
        Ok(unknown)
    }

    /// Finds out what the wanted layers take from the host, and begins to decide. `emitted` are to have their blobs.
    pub fn decide(
        mut self,
        graph: &mut LayerGraph,
        wanted: &BTreeSet<LayerIndex>,
        emitted: BTreeSet<LayerIndex>,
    ) -> Result<Decided<impl FnOnce(Sender<Event>) -> Arc<Site> + use<'a>>> {
        let (request, loaded, database) = (self.request, self.loaded, self.database);
        let packings = packings(request, graph, wanted)?;
        let told = remote::fetch(graph, &self.fetching(wanted))?;
        self.warnings.extend(told);
        let Ahead { holder, scope, pins, warnings, .. } = self;
        let inputs = inputs::resolve(graph, loaded, wanted, &scope, database)?;
        inputs::check_hashes(graph, loaded, wanted, &inputs, database)?;
        let source_date_epoch = inputs::source_date_epoch(&scope.host)?;
        let settings = Settings { source_date_epoch, keep_going: true, ids: holder.ids()?.0 };
        let decider = Decider::new(inputs.layers.clone(), wanted.clone(), settings);
        let options = execute::Options {
            jobs: 1,
            packings,
            texts: loaded.texts.clone(),
            recording: None,
            layout: request.directories.oci.clone(),
            emitted,
        };
        let site = move |events| Arc::new(Site::new(&request.directories, holder, pins, inputs, scope, events));
        Ok(Decided { site, decider, options, warnings })
    }

    fn fetching<'f>(&'f self, wanted: &'f BTreeSet<LayerIndex>) -> Fetching<'f> {
        Fetching {
            loaded: self.loaded,
            wanted,
            scope: &self.scope,
            database: self.database,
            pins: &self.pins,
            progress: self.request.progress,
            beside: RefCell::default(),
        }
    }
}
