//! Clusters that follow each other, and sets of clusters.

use crate::sorting::Sort as _;
use serde::{Deserialize, Serialize};

/// Clusters that follow each other on the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first one.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl Run {
    /// The numbers of its clusters.
    pub fn clusters(self) -> impl DoubleEndedIterator<Item = u32> {
        self.first..self.first + self.count
    }
}

/// A set of clusters of one volume, a bit for each.
#[derive(Debug, Clone)]
pub(crate) struct ClusterMap(Vec<u64>);

impl ClusterMap {
    /// An empty one, for a table of so many clusters.
    pub(crate) fn new(clusters: u32) -> Self {
        // The first two entries of a table are no clusters.
        Self(vec![0; (clusters as usize + 2).div_ceil(64)])
    }

    pub(crate) fn contains(&self, cluster: u32) -> bool {
        self.0.get(cluster as usize / 64).is_some_and(|bits| bits >> (cluster % 64) & 1 == 1)
    }

    /// Says whether it was not there. Clusters that the volume does not have stay out.
    pub(crate) fn insert(&mut self, cluster: u32) -> bool {
        let is_new = !self.contains(cluster);
        if let Some(bits) = self.0.get_mut(cluster as usize / 64) {
            *bits |= 1 << (cluster % 64);
        }
        is_new
    }
}

/// A set of clusters, in ascending runs. In JSON: `1000+5 2+1`, each run by its distance from the end of the one before
/// and its length.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Clusters(Vec<Run>);

impl Clusters {
    /// From runs in any order.
    pub(crate) fn of(runs: impl IntoIterator<Item = Run>) -> Self {
        let mut runs: Vec<Run> = runs.into_iter().filter(|r| r.count > 0).collect();
        runs.put_in_order_by(|r| r.first);
        let mut merged: Vec<Run> = Vec::with_capacity(runs.len());
        for run in runs {
            match merged.last_mut() {
                Some(last) if run.first <= last.first + last.count => {
                    last.count = last.count.max(run.first + run.count - last.first);
                }
                _ => merged.push(run),
            }
        }
        Self(merged)
    }

    /// The runs of a chain, in its order.
    pub(crate) fn in_order(chain: &[u32]) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for cluster in chain {
            match runs.last_mut() {
                Some(run) if run.first + run.count == *cluster => run.count += 1,
                _ => runs.push(Run { first: *cluster, count: 1 }),
            }
        }
        runs
    }

    pub(crate) fn runs(&self) -> &[Run] {
        &self.0
    }

    /// How many clusters it has.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|r| u64::from(r.count)).sum()
    }

    /// Those that are not in `other`.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let mut rest = Vec::new();
        let mut others = other.0.iter().peekable();
        for run in &self.0 {
            let (mut first, end) = (run.first, run.first + run.count);
            while let Some(gap) = others.peek().filter(|gap| gap.first < end) {
                if gap.first > first {
                    rest.push(Run { first, count: gap.first - first });
                }
                first = first.max(gap.first + gap.count);
                if first >= end {
                    break;
                }
                others.next();
            }
            if first < end {
                rest.push(Run { first, count: end - first });
            }
        }
        Self(rest)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains(&self, cluster: u32) -> bool {
        let after = self.0.partition_point(|r| r.first <= cluster);
        self.0[..after].last().is_some_and(|r| cluster - r.first < r.count)
    }
}

impl From<Clusters> for String {
    fn from(clusters: Clusters) -> Self {
        let mut end = 0;
        let run = |r: &Run| {
            let text = format!("{}+{}", r.first - end, r.count);
            end = r.first + r.count;
            text
        };
        clusters.0.iter().map(run).collect::<Vec<_>>().join(" ")
    }
}

impl TryFrom<String> for Clusters {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut end = 0u32;
        let mut run = |word: &str| {
            let (gap, count) = word.split_once('+')?;
            let (first, count) = (end.checked_add(gap.parse().ok()?)?, count.parse().ok()?);
            end = first.checked_add(count)?;
            Some(Run { first, count })
        };
        let runs: Option<Vec<Run>> = text.split_whitespace().map(&mut run).collect();
        Ok(Self::of(runs.ok_or_else(|| format!("{text:?} is not a list of cluster runs"))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_left_of_a_set(
            ours in proptest::collection::vec((2u32..60, 0u32..9), 0..9),
            theirs in proptest::collection::vec((2u32..60, 0u32..9), 0..9),
        ) {
            let set = |runs: Vec<(u32, u32)>| Clusters::of(runs.into_iter().map(|(first, count)| Run { first, count }));
            let (ours, theirs) = (set(ours), set(theirs));
            let rest = ours.without(&theirs);
            for c in 0..80 {
                prop_assert_eq!(rest.contains(c), ours.contains(c) && !theirs.contains(c), "{}", c);
            }
            prop_assert_eq!(rest.count(), (0..80).filter(|c| rest.contains(*c)).count() as u64);
            prop_assert_eq!(Clusters::of(rest.runs().to_vec()), rest);
        }
    }

    #[test]
    fn a_bit_for_each_cluster() {
        let mut map = ClusterMap::new(100);
        let put = [2u32, 63, 64, 65, 101];
        assert!(put.iter().all(|c| map.insert(*c)));
        assert!(!put.iter().any(|c| map.insert(*c)));
        map.insert(u32::MAX);
        assert!((0..500).chain([u32::MAX]).all(|c| map.contains(c) == put.contains(&c)));
    }

    #[test]
    fn sets_of_clusters() {
        let run = |first, count| Run { first, count };
        let set = Clusters::of([run(10, 3), run(2, 1), run(13, 2)]);
        assert_eq!(String::from(set.clone()), "2+1 7+5");
        assert_eq!(Clusters::try_from("2+1 7+5".to_owned()), Ok(set.clone()));
        let inside: Vec<u32> = (0..20).filter(|c| set.contains(*c)).collect();
        assert_eq!(inside, [2, 10, 11, 12, 13, 14]);
        for bad in ["x", "1", "1+x", "4294967295+2", "-1+2"] {
            assert!(Clusters::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
