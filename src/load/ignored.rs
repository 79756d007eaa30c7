//! What ignore files say of the paths below a directory, as git reads them: the last pattern of the nearest file that
//! says something about a path counts. What any `.stackerignore` says comes before what any `.gitignore` says.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::names::{Kind, Names};
use crate::regular;

/// The rules of a directory, and of those above it.
#[derive(Debug)]
pub(super) struct Rules {
    /// `.stackerignore`.
    stacker: Gitignore,
    /// `.gitignore`.
    git: Gitignore,
    above: Option<Arc<Rules>>,
}

const STACKER: &str = ".stackerignore";
const GIT: &str = ".gitignore";

/// More is no list of patterns.
const LONGEST: u64 = 16 << 20;

impl Rules {
    /// Those of the directories above where it has none of its own.
    pub fn of(dir: &Path, names: &Names, above: Option<Arc<Rules>>) -> Option<Arc<Rules>> {
        let mut own = (None, None);
        for name in names.iter().filter(|name| name.kind != Kind::Directory) {
            match name.name.to_bytes() {
                name if name == STACKER.as_bytes() => own.0 = patterns(dir, STACKER),
                name if name == GIT.as_bytes() => own.1 = patterns(dir, GIT),
                _ => {}
            }
        }
        match own {
            (None, None) => above,
            (stacker, git) => {
                let or_none = |rules: Option<Gitignore>| rules.unwrap_or_else(Gitignore::empty);
                Some(Arc::new(Rules { stacker: or_none(stacker), git: or_none(git), above }))
            }
        }
    }

    /// Whether a path below the directory is left out.
    pub fn ignore(&self, path: &Path, is_dir: bool) -> bool {
        let said = |of: fn(&Rules) -> &Gitignore| {
            let mut all = std::iter::successors(Some(self), |rules| rules.above.as_deref());
            all.find_map(|rules| match of(rules).matched(path, is_dir) {
                Match::None => None,
                Match::Ignore(_) => Some(true),
                Match::Whitelist(_) => Some(false),
            })
        };
        said(|rules| &rules.stacker).or_else(|| said(|rules| &rules.git)).unwrap_or(false)
    }
}

/// The patterns of an ignore file, but for lines that are none, as git takes it. `None`: it can not be read.
fn patterns(dir: &Path, name: &str) -> Option<Gitignore> {
    let mut text = Vec::new();
    let path = dir.join(name);
    regular::open(&path).ok()??.take(LONGEST).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mut builder = GitignoreBuilder::new(dir);
    for line in text.trim_start_matches('\u{feff}').lines() {
        // A line that is no pattern matches nothing.
        let _ = builder.add_line(None, line);
    }
    builder.build().ok()
}
