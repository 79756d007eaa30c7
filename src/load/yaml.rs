//! YAML text becomes nodes that keep the spelling and the place of every scalar.
//!
//! Numbers, booleans and dates are not a matter here: a scalar is its text, so `1.10`, `yes` and `0100` stay what they
//! are. Aliases and merge keys are resolved; a key that stands twice in one mapping is an error. Knows nothing of
//! stackerfiles.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use serde_yaml::granit_parser::{self as parser, Event, Parser, ScalarStyle, Tag};

/// A value with its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Bytes of the text; for an alias those of the anchored value.
    pub span: Range<usize>,
}

/// What a node is. Collections are shared, so that aliases of aliases cost nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Nothing, `~` or `null`, without quotes.
    Blank,
    /// A text.
    Scalar(Arc<str>),
    /// A list.
    Sequence(Arc<Vec<Node>>),
    /// A map in the order of the file.
    Mapping(Arc<Vec<Entry>>),
}

/// One key of a map with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// As spelled.
    pub key: Arc<str>,
    /// Of the key.
    pub key_span: Range<usize>,
    /// Value.
    pub value: Node,
}

/// What is wrong with a text as YAML.
#[derive(Clone, Debug, PartialEq)]
pub struct Mistake {
    /// A sentence.
    pub title: String,
    /// Where.
    pub span: Range<usize>,
    /// Another place that belongs to it, with its label.
    pub other: Option<(Range<usize>, &'static str)>,
}

/// How deep collections may lie in each other: they are read, and dropped, by recursion.
const DEPTH: usize = 100;

/// What a document may come to with its aliases written out: bytes of texts, and [`NODE`] for every node.
const SIZE: u64 = 256 << 20;
const NODE: u64 = 64;

/// Reads the one document of a text. Syntax errors end it at once, duplicate keys do not.
pub fn parse(text: &str) -> (Option<Node>, Vec<Mistake>) {
    let options = parser::options! { emit_comments: false, simple_key_max_lookahead: 1 << 16 };
    let mut reader = Reader {
        events: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        mistakes: Vec::new(),
        text,
        depth: 0,
        size: 0,
    };
    match reader.document() {
        Ok(node) => (Some(node), reader.mistakes),
        Err(mistake) => {
            reader.mistakes.push(mistake);
            (None, reader.mistakes)
        }
    }
}

struct Reader<'t> {
    events: Parser<'t, parser::StrInput<'t>>,
    /// Nodes by anchor id, with their sizes. Missing: the alias stands inside the anchored node itself.
    anchors: HashMap<usize, (Node, u64)>,
    mistakes: Vec<Mistake>,
    text: &'t str,
    /// Collections that are open.
    depth: usize,
    /// Of all that was read so far, aliases written out.
    size: u64,
}

impl<'t> Reader<'t> {
    fn document(&mut self) -> Result<Node, Mistake> {
        let mut document = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(document.unwrap_or(Node { kind: Kind::Blank, span: 0..0 })),
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                _ if document.is_some() => {
                    return Err(mistake("a second YAML document: a file holds one", span));
                }
                event => document = Some(self.node(event, span)?),
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Range<usize>), Mistake> {
        match self.events.next_event() {
            Some(Ok((event, span))) => Ok((event, span.byte_range().unwrap_or(0..0))),
            Some(Err(error)) => {
                let start = error.marker().byte_offset().unwrap_or(0).min(self.text.len());
                Err(mistake(format!("not valid YAML: {}", error.info()), start..start + 1))
            }
            None => Ok((Event::StreamEnd, 0..0)),
        }
    }

    /// Counts what readers of the document will see: copies of a value are cheap here, but not later.
    fn count(&mut self, size: u64, span: &Range<usize>) -> Result<(), Mistake> {
        self.size = self.size.saturating_add(size);
        match self.size > SIZE {
            true => Err(mistake("with its aliases written out, the file would be too large", span.clone())),
            false => Ok(()),
        }
    }

    fn node(&mut self, event: Event<'t>, span: Range<usize>) -> Result<Node, Mistake> {
        let before = self.size;
        self.count(NODE, &span)?;
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.count(text.len() as u64, &span)?;
                let kind = scalar(&text, style, tag.as_deref());
                (anchor, Node { kind, span })
            }
            Event::SequenceStart(_, anchor, _) => (anchor, self.nested(span, Reader::sequence)?),
            Event::MappingStart(_, anchor, _) => (anchor, self.nested(span, Reader::mapping)?),
            Event::Alias(anchor) => {
                let inside = || mistake("an alias inside the value that it stands for", span.clone());
                let (node, size) = self.anchors.get(&anchor).cloned().ok_or_else(inside)?;
                self.count(size, &span)?;
                return Ok(node);
            }
            _ => return Err(mistake("not valid YAML: a value is missing", span)),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.size - before));
        }
        Ok(node)
    }

    fn nested(
        &mut self,
        span: Range<usize>,
        read: fn(&mut Self, Range<usize>) -> Result<Node, Mistake>,
    ) -> Result<Node, Mistake> {
        if self.depth == DEPTH {
            return Err(mistake(format!("lists and maps lie in each other more than {DEPTH} deep"), span));
        }
        self.depth += 1;
        let node = read(self, span);
        self.depth -= 1;
        node
    }

    fn sequence(&mut self, start: Range<usize>) -> Result<Node, Mistake> {
        let mut nodes = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, end) => {
                    let span = start.start..end.end.max(start.end);
                    return Ok(Node { kind: Kind::Sequence(Arc::new(nodes)), span });
                }
                (event, span) => nodes.push(self.node(event, span)?),
            }
        }
    }

    fn mapping(&mut self, start: Range<usize>) -> Result<Node, Mistake> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut first: HashMap<Arc<str>, Range<usize>> = HashMap::new();
        let mut merges = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                self.merge(&mut entries, merges)?;
                let span = start.start..span.end.max(start.end);
                return Ok(Node { kind: Kind::Mapping(Arc::new(entries)), span });
            }
            let (key, is_merge) = self.key(event, span.clone())?;
            let (event, value_span) = self.next()?;
            let value = self.node(event, value_span)?;
            if is_merge {
                merges.push(value);
            } else if let Some(other) = first.get(&key) {
                let other = Some((other.clone(), "first here"));
                self.mistakes.push(Mistake { title: format!("the key `{key}` stands twice"), span, other });
            } else {
                first.insert(key.clone(), span.clone());
                entries.push(Entry { key, key_span: span, value });
            }
        }
    }

    /// The text of a key, and whether it is a merge key.
    fn key(&mut self, event: Event<'t>, span: Range<usize>) -> Result<(Arc<str>, bool), Mistake> {
        if let Event::Scalar(text, style, anchor, _) = &event {
            self.count(NODE + text.len() as u64, &span)?;
            let key: Arc<str> = Arc::from(&**text);
            if *anchor != 0 {
                let node = Node { kind: Kind::Scalar(key.clone()), span };
                self.anchors.insert(*anchor, (node, NODE + key.len() as u64));
            }
            let is_merge = *style == ScalarStyle::Plain && &*key == "<<";
            return Ok((key, is_merge));
        }
        match self.node(event, span.clone())?.kind {
            Kind::Scalar(key) => Ok((key, false)),
            _ => Err(mistake("a key must be a text", span)),
        }
    }

    /// Keys that are written win over merged ones, earlier merged ones over later ones.
    fn merge(&self, entries: &mut Vec<Entry>, merges: Vec<Node>) -> Result<(), Mistake> {
        let mut sources = Vec::new();
        for node in merges {
            match node.kind {
                Kind::Sequence(nodes) => sources.extend(nodes.iter().cloned()),
                _ => sources.push(node),
            }
        }
        let mut known: HashSet<Arc<str>> = entries.iter().map(|entry| entry.key.clone()).collect();
        for source in sources {
            let Kind::Mapping(merged) = source.kind else {
                return Err(mistake("`<<` takes a map or a list of maps", source.span));
            };
            for entry in merged.iter() {
                if known.insert(entry.key.clone()) {
                    entries.push(entry.clone());
                }
            }
        }
        Ok(())
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Kind {
    let blank = style == ScalarStyle::Plain && tag.is_none() && ["", "~", "null", "Null", "NULL"].contains(&text);
    if blank { Kind::Blank } else { Kind::Scalar(text.into()) }
}

fn mistake(title: impl Into<String>, span: Range<usize>) -> Mistake {
    Mistake { title: title.into(), span, other: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nodes as JSON-like text.
    fn shown(node: &Node) -> String {
        match &node.kind {
            Kind::Blank => "_".to_owned(),
            Kind::Scalar(text) => format!("{text:?}"),
            Kind::Sequence(nodes) => format!("[{}]", nodes.iter().map(shown).collect::<Vec<_>>().join(" ")),
            Kind::Mapping(entries) => {
                let entry = |entry: &Entry| format!("{}={}", entry.key, shown(&entry.value));
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(" "))
            }
        }
    }

    #[test]
    fn scalars_keep_their_spelling() {
        let table = [
            ("a: 1.10", r#"{a="1.10"}"#),
            ("a: [yes, 0100, 0x1F, 1e3, .nan, 2001-01-01]", r#"{a=["yes" "0100" "0x1F" "1e3" ".nan" "2001-01-01"]}"#),
            ("a:\nb: ~\nc: null\nd: ''\ne: 'null'\nf: !!str", r#"{a=_ b=_ c=_ d="" e="null" f=""}"#),
            ("a: |\n  x\n   y\nb: >-\n  x\n  y", r#"{a="x\n y\n" b="x y"}"#),
            ("a: \"x\\ty\"\nb: 'it''s'", r#"{a="x\ty" b="it's"}"#),
            ("a: [é, 日本]", r#"{a=["é" "日本"]}"#),
            ("no: on\n1.0: x", r#"{no="on" 1.0="x"}"#),
            ("\u{feff}a: b", r#"{a="b"}"#),
            ("a: b\r\nc: d\r\n", r#"{a="b" c="d"}"#),
            ("", "_"),
            ("# nothing", "_"),
            ("---\na: b\n...\n", r#"{a="b"}"#),
        ];
        for (text, expected) in table {
            let (node, mistakes) = parse(text);
            assert_eq!(mistakes, [], "{text}");
            assert_eq!(node.as_ref().map(shown).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn aliases_and_merge_keys_work() {
        let table = [
            ("a: &x [1, 2]\nb: *x", r#"{a=["1" "2"] b=["1" "2"]}"#),
            ("a: &x {p: 1, q: 2}\nb:\n  <<: *x\n  q: 3", r#"{a={p="1" q="2"} b={q="3" p="1"}}"#),
            ("a: &x {p: 1}\nb: &y {p: 2, q: 2}\nc: {<<: [*x, *y]}", r#"{a={p="1"} b={p="2" q="2"} c={p="1" q="2"}}"#),
            ("a: {'<<': 1}", r#"{a={<<="1"}}"#),
            ("&k a: 1\nb: *k", r#"{a="1" b="a"}"#),
        ];
        for (text, expected) in table {
            let (node, mistakes) = parse(text);
            assert_eq!(mistakes, [], "{text}");
            assert_eq!(node.as_ref().map(shown).as_deref(), Some(expected), "{text}");
        }
    }

    /// Each level is twice the one before.
    fn doubled(levels: usize) -> String {
        let mut text = "a0: &a0 [x, x]\n".to_owned();
        for level in 1..levels {
            let below = level - 1;
            text += &format!("a{level}: &a{level} [*a{below}, *a{below}]\n");
        }
        text
    }

    #[test]
    fn bombs_are_refused() {
        assert!(parse(&doubled(15)).0.is_some());
        let keys: String = (0..20_000).map(|key| format!("k{key}: x\n ")).collect();
        let merged = format!("a: &x\n {keys}\nb:\n{}", "- {<<: *x}\n".repeat(20_000));
        let script = format!("a: &x {}\nb:\n{}", "x".repeat(100_000), "- *x\n".repeat(10_000));
        for bomb in [doubled(60), merged, script] {
            let (node, mistakes) = parse(&bomb);
            assert_eq!(
                (node, mistakes[0].title.as_str()),
                (None, "with its aliases written out, the file would be too large")
            );
        }
        for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", "")] {
            let nested = |depth| open.repeat(depth) + "x" + &close.repeat(depth);
            assert_eq!(parse(&nested(100)).1, [], "{open}");
            for depth in [101, 200_000] {
                let (_, mistakes) = parse(&nested(depth));
                // The parser has a limit of its own, for brackets.
                let title = &mistakes[0].title;
                assert!(title.contains("deep") || title.contains("recursion limit"), "{title}");
            }
        }
    }

    #[test]
    fn many_anchors_and_long_lists_are_no_bomb() {
        let mut text = "a: &x [1]\nb:\n".to_owned();
        for index in 0..50_000 {
            text += &format!("- [*x, {index}]\n");
        }
        assert_eq!(parse(&text).1, []);
    }

    #[test]
    fn mistakes_have_places() {
        let table = [
            ("é: 1\na: 2\na: 3", "the key `a` stands twice", "a"),
            ("a: b\n---\nc: d", "a second YAML document: a file holds one", "c"),
            ("a: {<<: 3}", "`<<` takes a map or a list of maps", "3"),
            ("a: &x [*x]", "an alias inside the value that it stands for", "*x"),
            ("[a]: b", "a key must be a text", "[a"),
        ];
        for (text, title, marked) in table {
            let (_, mistakes) = parse(text);
            let [mistake] = &mistakes[..] else { panic!("{text}: {mistakes:?}") };
            assert_eq!(mistake.title, title, "{text}");
            assert!(text[mistake.span.start..].starts_with(marked), "{text}: {:?}", mistake.span);
        }
        let (node, mistakes) = parse("a: [1, 2\nb: 3");
        assert!(node.is_none());
        assert!(mistakes[0].title.starts_with("not valid YAML: "), "{}", mistakes[0].title);
    }
}
