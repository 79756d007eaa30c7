//! `COPY --from`: paths of other stages and images.

use std::ops::Range;

use super::converter::Converter;
use super::copy::{Target, cleaned, has_wildcards, import, is_directory_like};
use super::layer::{Base, Layer, OutImport};
use super::names::layer_name;
use super::script::quote;
use super::stage::Stage;

impl Converter<'_> {
    /// The layer that is meant, and whether scripts can run on it.
    fn origin_of(&mut self, from: &str, span: &Range<usize>) -> (String, bool) {
        let current = self.stages.len() - 1;
        let found = self.stages[..current].iter().position(|stage| stage.is_named(from));
        let found = found.or_else(|| from.parse().ok().filter(|index| *index < current));
        match found {
            Some(index) => {
                self.stages[index].used = true;
                (self.stages[index].tag.clone(), has_shell(&self.stages[index]))
            }
            None => {
                let (url, origin) = self.base(from, span);
                (self.extra(&format!("image-{}", layer_name(&origin)), Base::Docker(url)), false)
            }
        }
    }

    /// Out of a stage or an image. What is a file and what a directory only a script on top of it can find out.
    pub(super) fn copy_from(&mut self, from: &str, sources: &[(String, Range<usize>)], target: &Target) {
        let span = sources.first().map_or(0..0, |(_, span)| span.clone());
        let (tag, has_shell) = self.origin_of(from, &span);
        let unclear = |(source, _): &(String, _)| has_wildcards(source) || (target.into && !is_directory_like(source));
        if has_shell && sources.iter().any(unclear) {
            let rename = (!target.into).then_some(&*target.dest);
            let above = rename.map(|dest| dest.rsplit_once('/').map_or("", |(above, _)| above));
            let dest = above.map_or(target.dest.clone(), |above| format!("/{}", cleaned(above)));
            let path = format!("stacker://{}/.copied/", self.gathered(&tag, sources, rename));
            return self.place(roots(import(&path, Some(dest), target.mode.clone())), target);
        }
        for (source, span) in sources {
            let path = cleaned(source);
            if has_wildcards(&path) {
                let title = format!("`{source}` is not carried over: imports know no wildcards");
                self.remark(span, title, None);
            } else if is_directory_like(source) || path.is_empty() {
                let slash = if path.is_empty() { "" } else { "/" };
                let path = format!("stacker://{tag}/{path}{slash}");
                self.place(roots(import(&path, Some(target.dest.clone()), target.mode.clone())), target);
            } else {
                if target.into {
                    let help = "of a directory Docker takes the contents: end its path with a `/`";
                    self.remark(span, format!("`{source}` is taken for a file"), Some(help));
                }
                let dest =
                    if target.into { format!("{}/", target.dest.trim_end_matches('/')) } else { target.dest.clone() };
                let path = format!("stacker://{tag}/{path}");
                self.place(roots(import(&path, Some(dest), target.mode.clone())), target);
            }
        }
    }

    /// A layer on top of a stage that copies files, directories and what wildcards match to one place. With `rename`
    /// a single file gets the last name of that path.
    fn gathered(&mut self, tag: &str, sources: &[(String, Range<usize>)], rename: Option<&str>) -> String {
        let mut number = 1;
        while self.layers.iter().any(|layer| layer.name == format!("{tag}-copy-{number}")) {
            number += 1;
        }
        let name = format!("{tag}-copy-{number}");
        let word = |part: &str| if has_wildcards(part) { part.to_owned() } else { quote(part) };
        let path = |(source, _): &(String, _)| {
            format!("/{}", cleaned(source).split('/').map(word).collect::<Vec<_>>().join("/"))
        };
        let words = sources.iter().map(path).collect::<Vec<_>>().join(" ");
        let mut run = format!(
            "#!/bin/sh -e\nmkdir /.copied\nfor source in {words}; do\n  if [ -d \"$source\" ]; then \
             cp -a \"$source/.\" /.copied/; else cp -aL \"$source\" /.copied/; fi\ndone\n"
        );
        if let Some(dest) = rename {
            // To a place without a slash goes one file under that name, or the contents of one directory.
            let last = quote(dest.rsplit('/').next().unwrap_or_default());
            run = format!(
                "#!/bin/sh -e\nmkdir /.copied\nset -- {words}\n[ $# = 1 ] || {{ echo 'one is wanted' >&2; \
                 exit 1; }}\nif [ -d \"$1\" ]; then mkdir /.copied/{last}; cp -a \"$1/.\" /.copied/{last}/; else \
                 cp -aL \"$1\" /.copied/{last}; fi\n"
            );
        }
        let base = Base::Built(tag.to_owned());
        let layer = Layer { name: name.clone(), base, build_only: true, run: Some(run), ..Layer::default() };
        self.layers.push(layer);
        name
    }
}

/// What comes out of stages and images becomes root's, unless something else is said.
fn roots(import: OutImport) -> OutImport {
    OutImport { uid: Some("0".into()), gid: Some("0".into()), ..import }
}

/// Something in it can run scripts.
fn has_shell(stage: &Stage) -> bool {
    stage.base != Base::Scratch
}
