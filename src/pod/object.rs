//! Kubernetes objects as text.

use crate::{Error, Result};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;

/// One object of a manifest.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Object {
    /// A pod.
    Pod(Box<Pod>),
    /// A job.
    Job(Box<Job>),
}

/// A `v1` `List`: how several objects of several kinds are one JSON document for `kubectl`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    api_version: &'static str,
    kind: &'static str,
    items: &'a [Object],
}

/// The objects to create, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest(pub Vec<Object>);

impl Manifest {
    /// The name of the pod or the job: the last object's.
    #[must_use]
    pub fn name(&self) -> &str {
        let metadata = self.0.last().map(|object| match object {
            Object::Pod(pod) => &pod.metadata,
            Object::Job(job) => &job.metadata,
        });
        metadata.and_then(|m| m.name.as_deref()).unwrap_or_default()
    }

    /// As YAML: one document for each object. Strings that a YAML 1.1 reader would take for something else (`no`,
    /// `0x1f`,
    /// `12:30`) are quoted.
    ///
    /// # Errors
    /// None that can happen with these types; the serializer has a way to report.
    pub fn to_yaml(&self) -> Result<String> {
        let options = || serde_saphyr::ser_options! { prefer_block_scalars: false };
        let documents: Vec<String> = self
            .0
            .iter()
            .map(|object| {
                let value = serde_json::to_value(object).map_err(|e| e.to_string())?;
                serde_saphyr::to_string_with_options(&value, options()).map_err(|e| e.to_string())
            })
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| Error::io(format!("the manifest does not serialize: {e}")))?;
        Ok(documents.join("---\n"))
    }
}

/// One object as itself, several as a `v1` `List`. By way of a [`serde_json::Value`], as in [`Manifest::to_yaml`]: code
/// for thousands of fields is there once, and not for each serializer.
impl Serialize for Manifest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let value = match self.0.as_slice() {
            [object] => serde_json::to_value(object),
            items => serde_json::to_value(List { api_version: "v1", kind: "List", items }),
        };
        value.map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}
