//! A swap with a progress report of one's own: `cargo run --example swap_with_progress -- DISK.img IMAGE CERTIFICATE`.
//!
//! The example works on a copy of the disk image, and deletes it.

use bootsurgeon::command::{
    Change, DiskRequest, Event, ImageRequest, ImageSource, Swap, TrustRequest, Ui, VariablesChoice,
};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Prints a step when it begins, and every tenth of the way.
#[derive(Default)]
struct Progress {
    tenths: AtomicU64,
    cancelled: Arc<AtomicBool>,
}

impl Ui for Progress {
    fn event(&self, event: Event) {
        match event {
            Event::Step(step) => {
                self.tenths.store(0, Ordering::Relaxed);
                println!("{step}");
            }
            Event::Progress { done, total: Some(total) } if total > 0 => {
                let tenths = done * 10 / total;
                if self.tenths.fetch_max(tenths, Ordering::Relaxed) < tenths {
                    println!("  {tenths}0 %");
                }
            }
            Event::Warning(text) => println!("  warning: {text}"),
            // More kinds of events may come with later versions.
            _ => {}
        }
    }

    fn confirm(&self, question: &str) -> Option<bool> {
        println!("{question} Yes.");
        Some(true)
    }

    fn cancelled(&self) -> &Arc<AtomicBool> {
        // Set it from a signal handler: the swap ends at the next moment at which nothing has been changed.
        &self.cancelled
    }
}

fn run(disk: &str, image: &str, certificate: &str) -> bootsurgeon::Result<()> {
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("copy.img");
    std::fs::copy(disk, &copy)?;

    // The image will boot on another machine: this machine's EFI variables say nothing about it.
    let disk = DiskRequest { efivars: VariablesChoice::None, ..DiskRequest::new(copy) };
    let image = ImageSource::Named(ImageRequest::new(image));
    let trust = TrustRequest { cert: vec![certificate.into()], ..TrustRequest::default() };
    let report = Swap::new(disk, image, trust, Change::default()).run(&Progress::default())?;
    println!("{} is in place, SHA-256 {}", report.plan.target, report.sha256);
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [disk, image, certificate] = args.as_slice() else {
        eprintln!("which disk image, which image, and which signer's certificate?");
        return ExitCode::from(2);
    };
    match run(disk, image, certificate) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            e.advice().iter().for_each(|advice| eprintln!("{advice}"));
            ExitCode::from(e.kind().exit_code())
        }
    }
}
