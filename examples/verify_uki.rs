//! Whether a UKI can be trusted: `cargo run --example verify_uki -- IMAGE CERTIFICATE`. `IMAGE` is a UKI, or an ISO or
//! disk image that holds one; `CERTIFICATE` is that of a signer to trust.

use bootsurgeon::command::{FileHash, ImageRequest, Silent, TrustRequest, Verify};
use bootsurgeon::verify::{CheckStatus, Verdict};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [image, certificate] = args.as_slice() else {
        eprintln!("which image, and which signer's certificate?");
        return ExitCode::from(2);
    };
    let request = Verify {
        image: ImageRequest::new(image),
        trust: TrustRequest { cert: vec![certificate.into()], ..TrustRequest::default() },
        efivars: None,
        installed: None,
        hash: FileHash::Unwanted,
    };
    match request.run(&Silent::default()) {
        Ok(report) => {
            for check in report.checks.iter().filter(|c| c.status != CheckStatus::Skip) {
                println!("{:?} {}: {}", check.status, check.id.name(), check.detail);
            }
            if report.verdict == Verdict::Accept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(e.kind().exit_code())
        }
    }
}
