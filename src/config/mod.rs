//! Whether a node's configuration fits the image that it is to run: Talos' documents and patches, and talhelper's
//! `talconfig.yaml`, held against the extension services, the schematic and the version of an image.
//!
//! Only what decides whether the image's extensions come up, and stay, is judged: Talos itself validates the rest when
//! the configuration is applied. No message holds a value of the environment: keys are among them. Source of the
//! formats: `pkg/machinery/config` of Talos, talhelper's `pkg/config`. Pure: touches nothing.

mod install;
mod machine;
mod services;
mod tailscale;
mod talhelper;

pub use services::service_document;

use crate::sorting::Sort as _;
use crate::yaml::{self, Fields, Invalid, Merge, Node, Place, Value};
use serde::Serialize;
use std::collections::BTreeSet;

/// What a file may ask for: a machine configuration with its certificates has some 20 KiB and 1,000 values.
const LIMITS: yaml::Limits =
    yaml::Limits { documents: 1000, nodes: 200_000, text: 8 << 20, depth: 100, aliases: 10_000 };

/// A file with configuration.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    /// What it is called in findings.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// What the image says that configuration has to fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageNeeds {
    /// Its version, for example `v1.12.4`.
    pub version: Option<String>,
    /// The ID of its schematic.
    pub schematic: Option<String>,
    /// The installer's image that holds the same, where one does.
    pub installer: Option<String>,
    /// Names of its extension services that wait for an ExtensionServiceConfig.
    pub waiting: Vec<String>,
    /// Names of all its extension services; `None` where not all of them could be read.
    pub services: Option<Vec<String>>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something will not come up, or Talos refuses or ignores the document.
    Problem,
    /// It works today, or may; somebody should look.
    Warning,
    /// What cannot be seen in a file.
    Hint,
}

/// Something about the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is: stable, for programs (`docs/config-check.md`).
    pub code: &'static str,
    /// The file; `null` for what is in none.
    pub file: Option<String>,
    /// The line, from 1; `null` for what is at no place.
    pub line: Option<usize>,
    /// What is the case.
    pub what: String,
    /// What to do.
    pub advice: String,
    /// What to put there, as text of a file.
    pub put: Option<String>,
}

impl Finding {
    /// `FILE:LINE: `, or nothing for what is at no place.
    pub(crate) fn place_and_colon(&self) -> String {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("{file}:{line}: "),
            (Some(file), None) => format!("{file}: "),
            (None, _) => String::new(),
        }
    }
}

/// Whether configuration fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// No problem was found.
    Fits,
    /// At least one was.
    DoesNotFit,
}

/// What was found in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[must_use]
#[non_exhaustive]
pub struct ConfigReport {
    /// Over all findings.
    pub verdict: Fit,
    /// How many documents were read, those inside a `talconfig.yaml` included.
    pub documents: usize,
    /// Names of the services that a document configures, sorted.
    pub services: Vec<String>,
    /// The worst first, then by file and line.
    pub findings: Vec<Finding>,
    /// What could not be taken into account, one sentence each.
    pub not_checked: Vec<String>,
}

/// Reads the files and holds them against the image; without one what is wrong with any image is found.
pub fn check(files: &[ConfigFile], image: Option<&ImageNeeds>) -> ConfigReport {
    let mut checker = Checker { image, file: "", lines_before: 0, only_line: None, seen: Seen::default() };
    for file in files {
        checker.file = &file.name;
        checker.text(&file.text);
    }
    checker.services_without_a_document();
    let Seen { documents, services, mut findings, not_checked, .. } = checker.seen;
    findings.put_in_order(|a, b| (a.severity, &a.file, a.line).cmp(&(b.severity, &b.file, b.line)));
    let problem = findings.iter().any(|f| f.severity == Severity::Problem);
    ConfigReport {
        verdict: if problem { Fit::DoesNotFit } else { Fit::Fits },
        documents,
        services: services.into_iter().collect(),
        findings,
        not_checked,
    }
}

/// What the documents had.
#[derive(Default)]
struct Seen {
    documents: usize,
    services: BTreeSet<String>,
    findings: Vec<Finding>,
    not_checked: Vec<String>,
}

/// Goes over documents.
struct Checker<'c> {
    image: Option<&'c ImageNeeds>,
    file: &'c str,
    /// Lines of the file before the text that is looked at: a patch stands inside a scalar of a `talconfig.yaml`.
    lines_before: usize,
    /// Where the text stands that is looked at, when its lines are not lines of the file.
    only_line: Option<usize>,
    seen: Seen,
}

impl Checker<'_> {
    /// Every document of a text.
    fn text(&mut self, text: &str) {
        match yaml::documents(text, &LIMITS) {
            Ok(documents) => documents.iter().for_each(|document| self.document(document)),
            Err(Invalid { at, what }) => {
                let what = format!("this is not YAML: {what}");
                self.find(Severity::Problem, "not-yaml", at, what, "correct it; Talos would refuse it");
            }
        }
    }

    fn document(&mut self, document: &Node<'_>) {
        if document.is_null() {
            return;
        }
        self.seen.documents += 1;
        if let Value::List(items) = &document.value {
            let is_operation =
                |item: &Node<'_>| item.fields(Merge::Apply).is_ok_and(|fields| fields.find("op").is_some());
            return match items.iter().all(is_operation) {
                true => self.not_checked(document.at, "a JSON patch (RFC 6902): what it changes is not known here"),
                false => self.unknown(document.at),
            };
        }
        let fields = match document.fields(Merge::Apply) {
            Ok(fields) => fields,
            Err(Invalid { at, what }) => {
                return self.find(Severity::Problem, "not-a-mapping", at, what, "correct it; Talos would refuse it");
            }
        };
        if fields.find("$patch").is_some() {
            return self.not_checked(document.at, "a patch that deletes a document ($patch)");
        }
        if self.service_document(document, &fields) {
            return;
        }
        if fields.find("kind").is_some() && fields.find("apiVersion").is_some() {
            return; // another document of Talos, of which there are many
        }
        if fields.find("machine").is_some() || fields.find("cluster").is_some() {
            return self.machine_configuration(&fields);
        }
        if talhelper::KEYS.iter().any(|key| fields.find(key).is_some()) {
            return self.talconfig(&fields);
        }
        self.fragment(&fields);
        self.unknown(document.at);
    }

    fn unknown(&mut self, at: Place) {
        self.find(
            Severity::Warning,
            "unknown-document",
            at,
            "this is neither a document of Talos (machine: or cluster:, or apiVersion: and kind:) nor a talconfig.yaml",
            "Talos ignores or refuses it; put it where it belongs, or leave the file out",
        );
    }

    fn not_checked(&mut self, at: Place, what: &str) {
        let line = self.line(at);
        self.seen.not_checked.push(format!("{}:{line}: {what}", self.file));
    }

    /// The line of the file, from 1.
    fn line(&self, at: Place) -> usize {
        self.only_line.unwrap_or(at.line + self.lines_before)
    }

    fn find(
        &mut self,
        severity: Severity,
        code: &'static str,
        at: Place,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.find_and_put(severity, code, at, what, advice, None);
    }

    fn find_and_put(
        &mut self,
        severity: Severity,
        code: &'static str,
        at: Place,
        what: impl Into<String>,
        advice: impl Into<String>,
        put: Option<String>,
    ) {
        self.seen.findings.push(Finding {
            severity,
            code,
            file: Some(self.file.to_owned()),
            line: Some(self.line(at)),
            what: what.into(),
            advice: advice.into(),
            put,
        });
    }
}

/// A value below others, by their names; `None` where one of them is absent.
fn below<'n, 'a>(fields: &Fields<'n, 'a>, path: &[&str]) -> Option<&'n Node<'a>> {
    let (first, rest) = path.split_first()?;
    let node = fields.find(first)?;
    if rest.is_empty() { Some(node) } else { below(&node.fields(Merge::Apply).ok()?, rest) }
}

#[cfg(test)]
mod tests;
