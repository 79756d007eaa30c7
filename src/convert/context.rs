//! The build context: what `COPY` finds there, and `.dockerignore`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Where the files of `COPY` lie.
#[derive(Debug)]
pub(super) struct Context {
    /// Absolute.
    pub root: PathBuf,
    /// How paths in the stackerfile begin: empty, or `../app/`.
    pub prefix: String,
    /// Of `.dockerignore`, without comments.
    patterns: Vec<String>,
    /// Files that are written, relative to the root: Docker would find none of them.
    outputs: Vec<String>,
    /// Lines of `.stackerignore` by directory, relative to the root.
    pub ignores: BTreeMap<String, Vec<String>>,
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// With permission bits that an import would not give it.
    File {
        odd_mode: Option<u32>,
    },
    /// `odd`: something in it has such bits.
    Directory {
        odd: bool,
    },
}

impl Context {
    /// Reads `.dockerignore`: that of the Dockerfile, or of the context.
    pub fn new(root: PathBuf, prefix: String, dockerfile: &Path, outputs: Vec<String>) -> Context {
        let own = PathBuf::from(format!("{}.dockerignore", dockerfile.display()));
        let text = fs::read_to_string(own).or_else(|_| fs::read_to_string(root.join(".dockerignore")));
        let text = text.unwrap_or_default();
        let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
        let patterns = lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(cleaned).collect();
        Context { root, prefix, patterns, outputs, ignores: BTreeMap::new() }
    }

    /// What stands at a cleaned path relative to the root. Links are followed, as `COPY` does.
    pub fn find(&self, path: &str) -> Found {
        let full = self.root.join(path);
        let Ok(metadata) = fs::metadata(&full) else { return Found::Nothing };
        if metadata.is_dir() {
            return Found::Directory { odd: self.has_odd(path) };
        }
        let mode = metadata.permissions().mode() & 0o7777;
        Found::File { odd_mode: (mode != usual(mode)).then_some(mode) }
    }

    fn has_odd(&self, directory: &str) -> bool {
        let ignored = self.matcher(directory);
        let mut left = vec![(self.root.join(directory), String::new())];
        while let Some((full, relative)) = left.pop() {
            for entry in fs::read_dir(&full).into_iter().flatten().flatten() {
                let (Ok(metadata), Ok(name)) = (entry.metadata(), entry.file_name().into_string()) else { continue };
                let path = format!("{relative}{name}");
                if metadata.is_symlink() || ignored.matched(&path, metadata.is_dir()).is_ignore() {
                    continue;
                }
                let mode = metadata.permissions().mode() & 0o7777;
                let normal = if metadata.is_dir() { 0o755 } else { usual(mode) };
                if mode != normal {
                    return true;
                }
                if metadata.is_dir() {
                    left.push((entry.path(), path + "/"));
                }
            }
        }
        false
    }

    fn matcher(&self, directory: &str) -> Gitignore {
        let mut builder = GitignoreBuilder::new("");
        for line in self.lines(directory) {
            // What is no pattern there is none in the file that is written, whose reading tells it.
            let _ = builder.add_line(None, &line);
        }
        builder.build().unwrap_or_else(|_| Gitignore::empty())
    }

    /// Notes what of a directory must not be imported.
    pub fn ignore(&mut self, directory: &str) {
        let lines = self.lines(directory);
        if !lines.is_empty() {
            self.ignores.insert(directory.to_owned(), lines);
        }
    }

    /// Lines of a `.stackerignore` in this directory that leave out what Docker leaves out.
    fn lines(&self, directory: &str) -> Vec<String> {
        let depth = directory.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>();
        let mut lines = Vec::new();
        let mut excluded: Vec<String> = Vec::new();
        for pattern in &self.patterns {
            let (negated, pattern) = match pattern.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, pattern.as_str()),
            };
            let Some(inner) = below(pattern, &depth) else { continue };
            if negated {
                lines.extend(reopened(&inner, &excluded));
                lines.push(format!("!/{inner}"));
            } else {
                lines.push(format!("/{inner}"));
                excluded.push(inner);
            }
        }
        let outputs = self.outputs.iter().filter_map(|output| below(output, &depth));
        lines.extend(outputs.map(|output| format!("/{output}")));
        lines
    }

    /// Names that a pattern of `COPY` matches, sorted.
    pub fn matches(&self, pattern: &str) -> Vec<String> {
        let mut found = vec![String::new()];
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            let mut next = Vec::new();
            for directory in &found {
                let names = fs::read_dir(self.root.join(directory)).into_iter().flatten().flatten();
                let mut names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
                names.sort();
                let path =
                    |name: &String| if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
                next.extend(names.iter().filter(|name| glob(part, name)).map(path));
            }
            found = next;
        }
        let ignored = self.matcher("");
        let is_output = |path: &String| self.outputs.contains(path);
        found.retain(|path| {
            let is_dir = self.root.join(path).is_dir();
            !is_output(path) && !ignored.matched_path_or_any_parents(path, is_dir).is_ignore()
        });
        found
    }

    /// Whether Docker would unpack a file that `ADD` names: it looks into it.
    pub fn is_archive(&self, path: &str) -> bool {
        let mut head = [0; 262];
        let Ok(mut file) = fs::File::open(self.root.join(path)) else {
            let ends = [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst"];
            return ends.iter().any(|end| path.ends_with(end));
        };
        let mut read = 0;
        while let Ok(count @ 1..) = file.read(&mut head[read..]) {
            read += count;
        }
        let compressed: [&[u8]; 4] =
            [&[0x1f, 0x8b], b"BZh", &[0xfd, b'7', b'z', b'X', b'Z'], &[0x28, 0xb5, 0x2f, 0xfd]];
        // A compressed file that holds no archive is copied; its name says which it is.
        let named = path.contains(".t");
        &head[257..262] == b"ustar" || (named && compressed.iter().any(|magic| head[..read].starts_with(magic)))
    }
}

/// What an import makes of a file's mode.
fn usual(mode: u32) -> u32 {
    if mode & 0o111 == 0 { 0o644 } else { 0o755 }
}

/// Slashes at both ends and `.` mean nothing to Docker.
fn cleaned(pattern: &str) -> String {
    let (sign, path) = match pattern.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", pattern),
    };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    format!("{sign}{}", parts.join("/"))
}

/// What a pattern says of things below a directory.
fn below(pattern: &str, directory: &[&str]) -> Option<String> {
    let mut parts: Vec<&str> = pattern.split('/').collect();
    for name in directory {
        match parts.first()? {
            &"**" => break,
            part if glob(part, name) => drop(parts.remove(0)),
            _ => return None,
        }
    }
    (!parts.is_empty() && parts != [""]).then(|| parts.join("/"))
}

/// An ignore file cannot take back a path below a directory that it leaves out: that is opened step by step.
fn reopened(path: &str, excluded: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut above = String::new();
    let parts: Vec<&str> = path.split('/').collect();
    let mut builder = GitignoreBuilder::new("");
    for pattern in excluded {
        let _ = builder.add_line(None, &format!("/{pattern}"));
    }
    let matcher = builder.build().unwrap_or_else(|_| Gitignore::empty());
    for part in &parts[..parts.len() - 1] {
        above = if above.is_empty() { (*part).to_owned() } else { format!("{above}/{part}") };
        if matcher.matched_path_or_any_parents(&above, true).is_ignore() {
            lines.extend([format!("!/{above}"), format!("/{above}/*")]);
        }
    }
    lines
}

/// Go's `filepath.Match` of one name.
fn glob(pattern: &str, name: &str) -> bool {
    let glob = ignore::overrides::OverrideBuilder::new("/").add(&format!("/{pattern}")).and_then(|b| b.build());
    match pattern.contains(['*', '?', '[', '\\']) {
        true => glob.is_ok_and(|glob| glob.matched(name, false).is_whitelist()),
        false => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(patterns: &[&str]) -> Context {
        Context {
            root: "/".into(),
            prefix: String::new(),
            patterns: patterns.iter().map(|pattern| cleaned(pattern)).collect(),
            outputs: vec!["stacker.yaml".into()],
            ignores: BTreeMap::new(),
        }
    }

    #[test]
    fn patterns_of_docker_become_those_of_an_ignore_file() {
        let cases: [(&[&str], &[&str], &[&str]); 4] = [
            (&["*.log", "build/"], &["a.log", "build", "stacker.yaml"], &["src/a.log", "src/build", "b"]),
            (&["*", "!src", "!package.json"], &["x", "y"], &["src", "src/x", "package.json"]),
            (&["*", "!src/app.js"], &["x", "src/b.js"], &["src", "src/app.js"]),
            (&["**/node_modules"], &["node_modules", "a/b/node_modules"], &["a/b"]),
        ];
        for (patterns, ignored, kept) in cases {
            let matcher = context(patterns).matcher("");
            let is_ignored = |path: &str| matcher.matched_path_or_any_parents(path, !path.contains('.')).is_ignore();
            ignored.iter().for_each(|path| assert!(is_ignored(path), "{path} of {patterns:?}"));
            kept.iter().for_each(|path| assert!(!is_ignored(path), "{path} of {patterns:?}"));
        }
    }

    #[test]
    fn a_directory_below_has_what_concerns_it() {
        let lines = context(&["src/*.tmp", "*.md", "**/cache", "*/odd"]).lines("src");
        assert_eq!(lines, ["/*.tmp", "/**/cache", "/odd"]);
    }

    #[test]
    fn wildcards_are_those_of_go() {
        for (pattern, name) in [("*.txt", "a.txt"), ("a?c", "abc"), ("[ab]c", "bc"), ("x", "x"), ("*", ".hidden")] {
            assert!(glob(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("*.txt", "a.md"), ("a?c", "ac"), ("x", "xy")] {
            assert!(!glob(pattern, name), "{pattern} {name}");
        }
    }
}
