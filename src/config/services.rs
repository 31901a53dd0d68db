//! `ExtensionServiceConfig`: the document that an extension service waits for.

use super::{Checker, Finding, Severity};
use crate::yaml::{Fields, Invalid, Merge, Node, Value};

/// The kind.
const KIND: &str = "ExtensionServiceConfig";
/// Its only version.
const API_VERSION: &str = "v1alpha1";
/// What a document may have, beside `apiVersion` and `kind`.
const FIELDS: [&str; 3] = ["name", "configFiles", "environment"];

impl Checker<'_> {
    /// Whether this is such a document, or was meant to be one.
    pub(super) fn service_document(&mut self, document: &Node<'_>, fields: &Fields<'_, '_>) -> bool {
        if let Some(field) = fields.iter().find(|field| is_kind_in_other_letters(field.name)) {
            self.find_and_put(
                Severity::Problem,
                "service-document-form",
                field.key.at,
                format!(
                    "{} is no field of any document: Talos ignores what is below it, or refuses the file",
                    field.name
                ),
                "make each of its items a document of its own, with apiVersion, kind and name",
                Some(service_document(first_name(field.value).as_deref().unwrap_or("NAME"))),
            );
            return true;
        }
        let kind = fields.find("kind").and_then(|kind| Some((kind, kind.text().ok()?)));
        let looks_like_one = fields.find("environment").is_some() || fields.find("configFiles").is_some();
        match kind {
            Some((_, KIND)) => {}
            Some((node, kind)) if is_kind_in_other_letters(kind) => {
                let what = format!("the kind is {kind}, and Talos knows {KIND} alone");
                self.find(Severity::Problem, "service-kind", node.at, what, format!("write `kind: {KIND}`"));
            }
            None if looks_like_one && fields.find("name").is_some() => {
                let what = format!("this looks like an {KIND}, and says no kind");
                let advice = format!("write `apiVersion: {API_VERSION}` and `kind: {KIND}` above it");
                self.find(Severity::Problem, "service-kind", document.at, what, advice);
            }
            _ => return false,
        }
        if kind.is_some() {
            let version = fields.find("apiVersion");
            if version.and_then(|version| version.text().ok()) != Some(API_VERSION) {
                let at = version.map_or(document.at, |version| version.at);
                let what = format!("the apiVersion of an {KIND} is {API_VERSION}, and not this");
                let advice = format!("write `apiVersion: {API_VERSION}`");
                self.find(Severity::Problem, "service-api-version", at, what, advice);
            }
        }
        self.service(document, fields, &["apiVersion", "kind"]);
        true
    }

    /// The body of such a document, or of an item of talhelper's `extensionServices`.
    pub(super) fn service(&mut self, node: &Node<'_>, fields: &Fields<'_, '_>, more: &[&str]) {
        for field in fields.iter().filter(|f| !FIELDS.contains(&f.name) && !more.contains(&f.name)) {
            let instead = match field.name {
                "files" => "they are called configFiles, each with content and mountPath",
                "metadata" => "the name stands at the top: `name: NAME`",
                _ => "remove it: the environment and configFiles are all that a service gets",
            };
            let what = format!("an {KIND} has no field {}: Talos refuses the document", field.name);
            self.find(Severity::Problem, "service-field", field.key.at, what, instead);
        }
        let (environment, files) = (fields.find("environment"), fields.find("configFiles"));
        if environment.is_none() && files.is_none() {
            let what = "neither environment nor configFiles: Talos refuses a document without both";
            self.find(Severity::Problem, "service-empty", node.at, what, "add what the service needs");
        }
        for file in files.and_then(|files| files.list().ok()).unwrap_or_default() {
            let Ok(file_fields) = file.fields(Merge::Apply) else { continue };
            for needed in ["content", "mountPath"] {
                if file_fields.find(needed).is_none() {
                    let what = format!("one of the configFiles has no {needed}: Talos refuses the document");
                    self.find(Severity::Problem, "service-file", file.at, what, format!("add {needed}"));
                }
            }
        }
        let variables = environment.map(|node| self.environment(node)).unwrap_or_default();
        let Some((name_node, name)) = fields.find("name").and_then(|name| Some((name, name.text().ok()?))) else {
            let what = "no name: Talos refuses the document";
            return self.find(Severity::Problem, "service-name-missing", node.at, what, "add `name: NAME`");
        };
        self.seen.services.insert(name.to_owned());
        self.name(name_node, name);
        if bare(name) == "tailscale" {
            self.tailscale(node, &variables);
        }
    }

    /// Whether the image has a service of this name.
    fn name(&mut self, node: &Node<'_>, name: &str) {
        let known = self.image.and_then(|image| image.services.as_ref());
        let is_known = known.is_none_or(|all| all.iter().any(|service| service == name));
        let other = bare(name);
        let meant = match known {
            Some(all) => all.iter().find(|service| **service == other).cloned(),
            None => (other != name).then_some(other),
        };
        match meant {
            Some(meant) if meant != name && known.is_some() => {
                let what =
                    format!("the service is called {meant}, and this document is for {name}: ext-{meant} ignores it");
                self.find(Severity::Problem, "service-name", node.at, what, format!("write `name: {meant}`"));
            }
            Some(meant) if meant != name => {
                let what = format!(
                    "the name is {name}: services are named in lower case, without `ext-` and without who makes them"
                );
                let advice = format!("write `name: {meant}`, unless a service has that very name");
                self.find(Severity::Warning, "service-name", node.at, what, advice);
            }
            _ if is_known => {}
            _ => {
                let list = known.filter(|all| !all.is_empty()).map_or("none".to_owned(), |all| all.join(", "));
                let what = format!("the image has no extension service {name} (its services: {list})");
                let advice = "add the extension to the schematic of the image, or remove the document";
                self.find(Severity::Problem, "service-unknown", node.at, what, advice);
            }
        }
    }

    /// Names and values of the environment, with their places.
    fn environment<'n>(&mut self, node: &'n Node<'_>) -> Vec<Variable<'n>> {
        let Ok(items) = node.list() else {
            let what = "the environment is a list of NAME=VALUE, and this is none";
            self.find(Severity::Problem, "environment-form", node.at, what, "write each as `- NAME=VALUE`");
            return Vec::new();
        };
        let mut variables = Vec::new();
        for item in items {
            match item.text().ok().and_then(|text| text.split_once('=')) {
                Some((name, value)) if !name.is_empty() && !name.contains(char::is_whitespace) => {
                    variables.push(Variable { at: item.at, name, value });
                }
                _ => {
                    let what = "an entry of the environment that is not NAME=VALUE";
                    self.find(Severity::Problem, "environment-form", item.at, what, "write it as `- NAME=VALUE`");
                }
            }
        }
        variables
    }

    /// Services of the image that wait, and no document is for them.
    pub(super) fn services_without_a_document(&mut self) {
        let Some(image) = self.image else { return };
        if image.services.is_none() {
            let what = "not every service of the image's extensions could be read: whether a document is for one of \
                        them is not known";
            self.seen.not_checked.push(what.into());
        }
        for service in &image.waiting {
            // One in other letters has its own finding.
            if self.seen.services.iter().any(|name| bare(name) == *service) {
                continue;
            }
            let (severity, but) = match self.seen.not_checked.is_empty() {
                true => (Severity::Problem, ""),
                false => (Severity::Warning, " among what was checked"),
            };
            self.seen.findings.push(Finding {
                severity,
                code: "service-waits",
                file: None,
                line: None,
                what: format!(
                    "ext-{service} waits for an {KIND}, and there is none for {service}{but}: it never starts"
                ),
                advice: "add this document, with the values that the service needs, and apply it before the \
                         reboot"
                    .into(),
                put: Some(service_document(service)),
            });
        }
    }
}

/// An entry of the environment.
pub(super) struct Variable<'n> {
    pub(super) at: crate::yaml::Place,
    pub(super) name: &'n str,
    pub(super) value: &'n str,
}

/// The document to start from, for the service `ext-NAME`. Talos takes it with at least one variable or one file; which of
/// them a service reads, its description does not say. Source of the format:
/// `pkg/machinery/config/types/runtime/extensions/service_config.go` of Talos.
#[must_use]
pub fn service_document(service: &str) -> String {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    // The name may come from an image: what YAML might take for something else is quoted.
    let is_plain = service.starts_with(|c: char| c.is_ascii_lowercase()) && service.chars().all(is_word);
    let is_plain = is_plain && !["false", "n", "no", "null", "off", "on", "true", "y", "yes"].contains(&service);
    let name = if is_plain { service.to_owned() } else { serde_json::Value::from(service).to_string() };
    let environment = match service {
        "tailscale" => "environment:\n  - TS_AUTHKEY=REPLACE-ME\n  - TS_ACCEPT_DNS=false\n",
        _ => "environment: # the extension's README names the variables\n  - NAME=VALUE\n",
    };
    format!(
        "apiVersion: {API_VERSION}\nkind: {KIND}\nname: {name}\n{environment}\
         # configFiles: # or files\n\
         #   - mountPath: /PATH\n\
         #     content: |\n\
         #       TEXT\n"
    )
}

/// The first item's name of the list form.
fn first_name(list: &Node<'_>) -> Option<String> {
    let name = |item: &Node<'_>| -> Result<Option<String>, Invalid> {
        item.fields(Merge::Apply)?.find("name").map(|name| name.text().map(str::to_owned)).transpose()
    };
    match &list.value {
        Value::List(items) => items.first().and_then(|item| name(item).ok()?),
        _ => name(list).ok()?,
    }
}

/// The name of a service without what people put before it: `ext-tailscale`, `siderolabs/tailscale`, `Tailscale`.
fn bare(name: &str) -> String {
    let name = name.trim().to_lowercase();
    let name = name.rsplit('/').next().unwrap_or_default();
    name.strip_prefix("ext-").unwrap_or(name).to_owned()
}

fn is_kind_in_other_letters(word: &str) -> bool {
    let word: String = word.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    ["extensionserviceconfig", "extensionserviceconfigs", "extensionservicesconfig", "extensionservice"]
        .contains(&word.as_str())
}
