//! What the report of a swap in a pod says to a rollout.

use super::site::PodOutcome;
use super::validate::Expected;
use crate::{Code, Error, Kind, Result};
use serde_json::Value;

/// A swap that was done, or that would be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Swapped {
    /// Whether the ESP was changed.
    pub(super) committed: bool,
    /// Whether there was nothing to do.
    pub(super) in_place: bool,
    pub(super) sha256: String,
    pub(super) backup: Option<String>,
    pub(super) expected: Expected,
    /// What is another for the user: `v1.12.3 -> v1.12.4, + tailscale`.
    pub(super) change: String,
    pub(super) warnings: Vec<String>,
}

impl Swapped {
    /// Reads the report.
    ///
    /// # Errors
    /// The one that the program in the pod ended with; [`Code::Unsupported`] for an image that no node of Talos can be
    /// held against.
    pub(super) fn of(outcome: &PodOutcome) -> Result<Self> {
        let document = &outcome.document;
        if outcome.exit_code != 0 {
            return Err(error_of(outcome));
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let expected: Option<Expected> = serde_json::from_value(document["image"].clone()).ok();
        let expected = expected.filter(|expected| expected.version.is_some()).ok_or_else(|| {
            Error::new(Code::Unsupported, "the image says no version: whether a node runs it could not be told")
        })?;
        let sha256 = text(&document["sha256"]).ok_or_else(|| not_a_report(outcome))?;
        let is = |name: &str| document[name].as_bool().ok_or_else(|| not_a_report(outcome));
        let warnings = document["warnings"].as_array().into_iter().flatten();
        Ok(Self {
            committed: is("committed")?,
            in_place: is("already_in_place")?,
            sha256,
            backup: text(&document["plan"]["backup"]),
            change: change(&document["change"], &expected),
            expected,
            warnings: warnings.filter_map(text).collect(),
        })
    }
}

/// Version, schematic and extensions, as far as they change.
fn change(change: &Value, expected: &Expected) -> String {
    let before = change["version_before"].as_str();
    let now = expected.version.as_deref().unwrap_or_default();
    let mut words = vec![match before {
        Some(before) if before != now => format!("{before} -> {now}"),
        _ => now.to_owned(),
    }];
    for (sign, list) in [("+", &change["added"]), ("-", &change["removed"])] {
        let names: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        words.extend((!names.is_empty()).then(|| format!("{sign} {}", names.join(", "))));
    }
    words.join(", ")
}

/// The error that the program in the pod has reported: the same failure, under the same code.
fn error_of(outcome: &PodOutcome) -> Error {
    let error = &outcome.document["error"];
    let Some(message) = error["message"].as_str() else { return not_a_report(outcome) };
    let known = Code::ALL.iter().find(|code| error["code"].as_str() == Some(code.as_str()));
    let mut same = Error::new(known.copied().unwrap_or_else(|| code_of(outcome.exit_code)), message);
    if let Some(changed) = error["esp_changed"].as_bool() {
        same = same.with_esp_changed(changed);
    }
    match error["advice"].as_str() {
        Some(advice) => same.advise(advice),
        None => same,
    }
}

/// The general code of an exit code.
fn code_of(exit_code: u8) -> Code {
    const KINDS: [Kind; 5] = [Kind::Usage, Kind::Rejected, Kind::Unsafe, Kind::Interrupted, Kind::Cancelled];
    KINDS.iter().find(|kind| kind.exit_code() == exit_code).map_or(Code::Io, |kind| Code::from(*kind))
}

fn not_a_report(outcome: &PodOutcome) -> Error {
    let end = outcome.exit_code;
    Error::new(code_of(end), format!("the pod ended with exit code {end}, and its output is no report of a swap"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failure_in_the_pod_is_the_same_failure_at_the_desk() {
        for code in Code::ALL {
            let error = Error::new(*code, "why").advise("do this").with_esp_changed(false);
            let exit_code = code.kind().exit_code();
            let e = Swapped::of(&PodOutcome { exit_code, document: json!({ "error": error }) }).unwrap_err();
            assert_eq!((e.code(), e.to_string().as_str(), e.advice()), (*code, "why", Some("do this")));
            assert_eq!(e.esp_changed(), Some(false));
        }
        for (exit_code, code) in [(1, Code::Io), (3, Code::Malformed), (4, Code::Unsafe), (137, Code::Io)] {
            for document in [Value::Null, json!({"error": {"code": "of-tomorrow", "message": "why"}})] {
                let e = Swapped::of(&PodOutcome { exit_code, document }).unwrap_err();
                assert_eq!((e.code(), e.esp_changed()), (code, None), "{exit_code}: {e}");
            }
        }
    }

    #[test]
    fn a_report_without_what_has_to_be_shown_is_none() {
        let whole = json!({
            "committed": true, "already_in_place": false, "sha256": "00", "plan": {"backup": "a.bak.1"},
            "image": {"version": "v1.12.4", "schematic": null, "extensions": [], "services": null,
                      "waiting_services": [], "sha256": "00"},
            "change": {"version_before": "v1.12.3", "added": ["tailscale"], "removed": []}, "warnings": [],
        });
        let report = Swapped::of(&PodOutcome { exit_code: 0, document: whole.clone() }).unwrap();
        assert_eq!((report.committed, report.in_place, report.backup.as_deref()), (true, false, Some("a.bak.1")));
        assert_eq!(report.change, "v1.12.3 -> v1.12.4, + tailscale");
        for lacks in ["committed", "already_in_place", "sha256", "image"] {
            let mut document = whole.clone();
            document.as_object_mut().unwrap().remove(lacks);
            Swapped::of(&PodOutcome { exit_code: 0, document }).unwrap_err();
        }
    }
}
