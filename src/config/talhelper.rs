//! talhelper's `talconfig.yaml`, from which it makes the machine configurations.

use super::{Checker, Severity};
use crate::yaml::{Fields, Merge, Node, Value};

/// What only such a file has at its top.
pub(super) const KEYS: [&str; 8] =
    ["clusterName", "nodes", "controlPlane", "worker", "talosImageURL", "talosVersion", "extensionServices", "patches"];

impl Checker<'_> {
    pub(super) fn talconfig(&mut self, fields: &Fields<'_, '_>) {
        if let Some(version) = fields.find("talosVersion") {
            self.talos_version(version);
        }
        self.node(fields);
        let nodes = fields.find("nodes").and_then(|nodes| nodes.list().ok()).unwrap_or_default();
        let groups = ["controlPlane", "worker"].into_iter().filter_map(|name| fields.find(name));
        for node in nodes.iter().chain(groups) {
            match node.fields(Merge::Apply) {
                Ok(fields) => self.node(&fields),
                Err(invalid) => {
                    self.find(Severity::Problem, "not-a-mapping", invalid.at, invalid.what, "correct it");
                }
            }
        }
    }

    /// What a node has, a group of nodes, and the file itself for all of them.
    fn node(&mut self, fields: &Fields<'_, '_>) {
        if let Some(url) = fields.find("talosImageURL") {
            self.image_url(url);
        }
        if let Some(schematic) = fields.find("schematic") {
            self.not_checked(schematic.at, "a schematic that talhelper has the factory make an ID of");
        }
        for service in fields.find("extensionServices").and_then(|list| list.list().ok()).unwrap_or_default() {
            if let Ok(fields) = service.fields(Merge::Apply) {
                self.service(service, &fields, &[]);
            }
        }
        for patch in fields.find("patches").and_then(|list| list.list().ok()).unwrap_or_default() {
            self.patch(patch);
        }
    }

    /// A patch: `@FILE`, or YAML as text.
    fn patch(&mut self, patch: &Node<'_>) {
        let Value::Scalar { text, literal, .. } = &patch.value else { return };
        if let Some(file) = text.trim().strip_prefix('@') {
            return self.not_checked(patch.at, &format!("the patch {file} (unless it is among the files given)"));
        }
        let outside = (self.lines_before, self.only_line);
        if *literal {
            // A block stands where its first line that is not empty does.
            let empty = text.bytes().take_while(|b| *b == b'\n').count();
            self.lines_before += (patch.at.line - 1).saturating_sub(empty);
        } else {
            // Its lines are not those of the file: `"machine:\n  type: worker"`.
            self.only_line = Some(self.line(patch.at));
        }
        self.text(text);
        (self.lines_before, self.only_line) = outside;
    }
}
