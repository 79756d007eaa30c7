//! One stage of a Dockerfile becomes a chain of layers: imports gather in a layer until a script ends it.

use super::layer::{Base, Layer, Settings};

/// What Docker has where nobody sets a PATH.
pub(super) const PATH: &str = crate::inputs::DEFAULT_PATH;

/// A stage while it is read, and for later ones that refer to it.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    /// As `AS` names it.
    pub name: Option<String>,
    /// Of the layer that it results in.
    pub tag: String,
    /// What the layers beneath are called, with a number.
    pub prefix: String,
    /// The last of the file: the image.
    pub last: bool,
    pub base: Base,
    /// What placeholders call the image beneath it all; `None`: there is none.
    pub origin: Option<String>,
    pub platform: Option<(String, String)>,
    pub layers: Vec<Layer>,
    /// `ENV`, also of the stages beneath.
    pub environment: Vec<(String, String)>,
    /// `ARG`, of this stage alone.
    pub arguments: Vec<(String, Option<String>)>,
    pub workdir: String,
    /// Directories of `WORKDIR` that nothing has made yet.
    pub pending: Vec<String>,
    /// `None`: root.
    pub user: Option<String>,
    pub shell: Vec<String>,
    pub settings: Settings,
    /// `CMD` stands in this stage.
    pub own_cmd: bool,
    /// Another stage needs it.
    pub used: bool,
}

impl Stage {
    pub fn new(name: Option<String>, tag: String, prefix: String, base: Base) -> Stage {
        Stage {
            name,
            tag,
            prefix,
            last: false,
            base,
            origin: None,
            platform: None,
            layers: Vec::new(),
            environment: Vec::new(),
            arguments: Vec::new(),
            workdir: "/".to_owned(),
            pending: Vec::new(),
            user: None,
            shell: ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
            settings: Settings::default(),
            own_cmd: false,
            used: false,
        }
    }

    /// Docker does not tell capital letters from small ones here.
    pub fn is_named(&self, name: &str) -> bool {
        self.name.as_ref().is_some_and(|known| known.eq_ignore_ascii_case(name))
    }

    /// A stage on top of this one has what its containers would have.
    pub fn inherit(&mut self, base: &Stage) {
        self.base = Base::Built(base.tag.clone());
        self.origin = base.origin.clone();
        self.platform = base.platform.clone();
        self.environment = base.environment.clone();
        self.workdir = base.workdir.clone();
        self.user = base.user.clone();
        self.shell = base.shell.clone();
        self.settings = base.settings.clone();
    }

    /// The layer that takes imports.
    pub fn open(&mut self) -> &mut Layer {
        if self.layers.last().is_none_or(|layer| layer.run.is_some()) {
            self.fresh();
        }
        self.layers.last_mut().expect("there is one now")
    }

    /// A layer of its own.
    pub fn fresh(&mut self) -> &mut Layer {
        self.layers.push(Layer { platform: self.platform.clone(), ..Layer::default() });
        self.layers.last_mut().expect("it was pushed")
    }

    /// No layer can have a script: there is nothing that could run it.
    pub fn is_bare(&self) -> bool {
        self.base == Base::Scratch && self.layers.is_empty()
    }

    /// What scripts see: arguments, and over them the variables.
    pub fn build_env(&self) -> Vec<(String, String)> {
        let argument = |(name, value): &(String, Option<String>)| Some((name.clone(), value.clone()?));
        let mut pairs = Vec::new();
        for (name, value) in self.arguments.iter().filter_map(argument).chain(self.environment.iter().cloned()) {
            super::layer::set(&mut pairs, name, value);
        }
        pairs
    }

    /// The layers with their names, each upon the one before. `taken`: names of other stages and layers.
    pub fn finished(&self, taken: impl Fn(&str) -> bool) -> Vec<Layer> {
        let mut layers = self.layers.clone();
        let count = layers.len();
        let mut below = self.base.clone();
        for (index, layer) in layers.iter_mut().enumerate() {
            let is_last = index + 1 == count;
            layer.name = if is_last { self.tag.clone() } else { format!("{}-{}", self.prefix, index + 1) };
            while !is_last && taken(&layer.name) {
                layer.name.push_str("-x");
            }
            layer.base = std::mem::replace(&mut below, Base::Built(layer.name.clone()));
            layer.build_only = !(is_last && self.last);
            if is_last && self.last {
                layer.settings = self.settings();
            }
        }
        layers
    }

    fn settings(&self) -> Settings {
        Settings {
            environment: self.environment.clone(),
            working_dir: (self.workdir != "/" || self.settings.working_dir.is_some()).then(|| self.workdir.clone()),
            ..self.settings.clone()
        }
    }
}
