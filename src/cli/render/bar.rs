//! How full something is, as a bar.

/// Width of the bar that shows how full the ESP is.
const BAR: u64 = 32;

/// How full something is, to the nearest mark: next to nothing is an empty bar. Only what has no room left is full.
pub(super) fn bar(total: u64, free: u64) -> String {
    let (total, used, all) = (u128::from(total), u128::from(total.saturating_sub(free)), u128::from(BAR));
    let marks = if total == 0 { 0 } else { (2 * used * all + total) / (2 * total) };
    let marks = if free > 0 { marks.min(all - 1) } else { marks };
    format!("[{}]", (0..all).map(|i| if i < marks { '#' } else { '.' }).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn a_bar_is_empty_or_full_only_where_that_is_so() {
        let marks = |total, free| bar(total, free).matches('#').count();
        for (total, free, expected) in [
            (49_492_992, 49_178_214, 0), // 46.9 MiB of 47.2 MiB are free
            (1000, 1000, 0),
            (1000, 500, 16),
            (1000, 1, 31),
            (1000, 0, 32),
            (u64::MAX, u64::MAX / 2, 16),
            (0, 0, 0),
        ] {
            assert_eq!(marks(total, free), expected, "{free} of {total} are free");
        }
        assert_eq!(bar(1, 1).len(), 34);
    }
}
