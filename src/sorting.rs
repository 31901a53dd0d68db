//! Sorting, and sets, for lists that are sorted once. What the standard library sorts with is four kilobytes of program for
//! every type and order, and collecting a set sorts, too: a fortieth of the program. Here one kind of list is sorted, that
//! of places, and the items follow.

use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Sorts slices by way of their places. Equal items keep their order.
pub(crate) trait Sort<T> {
    /// As [`slice::sort_by`].
    fn put_in_order(&mut self, compare: impl FnMut(&T, &T) -> Ordering);

    /// As [`slice::sort_by_key`].
    fn put_in_order_by<K: Ord>(&mut self, key: impl Fn(&T) -> K);

    /// Moves to each place the item of the place that `from` names for it; each is named once.
    fn arrange(&mut self, from: Vec<usize>);
}

impl<T> Sort<T> for [T] {
    fn put_in_order(&mut self, mut compare: impl FnMut(&T, &T) -> Ordering) {
        self.arrange(places(self.len(), &mut |a, b| compare(&self[a], &self[b])));
    }

    fn put_in_order_by<K: Ord>(&mut self, key: impl Fn(&T) -> K) {
        self.put_in_order(|a, b| key(a).cmp(&key(b)));
    }

    fn arrange(&mut self, mut from: Vec<usize>) {
        // Each cycle of the permutation in turn.
        for start in 0..from.len() {
            let mut at = start;
            loop {
                let next = std::mem::replace(&mut from[at], at);
                if next == start || next == at {
                    break;
                }
                self.swap(at, next);
                at = next;
            }
        }
    }
}

/// From which place the item of each place comes.
fn places(count: usize, compare: &mut dyn FnMut(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    places.sort_by(|a, b| compare(*a, *b));
    places
}

/// A set of these.
pub(crate) fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    let mut set = BTreeSet::new();
    set.extend(items);
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lists_come_out_as_the_standard_librarys(items: Vec<(u8, String)>) {
            let (mut ours, mut theirs) = (items.clone(), items.clone());
            ours.put_in_order_by(|(number, _)| *number % 8);
            theirs.sort_by_key(|(number, _)| *number % 8);
            prop_assert_eq!(&ours, &theirs, "equal items keep their order");
            ours.put_in_order(|a, b| b.cmp(a));
            theirs.sort_by(|a, b| b.cmp(a));
            prop_assert_eq!(&ours, &theirs);
            prop_assert_eq!(set(items.clone()), items.into_iter().collect::<BTreeSet<_>>());
        }
    }
}
