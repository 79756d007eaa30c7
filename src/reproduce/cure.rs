//! What usually keeps layers from coming out the same, and what is done about it.

use std::sync::LazyLock;

use regex::bytes::Regex;

/// What is known by its path (without a leading slash), and its cure.
const PATHS: [(&str, &str); 10] = [
    (
        r"^var/log/(dpkg\.log|alternatives\.log|apt/|bootstrap\.log|fontconfig\.log|faillog|lastlog|dnf|yum|pacman|apk)",
        "logs of package managers hold the time: remove them at the end of the script (rm -rf /var/log/apt /var/log/*.log)",
    ),
    (r"^var/cache/ldconfig/aux-cache$", "remove it at the end of the script; ldconfig makes it again"),
    (
        r"(^|/)__pycache__/|\.py[co]$",
        "build_env: {PYTHONDONTWRITEBYTECODE: 1}, or compile with --invalidation-mode unchecked-hash; pip: --no-compile",
    ),
    (r"^var/cache/(apt|debconf|man)/|^var/lib/apt/lists/", "caches of apt: remove them in the script that fills them"),
    (r"^(etc|var/lib/dbus)/machine-id$", "a random id: empty the file at the end of the script (: > /etc/machine-id)"),
    (
        r"^etc/g?shadow-?$",
        "the day of the last change of a password: chage -d 0 NAME, and remove the backups /etc/*- at the end of the script",
    ),
    (r"^etc/ssh/ssh_host_", "keys of a host are no part of an image: remove them, and make them when it starts"),
    (r"^var/cache/fontconfig/", "remove it at the end of the script; fontconfig makes it again"),
    (
        r"^var/lib/systemd/catalog/database$|^etc/ssl/certs/java/cacerts$",
        "made anew at each installation: see its tool",
    ),
    (r"(^|/)\.(bash|ash|python)_history$|(^|/)\.wget-hsts$", "left over by a program: remove it"),
];

const DATE: &str =
    "it holds the time of the build: use SOURCE_DATE_EPOCH, which every script has (date -d @$SOURCE_DATE_EPOCH)";
const GZIP: &str = "gzip writes the time and the name: gzip -n (tar: --mtime=@$SOURCE_DATE_EPOCH, piped to gzip -n)";
const ZIP: &str = "zip archives and jars hold times: give all files one (find … -exec touch -d @$SOURCE_DATE_EPOCH {} +), and zip -X; \
     or strip-nondeterminism";
const TAR: &str =
    "tar --sort=name --mtime=@$SOURCE_DATE_EPOCH --owner=0 --group=0 --numeric-owner gives the same each time";
const AR: &str = "ar writes times and owners: ar rcD, ranlib -D";

static KNOWN: LazyLock<Vec<(Regex, &str)>> =
    LazyLock::new(|| PATHS.iter().filter_map(|(path, cure)| Some((Regex::new(path).ok()?, *cure))).collect());

static TIMES: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d|\b1[6-9]\d{8}\b").ok());

/// For a file whose contents (the beginnings of both, with the first difference in them) are not the same.
pub fn cure(path: &[u8], contents: Option<(&[u8], &[u8])>) -> Option<&'static str> {
    if let Some((_, cure)) = KNOWN.iter().find(|(known, _)| known.is_match(path)) {
        return Some(cure);
    }
    let (first, second) = contents?;
    let both = |mark: &[u8], at: usize| {
        [first, second].iter().all(|content| content.get(at..).is_some_and(|rest| rest.starts_with(mark)))
    };
    if both(&[0x1f, 0x8b], 0) {
        // With equal times it is what was compressed that differs.
        return (first.get(4..8) != second.get(4..8)).then_some(GZIP);
    }
    match () {
        () if both(b"PK\x03\x04", 0) => Some(ZIP),
        () if both(b"ustar", 257) => Some(TAR),
        () if both(b"!<arch>\n", 0) => Some(AR),
        () => of_time(first, second),
    }
}

/// Around the first difference both hold something that looks like a time.
fn of_time(first: &[u8], second: &[u8]) -> Option<&'static str> {
    let equal = first.iter().zip(second).take_while(|(a, b)| a == b).count();
    let around = |content: &[u8]| {
        let (from, to) = (equal.saturating_sub(24), (equal + 24).min(content.len()));
        TIMES.as_ref().is_some_and(|times| times.is_match(&content[from.min(to)..to]))
    };
    (around(first) && around(second)).then_some(DATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_is_one() {
        assert_eq!(KNOWN.len(), PATHS.len());
        assert!(TIMES.is_some());
    }

    #[test]
    fn known_files_have_their_cure() {
        let cases = [
            ("var/log/dpkg.log", "rm -rf"),
            ("var/log/apt/history.log", "rm -rf"),
            ("var/cache/ldconfig/aux-cache", "ldconfig"),
            ("usr/lib/python3/__pycache__/x.cpython-313.pyc", "PYTHONDONTWRITEBYTECODE"),
            ("etc/machine-id", "random"),
            ("etc/shadow", "chage"),
            ("etc/ssh/ssh_host_rsa_key", "starts"),
        ];
        for (path, word) in cases {
            assert!(cure(path.as_bytes(), None).is_some_and(|cure| cure.contains(word)), "{path}");
        }
        assert_eq!(cure(b"usr/share/log/dpkg.log", None), None);
    }

    #[test]
    fn archives_are_known_by_their_bytes() {
        let of = |first: &[u8], second: &[u8]| cure(b"x", Some((first, second)));
        assert_eq!(of(b"\x1f\x8b\x08\0aaaa", b"\x1f\x8b\x08\0aaab"), Some(GZIP));
        assert_eq!(of(b"\x1f\x8b\x08\0aaaax", b"\x1f\x8b\x08\0aaaay"), None);
        assert_eq!(of(b"PK\x03\x04a", b"PK\x03\x04b"), Some(ZIP));
        assert_eq!(of(b"!<arch>\na", b"!<arch>\nb"), Some(AR));
        let tar = |last: u8| [&[0; 257][..], b"ustar", &[last]].concat();
        assert_eq!(of(&tar(1), &tar(2)), Some(TAR));
        assert_eq!(of(b"built 2026-01-02 at 10:11:12", b"built 2026-01-02 at 10:11:13"), Some(DATE));
        assert_eq!(of(b"id 1790000001\n", b"id 1790000002\n"), Some(DATE));
        assert_eq!(of(b"4711\n", b"815\n"), None);
    }
}
