//! `new-identity`, `status`, `circuits`: one request to the running proxy.

use std::process::ExitCode;

use onionring_node::cli::{BAD_STATE, failed, print};

use super::command::Words;
use crate::control::{self, Request};

/// The request that a command makes.
pub fn request(command: &str) -> Option<Request> {
    Request::ALL.into_iter().find(|request| request.word() == command)
}

/// Makes it, and prints the answer.
pub fn run(request: Request, words: &[String]) -> ExitCode {
    let data = Words::read(words, &[]).and_then(|words| match words.about.first() {
        Some(word) => Err(words.wrong(&format!("{} takes no words; leave out {word}", request.word()))),
        None => words.data_directory(),
    });
    match data.map(|data| control::ask(&data, request)) {
        Ok(Ok(answer)) => print(&answer),
        Ok(Err(error)) => failed(&error, BAD_STATE),
        Err(code) => code,
    }
}
