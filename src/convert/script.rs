//! `RUN` as a script: its directory, its shell and its user, and then the text as it stands.

use super::layer::Preamble;
use super::stage::Stage;

/// Runs what follows as the user of `USER`, by whatever the image has for it.
pub(super) const AS_USER: (&str, &str) = (
    "as_user",
    r#"#!/bin/sh
# as_user USER[:GROUP] COMMAND...: what RUN does after USER, by setpriv, chroot or su of the image
as_user() {
  _user=${1%%:*} _group= _name= _uid= _gid= _home=/
  case $1 in *:*) _group=${1#*:} ;; esac
  shift
  while IFS=: read -r _n _p _u _g _c _h _s; do
    if [ "$_n" = "$_user" ] || [ "$_u" = "$_user" ]; then _name=$_n _uid=$_u _gid=$_g _home=$_h; break; fi
  done < /etc/passwd
  [ -n "$_uid" ] || case $_user in
    *[!0-9]*) echo "USER $_user: not in /etc/passwd" >&2; exit 1 ;;
    *) _uid=$_user _gid=0 ;;
  esac
  if [ -n "$_group" ]; then
    _gid=
    while IFS=: read -r _n _p _g _m; do [ "$_n" != "$_group" ] || _gid=$_g; done < /etc/group
    [ -n "$_gid" ] || case $_group in
      *[!0-9]*) echo "USER $_user:$_group: no such group in /etc/group" >&2; exit 1 ;;
      *) _gid=$_group ;;
    esac
  fi
  _groups=--clear-groups
  if [ -n "$_name" ] && [ -z "$_group" ]; then _groups=--init-groups; fi
  [ "$HOME" != /root ] || HOME=$_home
  if setpriv --reuid="$_uid" --regid="$_gid" $_groups true 2>/dev/null; then
    exec setpriv --reuid="$_uid" --regid="$_gid" $_groups "$@"
  elif chroot --skip-chdir --userspec="$_uid:$_gid" / true 2>/dev/null; then
    exec chroot --skip-chdir --userspec="$_uid:$_gid" / "$@"
  elif [ -n "$_name" ] && [ -z "$_group" ] && su -s /bin/sh "$_name" -c true 2>/dev/null; then
    exec su -s /bin/sh "$_name" -c 'exec "$0" "$@"' "$@"
  fi
  echo "USER $_uid:$_gid: the image has no setpriv, chroot or su that could run this" >&2
  exit 1
}
"#,
);

/// Copies what `COPY --chown` with names does, which only the image can look up.
pub(super) const PUT: (&str, &str) = (
    "put",
    r#"#!/bin/sh -e
# put SOURCE DEST OWNER: what COPY --chown does; directories that are missing become the owner's, others stay
made() {
  [ -d "${1:-/}" ] || { made "${1%/*}"; mkdir "$1"; chown "$_owner" "$1"; }
}
put() {
  _owner=$3
  case $2 in
    */) _into=${2%/} ;;
    *) if [ -d "$1" ] || [ -d "$2" ]; then _into=$2; else _into=${2%/*}; fi ;;
  esac
  made "$_into"
  _parts=$(mktemp -d "$_into/.put.XXXXXX")
  if [ -d "$1" ]; then cp -a "$1/." "$_parts/"; else
    case $2 in */) _name=${1##*/} ;; *) if [ -d "$2" ]; then _name=${1##*/}; else _name=${2##*/}; fi ;; esac
    cp -a "$1" "$_parts/$_name"
  fi
  chown -hR "$_owner" "$_parts"
  for _part in "$_parts"/* "$_parts"/.[!.]* "$_parts"/..?*; do
    if [ -e "$_part" ] || [ -L "$_part" ]; then cp -a "$_part" "$_into/"; fi
  done
  rm -rf "$_parts"
}
"#,
);

/// What a `RUN` says.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// For the shell.
    Text(String),
    /// A program with its arguments.
    Exec(Vec<String>),
    /// A here-document with a `#!` line.
    Script(String),
}

/// The script, and whether it calls [`AS_USER`].
pub(super) fn script(stage: &Stage, body: &Body) -> (String, bool) {
    let mut places: String =
        stage.pending.iter().map(|directory| format!("mkdir -p {} || exit\n", quote(directory))).collect();
    if stage.workdir != "/" {
        places += &format!("cd {} || exit\n", quote(&stage.workdir));
    }
    if let Some(user) = &stage.user {
        let (before, command) = match body {
            Body::Text(text) => (String::new(), format!("{} {}", words(&stage.shell), quote(text))),
            Body::Exec(arguments) => (String::new(), words(arguments)),
            Body::Script(text) => (file(text), "\"$script\"".to_owned()),
        };
        return (format!("{before}{places}as_user {} {command}\n", quote(user)), true);
    }
    let text = match body {
        Body::Script(text) if places.is_empty() => text.clone(),
        Body::Script(text) => format!("#!/bin/sh\n{}{places}exec \"$script\"\n", file(text)),
        Body::Exec(arguments) => format!("#!/bin/sh\n{places}exec {}\n", words(arguments)),
        Body::Text(text) => match interpreter(&stage.shell) {
            Some((interpreter, options)) => format!("#!{interpreter}\n{options}{places}{text}\n"),
            None => format!("#!/bin/sh\n{places}exec {} {}\n", words(&stage.shell), quote(text)),
        },
    };
    (text, false)
}

/// Writes a script to where nothing of it stays in the layer.
fn file(text: &str) -> String {
    let mut end = "SCRIPT".to_owned();
    while text.lines().any(|line| line == end) {
        end.push('_');
    }
    let text = text.trim_end_matches('\n');
    format!("script=/stacker/script\ncat > \"$script\" <<'{end}' && chmod 755 \"$script\" || exit\n{text}\n{end}\n")
}

/// The `#!` line and the `set` that are the same as a shell with its options.
fn interpreter(shell: &[String]) -> Option<(&str, String)> {
    let (program, options) = shell.split_first()?;
    let options = options.strip_suffix(&["-c".to_owned()])?;
    if !program.starts_with('/') || program.contains(char::is_whitespace) {
        return None;
    }
    let known = |option: &String| match option.strip_prefix('-') {
        Some(letters) => !letters.is_empty() && letters.chars().all(|letter| "euxo".contains(letter)),
        None => option == "pipefail",
    };
    match options {
        [] => Some((program, String::new())),
        options if options.iter().all(known) => Some((program, format!("set {}\n", options.join(" ")))),
        _ => None,
    }
}

fn words(words: &[String]) -> String {
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

/// A word for a shell.
pub(super) fn quote(text: &str) -> String {
    shell_words::quote(text).into_owned()
}

/// A shared beginning; `first` is found out when all layers are there.
pub(super) fn preamble((name, text): (&'static str, &'static str)) -> Preamble {
    Preamble { name, text, first: false }
}

/// A command over several lines as a shell reads it: continuations stay where that means the same, comments go.
pub(super) fn readable(text: &str, escape: char) -> String {
    let (mut result, mut continued) = (String::new(), false);
    let mut quotes = Quotes::default();
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if continued && (line.trim().is_empty() || line.trim_start().starts_with('#')) {
            continue;
        }
        let end = line.trim_end_matches([' ', '\t']);
        continued = end.ends_with(escape);
        let piece = if continued { end.strip_suffix(escape).unwrap_or(end) } else { line };
        quotes.read(piece);
        result.push_str(piece);
        match continued {
            true if quotes.joins_alike() => result.push_str("\\\n"),
            true => {}
            false => result.push('\n'),
        }
    }
    result.trim_end_matches(['\n', '\\', ' ', '\t']).to_owned()
}

/// Where in a shell's text quotes and comments are open.
#[derive(Default)]
struct Quotes {
    open: Option<char>,
    comment: bool,
}

impl Quotes {
    fn read(&mut self, piece: &str) {
        let mut before = ' ';
        let mut characters = piece.chars();
        while let Some(character) = characters.next() {
            match (character, self.open) {
                ('\\', None | Some('"')) => drop(characters.next()),
                ('\'' | '"', None) if !self.comment => self.open = Some(character),
                (_, Some(open)) if open == character => self.open = None,
                ('#', None) if before.is_whitespace() || before == ';' => self.comment = true,
                _ => {}
            }
            before = character;
        }
    }

    /// A backslash before the end of a line is taken out here, as Docker does everywhere.
    fn joins_alike(&self) -> bool {
        !self.comment && self.open != Some('\'')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continuations_stay_where_a_shell_reads_them_alike() {
        let table = [
            ("a && \\\n  # why\n  b", "a && \\\n  b"),
            ("echo 'a \\\nb' \\\n c", "echo 'a b' \\\n c"),
            ("echo \"a \\\nb\"", "echo \"a \\\nb\""),
            ("a # b \\\nc", "a # b c"),
            ("a \\\n\n b", "a \\\n b"),
        ];
        for (text, expected) in table {
            assert_eq!(readable(text, '\\'), expected, "{text}");
        }
        assert_eq!(readable("a `\n b", '`'), "a \\\n b");
    }

    #[test]
    fn shells_with_plain_options_become_interpreters() {
        let shell = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let bash = shell(&["/bin/bash", "-euo", "pipefail", "-c"]);
        assert_eq!(interpreter(&bash), Some(("/bin/bash", "set -euo pipefail\n".to_owned())));
        for words in [&["/bin/bash", "-l", "-c"][..], &["bash", "-c"], &["/bin/bash"], &["/bin/python3", "-c", "-c"]] {
            assert_eq!(interpreter(&shell(words)), None, "{words:?}");
        }
    }
}
