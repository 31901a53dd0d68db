//! README's first command.

/// What a newcomer runs first. The demonstration judges itself; what is seen here is that it comes to its end.
#[test]
fn readme_1_the_demonstration_runs_to_its_end() {
    let ran = crate::cli::run(&["demo"]).code(0);
    assert!(ran.out.contains("Proven: ") && ran.out.contains("29 of 29 checks hold"), "{}", ran.out);
}
