//! The machine configuration, whole or as a patch.

use super::{Checker, Severity, below};
use crate::yaml::{Fields, Node, Value};

impl Checker<'_> {
    /// A document with `machine:` or `cluster:`.
    pub(super) fn machine_configuration(&mut self, fields: &Fields<'_, '_>) {
        if let Some(image) = below(fields, &["machine", "install", "image"]) {
            self.install_image(image);
        } else if let Some(install) = below(fields, &["machine", "install"])
            && below(fields, &["machine", "type"]).is_some()
        {
            self.no_install_image(install);
        }
        for path in [
            &["machine", "kubelet", "nodeIP", "validSubnets"][..],
            &["cluster", "etcd", "advertisedSubnets"],
            &["cluster", "etcd", "listenSubnets"],
        ] {
            if let Some(subnets) = below(fields, path) {
                self.subnets(subnets, &path.join("."));
            }
        }
    }

    /// A piece of one without `machine:` or `cluster:` around it.
    pub(super) fn fragment(&mut self, fields: &Fields<'_, '_>) {
        for path in
            [&["kubelet", "nodeIP", "validSubnets"][..], &["etcd", "advertisedSubnets"], &["etcd", "listenSubnets"]]
        {
            if let Some(subnets) = below(fields, path) {
                self.subnets(subnets, &path.join("."));
            }
        }
    }

    fn subnets(&mut self, subnets: &Node<'_>, path: &str) {
        let Value::List(items) = &subnets.value else { return };
        for item in items.iter().filter(|item| item.text().is_ok_and(is_of_tailscale)) {
            let what = format!(
                "{path} is inside 100.64.0.0/10, tailscale's addresses: all traffic between nodes goes through the \
                 tailnet, and the node has no address before tailscale is up"
            );
            let advice = "name the subnet of the nodes' own network, unless that is what is wanted";
            self.find(Severity::Hint, "node-address-in-tailnet", item.at, what, advice);
        }
    }
}

/// Whether a subnet lies inside 100.64.0.0/10. One with `!` before it is left out.
fn is_of_tailscale(subnet: &str) -> bool {
    let Some((address, bits)) = subnet.split_once('/') else { return false };
    let Ok(address) = address.parse::<std::net::Ipv4Addr>() else { return false };
    let [first, second, ..] = address.octets();
    bits.parse::<u8>().is_ok_and(|bits| (10..=32).contains(&bits)) && first == 100 && second & 0xC0 == 64
}
