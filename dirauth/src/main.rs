//! The directory authority's program: everything is in the library.

use std::process::ExitCode;

use onionring_dirauth::cli::{self, FAILED, Outcome};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into()).collect();
    match cli::run(&words) {
        Outcome::Done(code) => code,
        Outcome::Run(_) => {
            eprintln!("[err] this build of the program does not run yet; it has its other commands");
            ExitCode::from(FAILED)
        }
    }
}
