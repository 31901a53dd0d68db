//! Kubernetes objects as text.

use crate::factory::to_yaml;
use serde::Serialize;
use serde_json::{Value, json};

/// The objects to create, in their order: as the API server reads them, with no field that is null.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest(pub Vec<Value>);

impl Manifest {
    /// The name of the pod or the job: the last object's.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.last().and_then(|object| object["metadata"]["name"].as_str()).unwrap_or_default()
    }

    /// As YAML: one document for each object, printed as Go's programs print it. Strings that a YAML 1.1 reader would take
    /// for something else (`no`, `0x1f`, `12:30`) are quoted.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        self.0.iter().filter_map(Value::as_object).map(to_yaml).collect::<Vec<_>>().join("---\n")
    }
}

/// One object as itself, several as a `v1` `List`: how objects of several kinds are one JSON document for `kubectl`.
impl Serialize for Manifest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [object] => object.serialize(serializer),
            items => json!({"apiVersion": "v1", "kind": "List", "items": items}).serialize(serializer),
        }
    }
}

/// An object without its fields that are null. To the API server they would be the same.
pub(super) fn tidy(mut object: Value) -> Value {
    fn take_nulls(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|_, field| !field.is_null());
                fields.values_mut().for_each(take_nulls);
            }
            Value::Array(items) => items.iter_mut().for_each(take_nulls),
            _ => {}
        }
    }
    take_nulls(&mut object);
    object
}
