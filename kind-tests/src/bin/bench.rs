//! `cargo xtask bench …`; see [`eagle_kind_tests::bench`].

#[expect(clippy::print_stderr, reason = "a command-line tool says what went wrong")]
fn main() -> std::process::ExitCode {
    match eagle_kind_tests::bench::run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
