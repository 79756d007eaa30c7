//! Layers decided as a build would, without anything being run or any server being asked: bases by tag are what they
//! were when they were last asked for.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{Request, packings, scope, settle};
use crate::database::{Database, must_exist};
use crate::decide::{Decider, LayerInputs, Settings};
use crate::error::Result;
use crate::execute::{self, Execution, Site};
use crate::graph::{LayerGraph, LayerIndex};
use crate::holder::Holder;
use crate::http::{Client, Options};
use crate::inputs::{self, Scope};
use crate::layer_type::Packing;
use crate::load::Loaded;
use crate::oci::BaseImage;
use crate::pins::Pins;
use crate::progress::{Event, Mode};
use crate::remote::{self, Fetching};
use crate::tell::Teller;

/// What deciding needs, resolved.
pub struct Look<'a> {
    /// What would be built.
    pub request: &'a Request,
    /// The layers, with what was fetched for them once.
    pub graph: LayerGraph,
    /// The cache.
    pub database: Database,
    /// Where data lies.
    pub site: Arc<Site>,
    /// What the whole build is told.
    pub settings: Settings,
    /// Base images by layer.
    pub bases: HashMap<LayerIndex, Arc<BaseImage>>,
    /// How layers become blobs.
    pub packings: Vec<Packing>,
    /// For events.
    pub teller: Teller,
    layers: Vec<LayerInputs>,
    loaded: &'a Loaded,
    wanted: BTreeSet<LayerIndex>,
}

/// The same before it is known which layers are looked at, and before anything of the host was read.
pub struct Ahead<'a> {
    request: &'a Request,
    loaded: &'a Loaded,
    graph: LayerGraph,
    database: Database,
    holder: Holder,
    scope: Scope,
    pins: Pins,
    warnings: Vec<String>,
}

impl<'a> Ahead<'a> {
    /// `warnings` are told with those that looking comes to.
    pub fn new(
        request: &'a Request,
        graph: &LayerGraph,
        loaded: &'a Loaded,
        mut holder: Holder,
        mut warnings: Vec<String>,
    ) -> Result<Ahead<'a>> {
        let (database, told) = Database::open(&request.directories.stacker)?;
        warnings.extend(told);
        warnings.extend(settle(&request.directories, &database)?);
        holder.expect(database.store(&request.directories.roots)?);
        let http = Arc::new(Client::new(Options { offline: true, ..request.network.clone() }));
        let scope = Scope { http, ..scope(request, graph, holder.owners()?)? };
        let pins = Pins::start(&request.directories.stacker)?;
        Ok(Ahead { request, loaded, graph: graph.clone(), database, holder, scope, pins, warnings })
    }

    /// The layers that take something from servers that was never asked for, with what that is.
    pub fn unknown(&self, wanted: &BTreeSet<LayerIndex>) -> Result<BTreeMap<LayerIndex, String>> {
        let mut unknown = inputs::unknown_bases(&self.graph, wanted, &self.scope, &self.database)?;
        unknown.extend(remote::unknown(&self.graph, &self.fetching(wanted))?);
        Ok(unknown)
    }

    /// Finds out what layers take from the host. `mode`: how what happens is told.
    pub fn look(mut self, wanted: &BTreeSet<LayerIndex>, mode: Option<Mode>) -> Result<Look<'a>> {
        let packings = packings(self.request, &self.graph, wanted)?;
        let mut graph = std::mem::take(&mut self.graph);
        let told = remote::fetch(&mut graph, &self.fetching(wanted))?;
        self.warnings.extend(told);
        let Ahead { request, loaded, database, holder, scope, pins, warnings, .. } = self;
        let inputs = inputs::resolve(&graph, loaded, wanted, &scope, &database)?;
        inputs::check_hashes(&graph, loaded, wanted, &inputs, &database)?;
        let source_date_epoch = inputs::source_date_epoch(&scope.host)?;
        let settings = Settings { source_date_epoch, keep_going: true, ids: holder.ids()?.0 };
        let bases = inputs.bases.images.clone();
        let layers = inputs.layers.clone();
        let teller = Teller::start(mode, &warnings, 0);
        let site = Arc::new(Site::new(&request.directories, holder, pins, inputs, scope, teller.sender()));
        let wanted = wanted.clone();
        Ok(Look { request, graph, database, site, settings, bases, packings, teller, layers, loaded, wanted })
    }

    fn fetching<'f>(&'f self, wanted: &'f BTreeSet<LayerIndex>) -> Fetching<'f> {
        Fetching {
            loaded: self.loaded,
            wanted,
            scope: &self.scope,
            database: &self.database,
            pins: &self.pins,
            progress: self.request.progress,
            beside: RefCell::default(),
        }
    }
}

impl<'a> Look<'a> {
    /// Into a cache that must be there. `mode`: how what happens is told. The layers that the request wants built anew
    /// are decided so.
    pub fn new(
        request: &'a Request,
        graph: &LayerGraph,
        loaded: &'a Loaded,
        wanted: &BTreeSet<LayerIndex>,
        holder: Holder,
        mode: Option<Mode>,
    ) -> Result<Look<'a>> {
        must_exist(&request.directories.stacker)?;
        Ahead::new(request, graph, loaded, holder, Vec::new())?.look(wanted, mode)
    }

    /// A new execution; it may be asked how things stand.
    pub fn execution(&self) -> Execution<'_> {
        self.decide(self.layers.clone(), BTreeSet::new())
    }

    /// The same, in which some layers are to be built anew.
    pub fn forced(&self, forced: &BTreeSet<LayerIndex>) -> Execution<'_> {
        let mut layers = self.layers.clone();
        forced.iter().for_each(|layer| layers[layer.0].forced = true);
        self.decide(layers, BTreeSet::new())
    }

    /// The same, in which some layers are to have their blobs.
    pub fn emitting(&self, emitted: BTreeSet<LayerIndex>) -> Execution<'_> {
        self.decide(self.layers.clone(), emitted)
    }

    fn decide(&self, layers: Vec<LayerInputs>, emitted: BTreeSet<LayerIndex>) -> Execution<'_> {
        let decider = Decider::new(layers, self.wanted.clone(), self.settings);
        let options = execute::Options {
            jobs: 1,
            packings: self.packings.clone(),
            texts: self.loaded.texts.clone(),
            recording: None,
            layout: self.request.directories.oci.clone(),
            emitted,
        };
        Execution::new(&self.graph, self.wanted.clone(), decider, self.site.clone(), &self.database, options)
    }

    /// Nothing more is told.
    pub fn end(self) {
        self.teller.end(Event::Stop);
    }
}
