//! From what is foreseen of steps to a plan.

use std::collections::{BTreeMap, BTreeSet};

use crate::execute::{Fate, Foreseen, Foresight};
use crate::graph::{LayerGraph, LayerIndex};
use crate::load::Loaded;

use super::report::{Forecast, Matrix, MatrixEntry, Plan, PlannedLayer, PlannedStep, PlannedTotals, Status};
use super::schedule::{Task, critical, elapsed};
use super::since::Found;

/// What a plan is made of.
pub(super) struct Parts<'a> {
    pub graph: &'a LayerGraph,
    pub loaded: &'a Loaded,
    pub asked: &'a BTreeSet<LayerIndex>,
    pub unknown: &'a BTreeMap<LayerIndex, String>,
    pub since: Option<&'a Found>,
}

impl Parts<'_> {
    pub fn plan(&self, foresight: &Foresight, jobs: usize) -> Plan {
        let mut steps: BTreeMap<LayerIndex, Vec<&Foreseen>> = BTreeMap::new();
        for step in &foresight.steps {
            steps.entry(step.id.layer).or_default().push(step);
        }
        let none = Vec::new();
        let of = |layer: LayerIndex| steps.get(&layer).unwrap_or(&none).as_slice();
        let layers: BTreeMap<LayerIndex, PlannedLayer> =
            self.asked.iter().map(|&layer| (layer, self.layer(layer, of(layer), foresight))).collect();
        let mut totals = PlannedTotals::default();
        layers.values().for_each(|layer| *totals.of(layer.status) += 1);
        let forecast = |most| self.forecast(&layers, (&of, &foresight.compressions), jobs, most);
        let (least, most) = (forecast(false), forecast(true));
        let since = self.since.map(|since| since.report(self.loaded));
        let matrix = self.matrix(&layers);
        Plan { layers: layers.into_values().collect(), totals, jobs, least, most, since, matrix }
    }

    fn layer(&self, layer: LayerIndex, steps: &[&Foreseen], foresight: &Foresight) -> PlannedLayer {
        let steps: Vec<PlannedStep> = steps.iter().map(|step| self.step(step)).collect();
        let (status, reason) = self.status(layer, &steps, foresight);
        let may_run = || steps.iter().filter(|step| matches!(step.status, Status::Build | Status::If));
        let mut on: Vec<String> = Vec::new();
        for name in may_run().filter(|_| status == Status::If).flat_map(|step| &step.on) {
            if !on.contains(name) {
                on.push(name.clone());
            }
        }
        PlannedLayer {
            name: self.name(layer),
            stackerfile: self.stackerfile(layer),
            status,
            reason,
            on,
            seconds: may_run().try_fold(0.0, |sum, step| Some(sum + step.seconds?)),
            compression: foresight.compressions.get(&layer).copied(),
            needs: self.names(self.graph.needs(layer)),
            affected: self.since.and_then(|since| since.affected(layer, self.graph, self.loaded)),
            steps,
        }
    }

    /// What would become of a layer, and why.
    fn status(&self, layer: LayerIndex, steps: &[PlannedStep], foresight: &Foresight) -> (Status, Option<String>) {
        match self.unknown.get(&layer) {
            Some(why) => (Status::Unknown, Some(why.clone())),
            None if foresight.failing.contains(&layer) => {
                let needed = self.graph.needs(layer).into_iter().find(|needed| foresight.failing.contains(needed));
                let why = needed.map(|needed| format!("it needs {}", self.name(needed)));
                (Status::Fail, Some(foresight.failures.get(&layer).cloned().or(why).unwrap_or_default()))
            }
            None => {
                let built = steps.iter().find(|step| step.status == Status::Build);
                let may_be = steps.iter().any(|step| step.status == Status::If);
                let status = match built {
                    Some(_) => Status::Build,
                    None if may_be => Status::If,
                    None => Status::Hit,
                };
                (status, built.and_then(|step| step.reason.clone()))
            }
        }
    }

    fn step(&self, step: &Foreseen) -> PlannedStep {
        let mut planned = PlannedStep {
            step: step.step.to_owned(),
            status: Status::Hit,
            key: step.key,
            reason: None,
            why: None,
            after: Vec::new(),
            may_be_shared: false,
            on: Vec::new(),
            data_is_gone: false,
            same_as: None,
            seconds: step.seconds,
        };
        match &step.fate {
            Fate::Hit => {}
            Fate::Shared(layer) => planned.same_as = Some(self.name(*layer)),
            Fate::Build { why, reason, after, shared } => {
                planned.may_be_shared = *shared;
                planned.status = Status::Build;
                (planned.reason, planned.why) = (Some(reason.clone()), Some(why.clone()));
                planned.after = self.names(after.iter().copied());
            }
            Fate::If { layers, needed } => {
                (planned.status, planned.data_is_gone) = (Status::If, *needed);
                planned.on = self.names(layers.iter().copied());
            }
        }
        planned
    }

    /// `most`: with the layers that are built only if something comes out different. The compression of a layer follows
    /// its steps, and nothing waits for it.
    fn forecast<'s>(
        &self,
        layers: &BTreeMap<LayerIndex, PlannedLayer>,
        (steps, compressions): (&impl Fn(LayerIndex) -> &'s [&'s Foreseen], &BTreeMap<LayerIndex, f64>),
        jobs: usize,
        most: bool,
    ) -> Forecast {
        let mut forecast = Forecast::default();
        let mut tasks: Vec<Task> = Vec::new();
        let mut owners: Vec<LayerIndex> = Vec::new();
        // Steps go before what is to be compressed.
        let mut compressed: Vec<(LayerIndex, Task)> = Vec::new();
        // What must be done before a layer is.
        let mut last: BTreeMap<LayerIndex, BTreeSet<usize>> = BTreeMap::new();
        for &layer in layers.keys() {
            let needs = self.graph.needs(layer).into_iter().filter_map(|needed| last.get(&needed));
            let mut before: BTreeSet<usize> = needs.flatten().copied().collect();
            let runs = |step: &&&Foreseen| match step.fate {
                Fate::Build { .. } => true,
                Fate::If { .. } => most,
                Fate::Hit | Fate::Shared(_) => false,
            };
            for step in steps(layer).iter().filter(runs) {
                forecast.steps += 1;
                forecast.steps_without_time += usize::from(step.seconds.is_none());
                tasks.push(Task { seconds: step.seconds.unwrap_or(0.0), needs: std::mem::take(&mut before) });
                owners.push(layer);
                before.insert(tasks.len() - 1);
            }
            let makes = steps(layer).iter().filter(runs).any(|step| step.may_make());
            if let (true, Some(&seconds)) = (makes, compressions.get(&layer)) {
                compressed.push((layer, Task { seconds, needs: before.clone() }));
            }
            last.insert(layer, before);
        }
        for (layer, task) in compressed {
            tasks.push(task);
            owners.push(layer);
        }
        let (path, seconds) = critical(&tasks);
        let mut path: Vec<LayerIndex> = path.into_iter().map(|task| owners[task]).collect();
        path.dedup();
        forecast.work = tasks.iter().fold(0.0, |sum, task| sum + task.seconds);
        forecast.elapsed = elapsed(&tasks, jobs);
        forecast.critical_path = self.names(path);
        forecast.critical_seconds = seconds;
        forecast
    }

    fn matrix(&self, layers: &BTreeMap<LayerIndex, PlannedLayer>) -> Matrix {
        let wanted: BTreeSet<LayerIndex> = match self.since {
            Some(since) => since.affected.keys().filter(|layer| layers.contains_key(layer)).copied().collect(),
            None => layers.iter().filter(|(_, planned)| planned.status != Status::Hit).map(|it| *it.0).collect(),
        };
        let is_needed = |layer: LayerIndex| self.graph.dependents(layer).iter().any(|it| wanted.contains(it));
        let jobs = wanted.iter().filter(|layer| !self.graph[**layer].layer.build_only || !is_needed(**layer));
        let entry =
            |layer: &LayerIndex| MatrixEntry { layer: self.name(*layer), stackerfile: self.stackerfile(*layer) };
        Matrix { include: jobs.map(entry).collect() }
    }

    fn name(&self, layer: LayerIndex) -> String {
        self.graph[layer].layer.name.clone()
    }

    fn names(&self, layers: impl IntoIterator<Item = LayerIndex>) -> Vec<String> {
        layers.into_iter().map(|layer| self.name(layer)).collect()
    }

    fn stackerfile(&self, layer: LayerIndex) -> String {
        self.loaded.texts.shown(&self.graph[layer].layer.place.path)
    }
}
