//! The JSON schemas of what users write and read, as they stand in `schema/`: made from the types, compared by a test.

mod stackerfile;

pub use stackerfile::stackerfile;

use schemars::JsonSchema;

/// What is printed or written as JSON: the name of each schema (`schema/NAME.schema.json`), and its text.
///
/// Fields of these are added, never renamed or dropped.
pub fn outputs() -> Vec<(&'static str, String)> {
    vec![
        ("metadata", of::<crate::export::metadata::Metadata>()),
        ("why", of::<crate::history::Explanation>()),
        ("history", of::<crate::history::Builds>()),
        ("history-show", of::<crate::history::WholeBuild>()),
        ("cache-ls", of::<Vec<crate::inspect::cache::Listed>>()),
        ("cache-show", of::<Vec<crate::inspect::cache::Shown>>()),
        ("cache-diff", of::<crate::inspect::diff::Difference>()),
        ("cache-du", of::<crate::inspect::usage::Usage>()),
        ("cache-verify", of::<crate::verify::Report>()),
        ("reproduce", of::<crate::reproduce::Report>()),
        ("inspect", of::<Vec<crate::inspect::Image>>()),
        ("check", of::<crate::check::Checked<'static>>()),
        ("graph", of::<crate::picture::Picture>()),
        ("trace", of::<crate::trace::Trace>()),
        ("plan", of::<crate::plan::Plan>()),
    ]
}

/// The schema of a type.
fn of<T: JsonSchema>() -> String {
    let schema = schemars::schema_for!(T);
    serde_json::to_string_pretty(&schema).expect("a schema is always JSON") + "\n"
}
