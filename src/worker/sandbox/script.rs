//! The script's own process: a child of PID 1 in nested user and mount namespaces, so that it has every capability over
//! its files (and a network of its own, if it has one) and none over the mounts that mask the kernel's files.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::path::Path;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Pid, Uid};

use super::step::{During, machine_fault, users_fault};
use super::{SCRIPT, Streams, loopback, pretend};
use crate::action::{Ids, Network};
use crate::sys::{self, Fork};
use crate::worker::message::Failure;

/// (resource, soft, hard); the hard one is clamped to what is allowed here.
const LIMITS: [(Resource, u64, u64); 3] = [
    (Resource::RLIMIT_NOFILE, 1024, 524_288),
    (Resource::RLIMIT_CORE, 0, 0),
    (Resource::RLIMIT_STACK, 8 << 20, u64::MAX),
];
/// What is executed, made ready before the fork.
pub struct Program {
    /// Where it may lie, in the order of trying.
    places: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// Of the script; none where something else is executed.
    interpreter: Option<String>,
}

/// The places where a program of this name may lie.
fn places(name: &str, environment: &BTreeMap<String, String>) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    let path = environment.get("PATH").map_or(crate::inputs::DEFAULT_PATH, String::as_str);
    path.split(':').filter(|directory| !directory.is_empty()).map(|directory| format!("{directory}/{name}")).collect()
}

impl Program {
    /// Checks what execve(2) could not take.
    pub fn new(sandbox: &super::Sandbox) -> Result<Program, Failure> {
        let variable = |(name, value): (&String, &String)| {
            let text = format!("{name}={value}");
            CString::new(text).map_err(|_| users_fault("run", format!("the variable {name} holds a NUL byte")))
        };
        let mut environment = sandbox.environment.iter().map(variable).collect::<Result<Vec<_>, _>>()?;
        if sandbox.setting.ids == Ids::Single && !sandbox.environment.contains_key(pretend::APT_VARIABLE) {
            let (name, value) = (pretend::APT_VARIABLE.to_owned(), format!("/stacker/{}", pretend::APT_FILE));
            environment.push(variable((&name, &value))?);
        }
        let texts = |texts: &[String]| -> Result<Vec<CString>, Failure> {
            let texts = texts.iter().map(|text| CString::new(text.as_str()));
            texts.collect::<Result<_, _>>().map_err(|_| users_fault("run", "an argument holds a NUL byte".to_owned()))
        };
        let name = sandbox.command.first().map_or("", String::as_str);
        let first = sandbox.script.lines().next().and_then(|line| line.strip_prefix("#!")).unwrap_or_default();
        let interpreter = first.split_ascii_whitespace().next().unwrap_or_default().to_owned();
        Ok(Program {
            places: texts(&places(name, sandbox.environment))?,
            arguments: texts(sandbox.command)?,
            environment,
            interpreter: (name == SCRIPT).then_some(interpreter),
        })
    }

    /// Starts it; returns when it runs, or says why it does not.
    pub fn start(&self, streams: Streams, network: Network, ids: Ids) -> Result<Pid, Failure> {
        let (failure, failure_end) = io::pipe().during("create a pipe")?;
        let (go, go_end) = io::pipe().during("create a pipe")?;
        match sys::fork().during("fork")? {
            Fork::Child => {
                drop((failure, go_end));
                super::leave(|| self.become_it(&streams, network, ids, go, failure_end))
            }
            Fork::Parent(pid) => {
                drop((failure_end, go, streams));
                let mut failure = BufReader::new(failure);
                let mut name = String::new();
                failure.read_line(&mut name).during("wait for the script's namespaces")?;
                let mut text = name.clone().into_bytes();
                if let Some(name) = name.strip_suffix('\n') {
                    map_ids(name)?;
                    drop(go_end);
                    text.clear();
                }
                failure.read_to_end(&mut text).during("wait for the script")?;
                match text.as_slice() {
                    b"" => Ok(pid),
                    text => Err(serde_json::from_slice(text)
                        .unwrap_or_else(|_| machine_fault("start the script", "its process ended early"))),
                }
            }
        }
    }

    fn become_it(&self, streams: &Streams, network: Network, ids: Ids, go: PipeReader, mut failure: PipeWriter) -> i32 {
        let Err(error) = self.execute(streams, network, ids, go, &mut failure);
        let _ = serde_json::to_writer(&failure, &error);
        127
    }

    fn execute(
        &self,
        streams: &Streams,
        network: Network,
        ids: Ids,
        go: PipeReader,
        failure: &mut PipeWriter,
    ) -> Result<std::convert::Infallible, Failure> {
        enter_namespaces(network, ids, go, failure)?;
        nix::unistd::setsid().during("start a session")?;
        umask(Mode::from_bits_truncate(0o022));
        for (resource, soft, hard) in LIMITS {
            limit(resource, soft, hard).during("set resource limits")?;
        }
        leave_keyring().during("start a session keyring")?;
        streams.connect()?;
        sys::close_at_exec();
        if ids == Ids::Single {
            sys::filter_system_calls(&pretend::filter()).during("filter system calls")?;
        }
        sys::default_signals();
        SigSet::empty().thread_set_mask().during("unblock signals")?;
        let mut error = Errno::ENOENT;
        for place in &self.places {
            let Err(failed) = nix::unistd::execve(place, &self.arguments, &self.environment);
            // As shells do: what cannot be executed is named, unless it is found further on.
            if failed != Errno::ENOENT {
                error = failed;
            }
        }
        Err(self.not_executed(error))
    }

    /// execve(2) says the same ENOENT for a missing interpreter and for one whose loader is missing.
    fn not_executed(&self, error: Errno) -> Failure {
        let Some(interpreter) = &self.interpreter else {
            let name = self.arguments.first().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            let why = match error {
                Errno::ENOENT => "command not found".to_owned(),
                _ => io::Error::from(error).to_string(),
            };
            return Failure { step: name, errno: Some(error as i32), message: why, users: true };
        };
        let why = match error {
            Errno::ENOENT if interpreter.is_empty() => "its first line names no interpreter".to_owned(),
            Errno::ENOENT if !Path::new(interpreter).exists() => format!("the base has no {interpreter}"),
            Errno::ENOENT => format!("the base lacks the loader or interpreter that {interpreter} needs"),
            Errno::EACCES => format!("{interpreter} in the base is not executable"),
            Errno::ENOEXEC => format!("{interpreter} in the base is no program for this machine"),
            Errno::E2BIG => "its environment is too large".to_owned(),
            Errno::ELOOP | Errno::ENOTDIR => format!("{interpreter}: {}", io::Error::from(error)),
            _ => return Failure { users: false, ..self.failure(error, io::Error::from(error).to_string()) },
        };
        self.failure(error, why)
    }

    fn failure(&self, error: Errno, why: String) -> Failure {
        Failure { step: "run the script".into(), errno: Some(error as i32), message: why, users: true }
    }
}

/// Becomes user 0 of a nested user namespace. It asks on `failure`, by its name in
/// /proc, for the id map, and waits on `go` until it has one.
fn enter_namespaces(network: Network, ids: Ids, mut go: PipeReader, failure: &mut PipeWriter) -> Result<(), Failure> {
    let mut namespaces = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
    if network == Network::None {
        namespaces |= CloneFlags::CLONE_NEWNET;
    }
    unshare(namespaces).during("unshare the script's namespaces")?;
    // Its number there: /proc may be that of the processes outside.
    let name = fs::read_link("/proc/self").during("read /proc/self")?;
    failure.write_all(format!("{}\n", name.display()).as_bytes()).during("ask for the id map")?;
    go.read_to_end(&mut Vec::new()).during("wait for the id map")?;
    if ids == Ids::Full {
        // Who has one id may not, and has them from outside.
        nix::unistd::setgroups(&[]).during("leave groups")?;
    }
    nix::unistd::setresgid(Gid::from_raw(0), Gid::from_raw(0), Gid::from_raw(0)).during("become group 0")?;
    nix::unistd::setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).during("become user 0")?;
    if network == Network::None {
        loopback::bring_up().during("bring up the loopback interface")?;
    }
    Ok(())
}

/// Without keys in the kernel, or where a filter forbids them, there is nothing to inherit.
fn leave_keyring() -> io::Result<()> {
    match sys::fresh_session_keyring() {
        Err(error) if matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOSYS | Errno::EPERM)) => Ok(()),
        other => other,
    }
}

/// The map in which every id of `own` stands for itself. Line by line, since the kernel takes no line that reaches over
/// several of the namespace above.
fn identity(own: &str) -> String {
    let lines = own.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (first, _, count) = (words.next()?, words.next()?, words.next()?);
        Some(format!("{first} {first} {count}\n"))
    });
    lines.collect()
}

/// PID 1 has the capabilities for it; the process itself could map only one id.
fn map_ids(pid: &str) -> Result<(), Failure> {
    for name in ["uid_map", "gid_map"] {
        let own = format!("/proc/self/{name}");
        let own = fs::read_to_string(&own).during(format!("read {own}"))?;
        let path = format!("/proc/{pid}/{name}");
        fs::write(&path, identity(&own)).during(format!("write {path}"))?;
    }
    Ok(())
}

fn limit(resource: Resource, soft: u64, hard: u64) -> nix::Result<()> {
    let allowed = getrlimit(resource)?.1.min(hard);
    setrlimit(resource, soft.min(allowed), allowed)
}
