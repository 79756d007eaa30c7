//! Whether JSON that the program printed is what its schema says.

use serde_json::Value;

/// `printed` fits `schema/NAME.schema.json`, which another test compares with the code.
pub fn assert_fits(name: &str, printed: &Value) {
    let path = format!("{}/schema/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("a schema of that name");
    let schema: Value = serde_json::from_str(&text).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a JSON schema");
    let errors: Vec<String> =
        validator.iter_errors(printed).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "does not fit {path}:\n{}\n{printed:#}", errors.join("\n"));
}
