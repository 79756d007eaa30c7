//! The steps that are a script: what it is run with, what it prints, what it came to.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;

use crate::action::{Kind, Network};
use crate::binfmt::{self, Foreign};
use crate::commit_point::CommitPoint;
use crate::decide::{Run, StepKind, Taken};
use crate::digest::{DiffId, Key};
use crate::error::{At, Error, Result};
use crate::graph::{Node, NodeSource};
use crate::holder::Tier;
use crate::inputs;
use crate::need::Need;
use crate::progress::Event;
use crate::worker::message::{Answer, Job, RunJob};

use super::binds;
use super::blame::{Blame, Resources};
use super::changed;
use super::site::{BlobPlace, Lost, Site};
use super::step::{StepEnd, warn};

/// How far ahead of the clock a layer time may be and still be waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How the names of kept failed drafts begin; no other name among the drafts does.
pub const FAILED: &str = "f-";

/// Lines of output that a failure shows.
const LAST_LINES: usize = 20;

/// Runs the script, and seals what it changed.
pub(super) fn script(site: &Site, node: &Node, run: &Run, blobs: &HashMap<DiffId, BlobPlace>) -> Result<StepEnd, Lost> {
    let job = match run_job(site, node, run, blobs)? {
        Ok(job) => job,
        Err(changed) => return Ok(changed),
    };
    wait_for(site, node, run.action.time);
    let looks = match binds::before(site, node, run)? {
        Ok(looks) => looks,
        Err(changed) => return Ok(StepEnd::SourceChanged(changed)),
    };
    site.remove(vec![format!("drafts/{}", run.key.short()), format!("drafts/{}", failed_draft(node))])?;
    match in_sandbox(site, node, run, job)? {
        StepEnd::Failed { message, full } => {
            Ok(StepEnd::Failed { message: message + &keep_draft(site, node, run)?, full })
        }
        StepEnd::Sealed(sealed) => Ok(match binds::after(site, node, &looks) {
            None => StepEnd::Sealed(sealed),
            Some(why) => StepEnd::Unkept(sealed, why),
        }),
        end => Ok(end),
    }
}

/// What a script is run with, its imports staged; or that one of them is not what the key assumed.
pub(super) fn run_job(
    site: &Site,
    node: &Node,
    run: &Run,
    blobs: &HashMap<DiffId, BlobPlace>,
) -> Result<Result<RunJob, StepEnd>, Lost> {
    let Kind::Run { script, environment, mounts, network, .. } = &run.action.kind else {
        return Err(Error::Machine("not a run".to_owned()).into());
    };
    check_sandbox(site, node, run)?;
    let mut staged = Vec::new();
    // In the order of the action's mounts.
    let mounted = node.imports.iter().enumerate().flat_map(|it| it.1.import.seen_in().iter().map(move |_| it));
    for ((index, import), mount) in mounted.zip(mounts) {
        let name = match &import.source {
            NodeSource::Host { at, .. } => {
                match site.have_host_import(at, mount.tree, mount.attributes, run.action.time)? {
                    Some(name) => name,
                    None => {
                        let changed = changed::import(site, at, index, mount.tree)?;
                        return Ok(Err(StepEnd::SourceChanged(changed)));
                    }
                }
            }
            NodeSource::Url(url) => return Err(inputs::unfetched(url).into()),
            NodeSource::Layer { .. } => site.have_layer_import(
                &run.sources[&Taken::Import(index)],
                mount.tree,
                mount.attributes,
                run.action.time,
                blobs,
            )?,
        };
        staged.push((mount.place.clone(), name));
    }
    let job = plain_job(site, node, run, (script, environment, *network))?;
    staged.extend(job.mounts);
    Ok(Ok(RunJob { mounts: staged, binds: binds::mounts(node), ..job }))
}

/// Generates labels.
pub(super) fn labels(site: &Site, node: &Node, run: &Run) -> Result<StepEnd, Lost> {
    let Kind::Labels { script, environment, network } = &run.action.kind else {
        return Err(Error::Machine("no labels".to_owned()).into());
    };
    check_sandbox(site, node, run)?;
    wait_for(site, node, run.action.time);
    site.remove(vec![format!("drafts/{}", run.key.short())])?;
    let job = plain_job(site, node, run, (script, environment, *network))?;
    Ok(in_sandbox(site, node, run, job)?)
}

/// A script without any file of the host but certificates.
fn plain_job(
    site: &Site,
    node: &Node,
    run: &Run,
    (script, environment, network): (&str, &BTreeMap<String, String>, Network),
) -> Result<RunJob> {
    let mut variables = site.unkeyed.clone();
    let mut mounts = Vec::new();
    if let Some(certificates) = site.have_certificates()? {
        variables.extend(certificates.variables);
        mounts.push(certificates.mount);
    }
    variables.extend(environment.clone());
    Ok(RunJob {
        layer: node.layer.name.clone(),
        parent: run.parent.clone(),
        script: script.to_owned(),
        environment: variables,
        mounts,
        binds: vec![],
        network,
        newest: run.newest,
        time: run.action.time,
        draft: run.key.short(),
    })
}

/// Whether a script can run at all.
fn check_sandbox(site: &Site, node: &Node, run: &Run) -> Result<()> {
    if site.ready()?.tier == Tier::None {
        let (name, what) = (&node.layer.name, directive(run));
        let why = format!("layer {name} has a `{what}`, and the sandbox is of the kind none");
        return Err(Error::Lacking(Need::UserNamespace, why));
    }
    let arch = &run.action.platform.arch;
    match binfmt::look(arch) {
        Foreign::Lacks(why) => Err(no_handler(node, run, arch, &why)),
        _ => Ok(()),
    }
}

/// Where the script of a step stands.
fn directive(run: &Run) -> &'static str {
    match run.kind {
        StepKind::Labels => "generate_labels",
        _ => "run",
    }
}

/// A script is for another processor, whose programs do not run here.
fn no_handler(node: &Node, run: &Run, arch: &str, why: &str) -> Error {
    Error::Lacking(Need::Binfmt, format!("layer {} has a `{}` for {arch}, and {why}", node.layer.name, directive(run)))
}

/// What a failed script leaves is kept under this name beneath `drafts`, until the layer is built the next time.
pub fn failed_draft(node: &Node) -> String {
    let layer = &node.layer;
    let place = format!("{} {}", layer.place.path.display(), layer.name);
    format!("{FAILED}{}", &Key::of(place.as_bytes()).short()[..10])
}

/// Returns what to tell about it.
fn keep_draft(site: &Site, node: &Node, run: &Run) -> Result<String> {
    if !site.keeps_failures {
        return Ok(String::new());
    }
    let draft = site.roots.0.join("drafts").join(run.key.short());
    match std::fs::rename(&draft, site.roots.0.join("drafts").join(failed_draft(node))) {
        // It failed before there was a draft.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(String::new()),
        other => other.at("rename", draft)?,
    }
    CommitPoint::FailedDraftKept.reached();
    let (name, file) = (&node.layer.name, crate::shell::file_option(&node.layer.place.path));
    Ok(format!("\n  look into it: stacker shell {name} --failed{file} (or build with --shell-fail)"))
}

/// A step starts when the clock has passed its layer time, else tools refuse sources "from the future".
fn wait_for(site: &Site, node: &Node, time: i64) {
    let target = SystemTime::UNIX_EPOCH + Duration::from_secs(time.max(0) as u64);
    let Ok(ahead) = target.duration_since(SystemTime::now()) else { return };
    if ahead <= LONGEST_WAIT {
        std::thread::sleep(ahead);
    } else {
        let name = &node.layer.name;
        let seconds = ahead.as_secs();
        site.tell(Event::Warning(format!("{name}: its base has files from {seconds} s in the future")));
    }
}

fn in_sandbox(site: &Site, node: &Node, run: &Run, mut job: RunJob) -> Result<StepEnd> {
    let path = site.stacker.log(&run.key);
    let mut log = File::create(&path).at("create", &path)?;
    let (output, input) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("make a pipe for", &path)?;
    let (uid, gid) = site.ready()?.root;
    if rustix::process::geteuid().is_root() {
        // Opening a pipe anew asks who owns it: `echo > /dev/stderr` must work.
        let owner = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::fchown(&input, Some(owner.0), Some(owner.1)).at("chown the pipe for", &path)?;
    }
    let mut resources = Resources::now(&site.roots.0);
    let (mut files, mut listing) = (vec![input], None);
    if run.kind == StepKind::Run {
        let tmp = site.tmp_file()?;
        files.push(tmp.as_file().try_clone().at("duplicate", tmp.path())?.into());
        listing = Some(tmp);
    }
    files.extend(binds::hand_over(site, &mut job, false)?);
    let job = Box::new(job);
    let job = if listing.is_some() { Job::Run(job) } else { Job::Labels(job) };
    let pending = site.holder.submit(job, files)?;
    let last = follow(site, node, File::from(output), &mut log, &mut resources).at("write", &path)?;
    ended((site, node, run), pending.wait()?, listing, &|| tail(&last, &path), &resources)
}

/// What a script came to; `tail` says what it printed.
fn ended(
    (site, node, run): (&Site, &Node, &Run),
    answer: Answer,
    listing: Option<tempfile::NamedTempFile>,
    tail: &dyn Fn() -> String,
    resources: &Resources,
) -> Result<StepEnd> {
    match (answer, listing) {
        (Answer::Labels(labels), None) => Ok(StepEnd::Labels(labels)),
        (Answer::Sealed(sealed), Some(listing)) => {
            site.keep_listing(listing, &sealed)?;
            warn(site, node, &sealed);
            Ok(StepEnd::Sealed(sealed))
        }
        (Answer::RunFailed { code }, _) => {
            let Blame { text, full } = resources.why(code);
            Ok(StepEnd::Failed { message: text + &tail(), full })
        }
        (Answer::Failed(failure), _)
            if failure.errno == Some(Errno::ENOEXEC as i32)
                && binfmt::look(&run.action.platform.arch) == Foreign::Unknown =>
        {
            let why = format!("the kernel has no handler for its programs ({})", failure.message);
            Err(no_handler(node, run, &run.action.platform.arch, &why))
        }
        (Answer::Failed(failure), _) if failure.users => {
            let message = format!("{}: {}{}", failure.step, failure.message, tail());
            Ok(StepEnd::Failed { message, full: false })
        }
        (Answer::Failed(failure), _) => Err(site.fault(&failure)),
        (other, _) => Err(Error::Machine(format!("a worker answered out of turn: {other:?}"))),
    }
}

fn tail(last: &VecDeque<String>, log: &Path) -> String {
    let mut text = String::new();
    if !last.is_empty() {
        text += &format!("; the last {} lines:", last.len());
        for line in last {
            text += "\n  | ";
            text += line;
        }
    }
    text + &format!("\n  the whole output: {}", log.display())
}

/// Copies a run's output to its log and to the renderer, line by line, and returns the last lines.
fn follow(
    site: &Site,
    node: &Node,
    mut output: File,
    log: &mut File,
    resources: &mut Resources,
) -> std::io::Result<VecDeque<String>> {
    let mut last = VecDeque::new();
    let mut line = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let mut show = |line: &[u8]| {
        let text = String::from_utf8_lossy(line).trim_end_matches('\r').to_owned();
        resources.hear(&text);
        if last.len() == LAST_LINES {
            last.pop_front();
        }
        last.push_back(text.clone());
        site.tell(Event::Output { layer: node.layer.name.clone(), line: text });
    };
    loop {
        let count = match output.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        log.write_all(&buffer[..count])?;
        for &byte in &buffer[..count] {
            if byte == b'\n' {
                show(&line);
                line.clear();
            } else {
                line.push(byte);
            }
            // A line without end must not fill the memory.
            if line.len() >= 64 * 1024 {
                show(&line);
                line.clear();
            }
        }
    }
    if !line.is_empty() {
        show(&line);
    }
    Ok(last)
}
