//! A directory of its own for one end-to-end test, the program run in it, and the users that it is run as.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use stacker::compress::decoder;
use stacker::digest::DiffId;
use stacker::export::metadata::{LayerReport, Metadata, Status};
use stacker::oci::Layout;
use stacker::record::Record;

use super::identity::{Identity, identities};
use super::volume::Volume;

/// If it is set, tests that otherwise take the overlay and the btrfs store take the copy store.
const COPIES: &str = "STACKER_TEST_COPY_STORE";

/// Where a test works.
pub struct Space {
    directory: PathBuf,
    identity: Identity,
    /// Where layers lie, if that is btrfs.
    volume: Option<Volume>,
    /// Every run works on a copy of its base, as on file systems that overlayfs can not write to.
    copies: bool,
}

/// What one run of the program came to.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    what: String,
    metadata: Option<Vec<u8>>,
}

/// Runs a test as the user who runs the tests and, if that is root, as an ordinary user too: each with layers on the
/// file system of the temporary directory and, if root can mount one, on btrfs.
pub fn for_each_identity(test: impl Fn(&Space)) {
    if std::env::var_os(COPIES).is_some() {
        return for_each_identity_with_copies(test);
    }
    for identity in identities() {
        eprintln!("as {identity}:");
        test(&Space::of(identity));
    }
    for_each_identity_on_btrfs(test);
}

/// The same on the file system of the temporary directory alone: where the store makes no difference.
pub fn for_each_user(test: impl Fn(&Space)) {
    for identity in identities() {
        eprintln!("as {identity}:");
        test(&Space::of(identity));
    }
}

/// The same, and with the copy store too.
pub fn for_each_store(test: impl Fn(&Space)) {
    for_each_identity(&test);
    if std::env::var_os(COPIES).is_none() {
        for_each_identity_with_copies(&test);
    }
}

/// With the copy store, on the file system of the temporary directory.
pub fn for_each_identity_with_copies(test: impl Fn(&Space)) {
    for identity in identities() {
        eprintln!("as {identity}, with the copy store:");
        test(&Space::with_copies(identity));
    }
}

/// The same with the users beside each other, one kind of store after the other, of copies too.
pub fn for_each_identity_at_once(test: impl Fn(&Space) + Sync) {
    let at_once = |space: fn(Identity) -> Space| {
        std::thread::scope(|scope| {
            for identity in identities() {
                let test = &test;
                scope.spawn(move || test(&space(identity)));
            }
        });
    };
    at_once(Space::of);
    at_once(Space::with_copies);
    match rustix::process::geteuid().is_root() {
        true => at_once(Space::on_btrfs),
        false => super::skipped("the same on btrfs, which only root can mount"),
    }
}

/// The latter half of it.
pub fn for_each_identity_on_btrfs(test: impl Fn(&Space)) {
    if !rustix::process::geteuid().is_root() {
        return super::skipped("the same on btrfs, which only root can mount");
    }
    for identity in identities() {
        eprintln!("as {identity}, on btrfs:");
        test(&Space::on_btrfs(identity));
    }
}

impl Space {
    /// For the user who runs the tests.
    pub fn new() -> Space {
        Space::of(Identity::Own)
    }

    pub fn of(identity: Identity) -> Space {
        let directory = tempfile::Builder::new().prefix("stacker-test-").tempdir().unwrap().keep();
        let space = Space { directory, identity, volume: None, copies: false };
        let program = Path::new(env!("CARGO_BIN_EXE_stacker"));
        fs::create_dir(space.directory.join("bin")).unwrap();
        // The user may not reach the place where cargo has put it.
        if fs::hard_link(program, space.program()).is_err() {
            fs::copy(program, space.program()).unwrap();
        }
        fs::create_dir(space.path("")).unwrap();
        space.give(&space.directory);
        space.give(&space.path(""));
        space
    }

    /// With a store that copies.
    pub fn with_copies(identity: Identity) -> Space {
        let mut space = Space::of(identity);
        space.copies = true;
        space
    }

    /// With the roots directory on a btrfs of its own. For root.
    pub fn on_btrfs(identity: Identity) -> Space {
        let mut space = Space::of(identity);
        space.volume = Some(Volume::create(space.directory.join("volume")));
        fs::create_dir(space.roots_dir()).unwrap();
        space.give(&space.roots_dir());
        space
    }

    /// With a btrfs of its own that is empty, and is to hold the roots directory. For root.
    pub fn with_volume(identity: Identity) -> Space {
        let mut space = Space::of(identity);
        space.volume = Some(Volume::create(space.directory.join("volume")));
        space
    }

    /// The btrfs that layers lie on.
    pub fn volume(&self) -> Option<&Volume> {
        self.volume.as_ref()
    }

    /// The kind of store.
    pub fn kind(&self) -> &'static str {
        match self.volume {
            Some(_) => "btrfs",
            None if self.copies => "copy",
            None => "overlay",
        }
    }

    /// Whether there is anything in the roots directory.
    pub fn has_roots(&self) -> bool {
        fs::read_dir(self.roots_dir()).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Removes all that is in the roots directory, as the user who owns it cannot.
    pub fn forget_roots(&self) {
        let roots = self.roots_dir();
        if rustix::process::geteuid().is_root() {
            let trees = fs::read_dir(roots.join("trees")).unwrap().map(|entry| entry.unwrap().path());
            for tree in trees {
                let _ = Command::new("btrfs").args(["property", "set", "-ts"]).arg(tree).args(["ro", "false"]).output();
            }
            fs::remove_dir_all(&roots).unwrap();
            fs::create_dir(&roots).unwrap();
            self.give(&roots);
        } else {
            let arguments = ["--user", "--map-root-user", "--map-auto", "rm", "-rf"];
            assert!(Command::new("unshare").args(arguments).arg(&roots).status().unwrap().success());
        }
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// All of it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Gives everything that is there to a user.
    pub fn give_all(&self, uid: u32, gid: u32) {
        let status = Command::new("chown").arg("-hR").arg(format!("{uid}:{gid}")).arg(&self.directory).status();
        assert!(status.unwrap().success(), "chown {}", self.directory.display());
    }

    /// A path in the working directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.join("work").join(name)
    }

    /// What `--stacker-dir` is.
    pub fn stacker_dir(&self) -> PathBuf {
        self.directory.join("store")
    }

    /// What `--roots-dir` is.
    pub fn roots_dir(&self) -> PathBuf {
        match &self.volume {
            Some(volume) => volume.path.join("roots"),
            None => self.directory.join("roots"),
        }
    }

    /// Writes a file, with the directories that lead to it, and gives it to the user.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let above = path.ancestors().take_while(|path| *path != self.directory);
        above.for_each(|path| self.give(path));
    }

    /// Replaces a piece of a file that must be there.
    #[track_caller]
    pub fn edit(&self, name: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        assert!(text.contains(old), "{name} does not hold {old:?}: {text}");
        self.write(name, text.replace(old, new));
    }

    /// Writes base.tar, a small root filesystem, and a stackerfile whose layer `base` is made of it.
    pub fn stackerfile(&self, layers: &str) {
        if !self.path("base.tar").exists() {
            self.write("base.tar", super::base::tar());
        }
        self.write("stacker.yaml", format!("base:\n  from: {{type: tar, url: base.tar}}\n{layers}"));
    }

    /// Runs the program.
    pub fn stacker(&self, arguments: &[&str]) -> Run {
        self.stacker_under(&[], arguments)
    }

    /// Runs the program by a command that runs what follows it.
    pub fn stacker_under(&self, wrapper: &[&str], arguments: &[&str]) -> Run {
        let _ = fs::remove_file(self.metadata_file());
        let output = self.command_under(wrapper, arguments).output().unwrap();
        self.run_of(arguments, output)
    }

    /// `stacker build`, which must succeed.
    #[track_caller]
    pub fn build(&self, arguments: &[&str]) -> Run {
        self.stacker(&[&["build"], arguments].concat()).ends_with(0)
    }

    /// The program as a process to be started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.command_under(&[], arguments)
    }

    fn command_under(&self, wrapper: &[&str], arguments: &[&str]) -> Command {
        let program = self.program();
        // Before what is not for the program.
        let end = arguments.iter().position(|argument| *argument == "--").unwrap_or(arguments.len());
        let (own, others) = arguments.split_at(end);
        let mut command = self.other_program(&[wrapper, &[program.to_str().unwrap()], own].concat());
        command.arg("--stacker-dir").arg(self.stacker_dir()).arg("--roots-dir").arg(self.roots_dir());
        if self.copies {
            command.args(["--storage-type", "copy"]);
        }
        if arguments.first() == Some(&"build") && !arguments.contains(&"--metadata-file") {
            command.arg("--metadata-file").arg(self.metadata_file());
        }
        command.args(others);
        command
    }

    /// The program with its directories, for a shell: `$STACKER build`.
    pub fn command_line(&self) -> String {
        let (program, store, roots) = (self.program(), self.stacker_dir(), self.roots_dir());
        let kind = if self.copies { " --storage-type copy" } else { "" };
        format!("{} --stacker-dir {} --roots-dir {}{kind}", program.display(), store.display(), roots.display())
    }

    /// Another program with its arguments, as the same user in the same directory.
    pub fn other_program(&self, words: &[&str]) -> Command {
        let wrapper = self.identity.wrapper();
        let mut words = wrapper.iter().map(String::as_str).chain(words.iter().copied());
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", &self.directory);
        command.current_dir(self.path("")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What a started process came to.
    pub fn run_of(&self, arguments: &[&str], output: Output) -> Run {
        let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or_default());
        Run {
            code,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            what: format!("stacker {} (as {}, in {})", arguments.join(" "), self.identity, self.directory.display()),
            // The next run will write it anew.
            metadata: fs::read(self.metadata_file()).ok(),
        }
    }

    /// The layers of an image in the layout as they lie there, the lowest first.
    #[track_caller]
    pub fn layers(&self, tag: &str) -> Vec<PathBuf> {
        let layout = Layout::open(self.path("oci")).unwrap();
        let (os, arch) = ("linux".to_owned(), if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }.to_owned());
        let image = layout.find(Some(tag), &stacker::action::Platform { os, arch }).unwrap();
        image.layers.into_iter().map(|layer| layer.path).collect()
    }

    /// The content of a file of an image in the layout, from the topmost layer that has it.
    #[track_caller]
    pub fn file(&self, tag: &str, path: &str) -> Option<String> {
        self.layers(tag).iter().rev().find_map(|layer| {
            let (plain, _) = decoder(fs::File::open(layer).unwrap()).unwrap();
            let mut archive = tar::Archive::new(plain);
            let mut members = archive.entries().unwrap().map(Result::unwrap);
            let mut member = members.find(|member| &*member.path_bytes() == path.as_bytes())?;
            let mut text = Vec::new();
            std::io::Read::read_to_end(&mut member, &mut text).unwrap();
            Some(String::from_utf8_lossy(&text).into_owned())
        })
    }

    /// The kinds of sandbox that built what the cache knows.
    pub fn tiers(&self) -> Vec<String> {
        let directories = ["fresh", "records"].map(|name| self.stacker_dir().join(name));
        let files = directories.iter().flat_map(|path| fs::read_dir(path).unwrap());
        let tier = |path: &Path| serde_json::from_slice::<Record>(&fs::read(path).unwrap()).unwrap().result.tier;
        let mut tiers: Vec<String> = files.map(|entry| tier(&entry.unwrap().path())).collect();
        tiers.sort();
        tiers.dedup();
        tiers
    }

    fn metadata_file(&self) -> PathBuf {
        self.path("metadata.json")
    }

    fn program(&self) -> PathBuf {
        self.directory.join("bin/stacker")
    }

    /// Gives a file to the user.
    pub fn give(&self, path: &Path) {
        if let Some((uid, gid)) = self.identity.owner() {
            chown(path, Some(uid), Some(gid)).unwrap();
        }
        if path.is_dir() {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("left for a look: {}", self.directory.display());
            return;
        }
        self.volume = None;
        // Subordinate ids own most of it.
        if !rustix::process::geteuid().is_root() {
            let arguments = ["--user", "--map-root-user", "--map-auto", "rm", "-rf"];
            let _ = Command::new("unshare").args(arguments).arg(self.roots_dir()).status();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Run {
    #[track_caller]
    pub fn ends_with(self, code: i32) -> Run {
        assert_eq!(self.code, code, "the exit code of {self}");
        self
    }

    /// stderr holds this text.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Run {
        assert!(self.stderr.contains(text), "not said: {text:?} by {self}");
        self
    }

    #[track_caller]
    pub fn says_not(&self, text: &str) -> &Run {
        assert!(!self.stderr.contains(text), "said: {text:?} by {self}");
        self
    }

    /// What `--metadata-file` tells.
    #[track_caller]
    pub fn metadata(&self) -> Metadata {
        let text = self.metadata.as_ref().unwrap_or_else(|| panic!("no metadata from {self}"));
        serde_json::from_slice(text).unwrap_or_else(|error| panic!("bad metadata ({error}) from {self}"))
    }

    #[track_caller]
    pub fn layer(&self, name: &str) -> LayerReport {
        let layer = self.metadata().layers.into_iter().find(|layer| layer.name == name);
        layer.unwrap_or_else(|| panic!("no layer {name} in the metadata of {self}"))
    }

    /// Exactly these layers were built, all others were hits.
    #[track_caller]
    pub fn built(&self, names: &[&str]) -> &Run {
        let layers = self.metadata().layers;
        let built: Vec<&str> =
            layers.iter().filter(|layer| layer.status == Status::Built).map(|layer| layer.name.as_str()).collect();
        assert_eq!(built, names, "what was built by {self}");
        let others = layers.iter().filter(|layer| layer.status != Status::Built);
        others.for_each(|layer| assert_eq!(layer.status, Status::Hit, "{} in {self}", layer.name));
        self
    }

    /// (name, diff ids) of each layer.
    #[track_caller]
    pub fn digests(&self) -> Vec<(String, Vec<DiffId>)> {
        self.metadata().layers.into_iter().map(|layer| (layer.name, layer.diff_ids)).collect()
    }

    /// Digest of an image.
    #[track_caller]
    pub fn image(&self, tag: &str) -> String {
        let image = self.metadata().images.into_iter().find(|image| image.tag == tag);
        image.unwrap_or_else(|| panic!("no image {tag} in the metadata of {self}")).digest.to_string()
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Run { what, code, stdout, stderr, .. } = self;
        write!(f, "{what}\n--- exit code {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---")
    }
}
