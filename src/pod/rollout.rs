//! The last look before a pod of a job touches its node.
//!
//! A job's pods are brought to their nodes by the scheduler (see [`super::job`]). An API server that does not know a
//! field of that arrangement drops it without a word, and then any node of the job could get any pod. So the manifest
//! also tells each pod the list of nodes, and the program refuses to work when it is not on the one whose turn it is.

use crate::{Error, Result};

/// The node the pod runs on, by the downward API.
pub const NODE: &str = crate::container::NODE;
/// The nodes of the job in their order, with commas between.
pub const NODES: &str = "BOOTSURGEON_ROLLOUT_NODES";
/// The pod's place in that order, from 0. Kubernetes sets it in the containers of an indexed job.
pub const INDEX: &str = "JOB_COMPLETION_INDEX";

/// Refuses to go on in a pod of a job that is on another node than the one it is meant for. Outside of a job it has
/// nothing to say.
///
/// # Errors
/// [`crate::Kind::Unsafe`] when it is the wrong node, or cannot be told.
pub fn check() -> Result<()> {
    check_in(&|name| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned()))
}

fn check_in(variable: &dyn Fn(&str) -> Option<String>) -> Result<()> {
    let Some(nodes) = variable(NODES) else { return Ok(()) };
    let refuse = |why: String| {
        Err(Error::refused(why).with_esp_changed(false).advise(
            "delete the job and its pods, and make the manifest anew with `bootsurgeon pod job`; \
             the cluster has to be Kubernetes 1.31 or later",
        ))
    };
    let Some(node) = variable(NODE).filter(|n| !n.is_empty()) else {
        return refuse(format!(
            "this pod belongs to a job over several nodes, but {NODE} does not say which node it is on"
        ));
    };
    let index = variable(INDEX).unwrap_or_default();
    let wanted = index.parse::<usize>().ok().and_then(|i| nodes.split(',').nth(i));
    match wanted {
        Some(wanted) if wanted == node => Ok(()),
        Some(wanted) => refuse(format!("pod {index} of the job is meant for node {wanted}, and it runs on {node}")),
        None => refuse(format!("this pod belongs to a job over the nodes {nodes}, but {INDEX} is {index:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_node_passes() {
        type Case<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>);
        let cases: &[Case<'_>] = &[
            (&[], None),
            (&[(NODE, "a")], None),
            (&[(NODE, "a"), (INDEX, "7")], None),
            (&[(NODE, "b"), (NODES, "a,b,c"), (INDEX, "1")], None),
            (&[(NODE, "a"), (NODES, "a"), (INDEX, "0")], None),
            (&[(NODE, "a"), (NODES, "a,b,c"), (INDEX, "1")], Some("meant for node b, and it runs on a")),
            (&[(NODE, "a"), (NODES, "aa,a"), (INDEX, "0")], Some("meant for node aa")),
            (&[(NODE, "d"), (NODES, "a,b,c"), (INDEX, "3")], Some("is \"3\"")),
            (&[(NODE, "a"), (NODES, "a,b,c")], Some("is \"\"")),
            (&[(NODE, "a"), (NODES, "a,b,c"), (INDEX, "-1")], Some("is \"-1\"")),
            (&[(NODE, "a"), (NODES, "a,b,c"), (INDEX, "99999999999999999999999")], Some("is \"9")),
            (&[(NODES, "a,b,c"), (INDEX, "0")], Some("does not say which node")),
            (&[(NODE, ""), (NODES, ",a"), (INDEX, "0")], Some("does not say which node")),
            (&[(NODE, "a"), (NODES, ""), (INDEX, "0")], Some("meant for node ")),
        ];
        for (set, wanted) in cases {
            let found = check_in(&|name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()));
            match (wanted, found) {
                (None, Ok(())) => {}
                (Some(words), Err(e)) => {
                    assert!(e.message().contains(words), "{set:?}: {e}");
                    assert_eq!((e.kind(), e.esp_changed()), (crate::Kind::Unsafe, Some(false)), "{set:?}");
                }
                (wanted, found) => panic!("{set:?}: wanted {wanted:?}, found {found:?}"),
            }
        }
    }
}
