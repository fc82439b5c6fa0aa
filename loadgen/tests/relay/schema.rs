//! As much of JSON Schema as `docs/loadgen.schema.json` uses.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Panics, with the place, unless `value` is what the published schema describes.
pub fn check(value: &Value) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/loadgen.schema.json");
    let root: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    if let Err(e) = validate(&root, &root, value, "result") {
        panic!("{e}");
    }
}

fn validate(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    for (word, rule) in schema.as_object().unwrap() {
        match word.as_str() {
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                validate(root, &root["$defs"][name], value, at)?;
            }
            "oneOf" => {
                let fits = |s: &&Value| validate(root, s, value, at).is_ok();
                let schemas = rule.as_array().unwrap();
                if schemas.iter().filter(fits).count() != 1 {
                    let why = schemas.iter().filter_map(|s| validate(root, s, value, at).err());
                    return Err(format!(
                        "{at} fits none or several of: {}",
                        why.collect::<Vec<_>>().join("; ")
                    ));
                }
            }
            "type" => {
                let one = std::slice::from_ref(rule);
                let types = rule.as_array().map_or(one, Vec::as_slice);
                if !types.iter().any(|t| is(value, t.as_str().unwrap())) {
                    return Err(format!("{at} is no {rule}: {value}"));
                }
            }
            "enum" if !rule.as_array().unwrap().contains(value) => {
                return Err(format!("{at} is none of {rule}: {value}"));
            }
            "minimum" if value.as_f64() < rule.as_f64() => return Err(format!("{at} is below {rule}")),
            "required" => {
                for name in rule.as_array().unwrap() {
                    if value.get(name.as_str().unwrap()).is_none() {
                        return Err(format!("{at} lacks {name}"));
                    }
                }
            }
            "properties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    let schema = rule.get(name).ok_or(format!("{at}.{name} is not described"))?;
                    validate(root, schema, member, &format!("{at}.{name}"))?;
                }
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    validate(root, rule, item, &format!("{at}[{n}]"))?;
                }
            }
            // `properties` holds every member against the schema already; the pattern is that of a fingerprint.
            "enum" | "minimum" | "additionalProperties" | "pattern" | "description" => {}
            "$schema" | "$id" | "title" | "$defs" => {}
            other => panic!("the schema uses `{other}`, which this test does not know"),
        }
    }
    Ok(())
}

fn is(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("no type is called {other}"),
    }
}
