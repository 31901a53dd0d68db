//! What tailscale's service needs, and the mistakes that people make with it. Source: the `tailscale` extension of
//! Sidero Labs, which runs tailscale's `containerboot`.

use super::services::Variable;
use super::{Checker, Severity};
use crate::yaml::Node;

/// Where the state is kept when nobody says otherwise, and where it lasts.
const STATE: &str = "/var/lib/tailscale";
/// Words in keys that stand for a key.
const STAND_INS: [&str; 7] = ["xxx", "your", "replace", "change", "example", "placeholder", "..."];

impl Checker<'_> {
    pub(super) fn tailscale(&mut self, node: &Node<'_>, variables: &[Variable<'_>]) {
        for variable in variables {
            if variable.value.trim().starts_with(['"', '\'']) || variable.value.trim().ends_with(['"', '\'']) {
                let what = format!("quotes inside the value of {}: they are part of it", variable.name);
                let advice = format!("leave them out, or put them around the whole: `- \"{}=…\"`", variable.name);
                self.find(Severity::Problem, "tailscale-quotes", variable.at, what, advice);
            }
        }
        let find = |names: &[&str]| variables.iter().rev().find(|v| names.contains(&v.name));
        let key = find(&["TS_AUTHKEY", "TS_AUTH_KEY"]);
        match key {
            Some(key) => self.key(key),
            None if find(&["TS_CLIENT_SECRET", "TS_ID_TOKEN"]).is_some() => {}
            None => self.find(
                Severity::Warning,
                "tailscale-authkey-missing",
                node.at,
                "no TS_AUTHKEY: a node that is not in the tailnet yet cannot join it",
                "add a reusable key (`- TS_AUTHKEY=…`), unless something puts it in before that is applied",
            ),
        }
        let arguments = find(&["TS_EXTRA_ARGS"]);
        let argument = |name: &str| arguments.filter(|v| v.value.split_whitespace().any(|word| word.starts_with(name)));
        let accepts = find(&["TS_ACCEPT_DNS"]).filter(|v| is_true(v.value));
        let refuses = arguments.is_some_and(|v| v.value.contains("--accept-dns=false"));
        if let Some(variable) = accepts.or_else(|| argument("--accept-dns").filter(|_| !refuses)) {
            self.find(
                Severity::Warning,
                "tailscale-accept-dns",
                variable.at,
                "tailscale is to manage the node's DNS, and Talos' root file system is immutable: it fails",
                "write `- TS_ACCEPT_DNS=false`, and name servers in machine.network.nameservers",
            );
        }
        let routes = find(&["TS_ROUTES"]).filter(|v| !v.value.is_empty());
        if let Some(variable) = routes.or_else(|| argument("--advertise-routes")) {
            self.find(
                Severity::Hint,
                "tailscale-routes",
                variable.at,
                "routes are advertised: nobody uses them before they are approved in tailscale's admin console",
                "approve them there, or by autoApprovers in the tailnet's policy",
            );
        }
        let state = find(&["TS_STATE_DIR"]).filter(|v| v.value != "/var" && !v.value.starts_with("/var/"));
        if let Some(variable) = state {
            self.find(
                Severity::Warning,
                "tailscale-state",
                variable.at,
                "the state is kept outside /var: it does not last, and with it the node's identity",
                format!("write `- TS_STATE_DIR={STATE}`, or leave it out: that is the default"),
            );
        }
    }

    /// The key's form alone: nothing of it is ever shown.
    fn key(&mut self, key: &Variable<'_>) {
        let name = key.name;
        let value = key.value.trim().trim_matches(['"', '\'']);
        let lower = value.to_lowercase();
        if value.is_empty() {
            let what = format!("{name} is empty");
            return self.find(Severity::Problem, "tailscale-authkey-missing", key.at, what, "put a reusable key there");
        }
        if is_template(value) {
            let what = format!(
                "{name} is a template (${{…}}, {{{{…}}}}, ENC[…]): Talos takes it as it is, and tailscale refuses it"
            );
            let advice = "have it filled in before the configuration is applied: talhelper takes it from talenv.yaml, \
                          `envsubst` from the environment, `sops -d` decrypts";
            self.find(Severity::Warning, "tailscale-authkey-template", key.at, what, advice);
        } else if STAND_INS.iter().any(|word| lower.contains(word)) {
            let what = format!("{name} holds words that stand for a key, and no key");
            return self.find(
                Severity::Problem,
                "tailscale-authkey-stand-in",
                key.at,
                what,
                "put a reusable key there",
            );
        }
        self.find(
            Severity::Hint,
            "tailscale-authkey-kind",
            key.at,
            format!("whether {name} is reusable, and when it expires, cannot be seen in it"),
            "look at Settings, Keys in tailscale's admin console: a one-time key serves one node, once",
        );
    }
}

fn is_template(value: &str) -> bool {
    value.contains("${")
        || value.contains("{{")
        || value.contains("$(")
        || value.starts_with(['$', '<'])
        || value.contains("ENC[")
}

/// As Go's `strconv.ParseBool`, in whatever case.
fn is_true(value: &str) -> bool {
    matches!(value.trim().trim_matches(['"', '\'']).to_ascii_lowercase().as_str(), "1" | "t" | "true")
}
