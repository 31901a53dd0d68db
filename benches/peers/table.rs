//! The one table that is printed.

/// What a figure is held against.
#[derive(Clone, Copy)]
pub(super) enum Goal {
    /// It must not be larger.
    AtMost(f64),
    /// It must not be smaller.
    AtLeast(f64),
    /// None: it stands there for comparison.
    None,
}

/// One line of the table.
pub(super) struct Row {
    pub(super) what: String,
    pub(super) ours: String,
    pub(super) theirs: String,
    /// What is compared with the goal.
    pub(super) ratio: f64,
    pub(super) goal: Goal,
    /// Times depend on the machine and on what else it does; counts do not.
    pub(super) is_time: bool,
}

impl Row {
    pub(super) fn met(&self) -> bool {
        match self.goal {
            Goal::AtMost(limit) => self.ratio <= limit,
            Goal::AtLeast(limit) => self.ratio >= limit,
            Goal::None => true,
        }
    }
}

/// Prints the table in Markdown.
pub(super) fn print(rows: &[Row]) {
    println!("| what | bootsurgeon | held against | ratio | goal | |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for row in rows {
        let goal = match row.goal {
            Goal::AtMost(limit) => format!("≤ {limit}"),
            Goal::AtLeast(limit) => format!("≥ {limit}"),
            Goal::None => String::new(),
        };
        let verdict = match row.goal {
            Goal::None => "",
            _ if row.met() => "pass",
            _ => "MISSED",
        };
        println!("| {} | {} | {} | {:.3} | {goal} | {verdict} |", row.what, row.ours, row.theirs, row.ratio);
    }
}

/// Bytes for people.
pub(super) fn mb(bytes: f64) -> String {
    format!("{:.1} MB", bytes / 1e6)
}

/// Seconds for people.
pub(super) fn ms(seconds: f64) -> String {
    if seconds < 0.01 { format!("{:.1} ms", seconds * 1e3) } else { format!("{:.0} ms", seconds * 1e3) }
}
