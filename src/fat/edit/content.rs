//! What a directory entry points at, and when that was written.

use super::super::dir::Entry;

/// A point in time as FAT stores it: seconds since 1970 UTC, from 1980 to 2107.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The date and the time field.
    fn fields(self) -> (u16, u16) {
        // Days since 1970 to a civil date: years are counted from March, so that the leap day is the last of its year.
        const MIN: u64 = 315_532_800; // 1980-01-01
        const MAX: u64 = 4_354_819_198; // 2107-12-31 23:59:58
        let t = self.0.clamp(MIN, MAX);
        let (days, second) = (t / 86_400, t % 86_400);
        let z = days + 719_468;
        let era = z / 146_097;
        let day_of_era = z % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let m = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * m + 2) / 5 + 1;
        let month = if m < 10 { m + 3 } else { m - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        let date = ((year - 1980) << 9 | month << 5 | day) as u16;
        let time = (second / 3600 << 11 | second / 60 % 60 << 5 | second % 60 / 2) as u16;
        (date, time)
    }
}

/// What an entry points at and when that was written: bytes 13 to 31 of a short entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content(pub(crate) [u8; 19]);

impl Content {
    /// A file of `bytes` bytes that begins at `first_cluster`.
    #[must_use]
    pub fn new(first_cluster: u32, bytes: u32, stamp: Stamp) -> Self {
        let (date, time) = stamp.fields();
        let mut c = [0; 19];
        c[1..3].copy_from_slice(&time.to_le_bytes());
        c[3..5].copy_from_slice(&date.to_le_bytes());
        c[5..7].copy_from_slice(&date.to_le_bytes());
        c[7..9].copy_from_slice(&((first_cluster >> 16) as u16).to_le_bytes());
        c[9..11].copy_from_slice(&time.to_le_bytes());
        c[11..13].copy_from_slice(&date.to_le_bytes());
        c[13..15].copy_from_slice(&(first_cluster as u16).to_le_bytes());
        c[15..19].copy_from_slice(&bytes.to_le_bytes());
        Self(c)
    }

    /// What an existing entry points at.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        let mut c = [0; 19];
        c.copy_from_slice(&entry.raw[13..32]);
        Self(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps() {
        for (t, date, time) in [
            (0, (0, 1, 1), (0, 0, 0)),
            (1_771_000_000, (46, 2, 13), (16, 26, 40)),
            (951_782_399, (20, 2, 28), (23, 59, 58)),
            (951_782_400, (20, 2, 29), (0, 0, 0)),
            (u64::MAX, (127, 12, 31), (23, 59, 58)),
        ] {
            let (d, t2) = Stamp(t).fields();
            assert_eq!((d >> 9, d >> 5 & 15, d & 31), date, "{t}");
            assert_eq!((t2 >> 11, t2 >> 5 & 63, (t2 & 31) * 2), time, "{t}");
        }
    }
}
