//! Programs of other processors: whether the kernel has a handler that runs them inside a sandbox.
//!
//! A handler of binfmt_misc (mostly qemu's) is found in a sandbox only if it was registered with the flag F: the kernel
//! then opened it at that moment, and needs no such file in the image.

use std::fs;
use std::path::Path;

/// Where the kernel shows what is registered.
const DIRECTORY: &str = "/proc/sys/fs/binfmt_misc";

/// What is known about programs of a processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// They run.
    Runs,
    /// They do not, for this reason.
    Lacks(String),
    /// The kernel does not show here what is registered, as in many containers.
    Unknown,
}

/// The host's architecture in GOARCH's words.
pub fn host_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "loongarch64" => "loong64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        other => other,
    }
}

/// Whether programs of an architecture (as in GOARCH) can run.
pub fn look(arch: &str) -> Foreign {
    look_in(Path::new(DIRECTORY), arch)
}

fn look_in(directory: &Path, arch: &str) -> Foreign {
    match (host_arch(), arch) {
        (host, arch) if host == arch => return Foreign::Runs,
        // Most kernels run these themselves.
        ("amd64", "386") | ("arm64", "arm") => return Foreign::Unknown,
        _ => {}
    }
    let Some(program) = header(arch) else {
        return Foreign::Lacks(format!("nothing is known about programs of `{arch}`"));
    };
    let Ok(status) = fs::read_to_string(directory.join("status")) else { return Foreign::Unknown };
    if status.trim() != "enabled" {
        return Foreign::Lacks("binfmt_misc is disabled".to_owned());
    }
    let mut why = "no handler for its programs is registered".to_owned();
    for handler in handlers(directory).iter().filter(|handler| handler.takes(&program)) {
        match handler {
            Handler { enabled: false, name, .. } => why = format!("its handler {name} is disabled"),
            Handler { fixed: false, name, .. } => {
                why = format!("its handler {name} is registered without the flag F, so that no sandbox finds it");
            }
            _ => return Foreign::Runs,
        }
    }
    Foreign::Lacks(why)
}

/// The architectures whose programs some handler runs in sandboxes. `None`: the kernel does not show it.
pub fn all() -> Option<Vec<&'static str>> {
    let directory = Path::new(DIRECTORY);
    directory.join("status").exists().then(|| {
        let foreign = MACHINES.iter().map(|machine| machine.0).filter(|arch| *arch != host_arch());
        foreign.filter(|arch| look_in(directory, arch) == Foreign::Runs).collect()
    })
}

/// GOARCH; bits; little endian; the number in ELF headers.
const MACHINES: [(&str, u8, bool, u16); 13] = [
    ("386", 32, true, 3),
    ("amd64", 64, true, 62),
    ("arm", 32, true, 40),
    ("arm64", 64, true, 183),
    ("loong64", 64, true, 258),
    ("mips", 32, false, 8),
    ("mips64", 64, false, 8),
    ("mips64le", 64, true, 8),
    ("mipsle", 32, true, 8),
    ("ppc64", 64, false, 21),
    ("ppc64le", 64, true, 21),
    ("riscv64", 64, true, 243),
    ("s390x", 64, false, 22),
];

/// How an executable for an architecture begins, as far as handlers look.
fn header(arch: &str) -> Option<Vec<u8>> {
    let (_, bits, little, machine) = MACHINES.into_iter().find(|machine| machine.0 == arch)?;
    let half = |value: u16| if little { value.to_le_bytes() } else { value.to_be_bytes() };
    let word = |value: u32| if little { value.to_le_bytes() } else { value.to_be_bytes() };
    let mut header = b"\x7fELF".to_vec();
    header.extend([if bits == 64 { 2 } else { 1 }, if little { 1 } else { 2 }, 1]);
    header.resize(16, 0);
    header.extend(half(2));
    header.extend(half(machine));
    header.extend(word(1));
    header.resize(128, 0);
    Some(header)
}

/// One registered handler.
struct Handler {
    name: String,
    enabled: bool,
    /// Flag F.
    fixed: bool,
    offset: usize,
    magic: Vec<u8>,
    mask: Vec<u8>,
}

fn handlers(directory: &Path) -> Vec<Handler> {
    let mut handlers: Vec<Handler> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        // `register` cannot be read, and `status` has no magic.
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path()).ok()?;
            Handler::parse(entry.file_name().to_string_lossy().into_owned(), &text)
        })
        .collect();
    handlers.sort_by(|one, other| one.name.cmp(&other.name));
    handlers
}

impl Handler {
    /// As the kernel prints them. `None`: it goes by the names of files, or is no handler.
    fn parse(name: String, text: &str) -> Option<Handler> {
        let mut lines = text.lines();
        let enabled = lines.next()? == "enabled";
        let mut handler = Handler { name, enabled, fixed: false, offset: 0, magic: vec![], mask: vec![] };
        for (word, value) in lines.filter_map(|line| line.split_once(' ')) {
            match word {
                "flags:" => handler.fixed = value.contains('F'),
                "offset" => handler.offset = value.parse().ok()?,
                "magic" => handler.magic = bytes(value)?,
                "mask" => handler.mask = bytes(value)?,
                _ => {}
            }
        }
        (!handler.magic.is_empty()).then_some(handler)
    }

    fn takes(&self, program: &[u8]) -> bool {
        let mask = self.mask.iter().copied().chain(std::iter::repeat(0xff));
        let end = self.offset.saturating_add(self.magic.len());
        let Some(part) = program.get(self.offset..end) else { return false };
        part.iter().zip(&self.magic).zip(mask).all(|((found, wanted), mask)| (found ^ wanted) & mask == 0)
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not the host's.
    const ARM: &str = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };

    fn directory(state: &str, flags: &str, machine: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let handler = format!(
            "{state}\ninterpreter /usr/bin/qemu\nflags: {flags}\noffset 0\n\
             magic 7f454c460201010000000000000000000200{machine}\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
        );
        for (name, text) in [("status", "enabled\n"), ("qemu-x", &handler), ("by-name", "enabled\nextension .x\n")] {
            fs::write(directory.path().join(name), text).expect("written");
        }
        directory
    }

    #[test]
    fn a_handler_must_be_enabled_fixed_and_fit() {
        let machine = if ARM == "arm64" { "b700" } else { "3e00" };
        let look = |state, flags, machine| look_in(directory(state, flags, machine).path(), ARM);
        assert_eq!(look("enabled", "POCF", machine), Foreign::Runs);
        for (state, flags, machine, told) in [
            ("disabled", "F", machine, "its handler qemu-x is disabled"),
            ("enabled", "POC", machine, "its handler qemu-x is registered without the flag F"),
            ("enabled", "", machine, "its handler qemu-x is registered without the flag F"),
            ("enabled", "F", "f300", "no handler for its programs is registered"),
        ] {
            let Foreign::Lacks(why) = look(state, flags, machine) else { panic!("{state} {flags} {machine}") };
            assert!(why.starts_with(told), "{why}");
        }
        assert_eq!(look_in(Path::new("/nowhere"), ARM), Foreign::Unknown);
        assert_eq!(look_in(Path::new("/nowhere"), host_arch()), Foreign::Runs);
        assert!(matches!(look_in(Path::new("/nowhere"), "z80"), Foreign::Lacks(_)));
    }
}
