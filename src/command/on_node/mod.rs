//! Commands on nodes of a cluster, from a desk: through the user's own `kubectl` and `talosctl`, which know the way there.

mod background;
mod input;
mod kubectl;
mod node;
mod pod_state;
mod rollout;
mod run;
mod session;
mod talosctl;
mod tool;

pub use input::{DeskImage, PushSelf};
pub use kubectl::Cluster;
pub use rollout::{Expected, ExpectedExtension, NodeReport, Outcome, Rollout, RolloutReport, Step, SwapInPods, Way};
pub use run::{PodEnd, PodRun, Printed};
