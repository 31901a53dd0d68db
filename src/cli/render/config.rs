//! `config check` for people.

use super::{Page, Paint, Render};
use crate::command::ConfigCheckReport;
use crate::config::{Finding, Fit, Severity};
use crate::units::count;
use std::fmt;

impl Render for ConfigCheckReport {
    fn text(&self, f: &mut Page, p: Paint) -> fmt::Result {
        for finding in &self.config.findings {
            finding_text(f, p, finding)?;
        }
        for what in &self.config.not_checked {
            f.wrapped(format_args!("not checked  "), what)?;
        }
        let of = |severity| self.config.findings.iter().filter(|x| x.severity == severity).count();
        let image = match &self.image {
            Some(image) => format!("the image ({})", image.version.as_deref().unwrap_or("no version")),
            None => "any image; --image IMAGE holds it against one".to_owned(),
        };
        let counts = format!(
            "{}, {}, {} in {}",
            count(of(Severity::Problem), "problem"),
            count(of(Severity::Warning), "warning"),
            count(of(Severity::Hint), "hint"),
            count(self.config.documents, "document"),
        );
        match self.config.verdict {
            Fit::Fits => {
                writeln!(f, "{} nothing was found that would not work with {image}: {counts}", p.good("fits:"))
            }
            Fit::DoesNotFit => writeln!(f, "{} {counts}, held against {image}", p.bad("does not fit:")),
        }
    }
}

fn finding_text(f: &mut Page, p: Paint, finding: &Finding) -> fmt::Result {
    let word = match finding.severity {
        Severity::Problem => p.bad("problem"),
        Severity::Warning => p.warn("warning"),
        Severity::Hint => p.faint("hint"),
    };
    let text = format!("{}{}", finding.place_and_colon(), finding.what);
    f.wrapped(format_args!("{word}  "), &text)?;
    f.wrapped(format_args!("    "), &finding.advice)?;
    match &finding.put {
        Some(put) => put.lines().try_for_each(|line| writeln!(f, "        {line}")),
        None => Ok(()),
    }
}
