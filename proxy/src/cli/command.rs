//! What all commands have in common: their words, and the torrc that tells them where the proxy is.

use std::path::PathBuf;
use std::process::ExitCode;

use onionring_node::cli::{self, BAD_CONFIG, FLAGS, Quiet, failed, print};
use onionring_node::config::{Findings, Reader, Sources};
use onionring_proto::torrc::Problem;
use onionring_proto::torrc::cmdline::{self, Argument, CommandLine, Flag};

/// A command line without the word for the command.
pub struct Words {
    /// Words that are neither flags nor options, nor belong to one.
    pub about: Vec<String>,
    /// Flags and options.
    pub line: CommandLine,
    problems: Vec<Problem>,
}

impl Words {
    /// Takes words apart; `own` are the command's flags besides those of the program. If the person asks for help, that is
    /// printed and all there is to do.
    pub fn read(words: &[String], own: &[Flag]) -> Result<Words, ExitCode> {
        let flags: Vec<Flag> = own.iter().chain(&FLAGS).copied().collect();
        let (mut about, mut rest) = (Vec::new(), Vec::new());
        let mut words = words.iter().cloned();
        while let Some(word) = words.next() {
            if !word.starts_with('-') {
                about.push(word);
                continue;
            }
            let flag = flags.iter().find(|flag| flag.name == word || flag.short == word);
            let has_value = match flag {
                Some(flag) => flag.argument == Argument::Required,
                None => !word.trim_start_matches('-').starts_with('/'),
            };
            rest.push(word);
            if has_value {
                rest.extend(words.next());
            }
        }
        let mut problems = Vec::new();
        let line = cmdline::parse(&rest, &flags, &mut problems);
        match line.has("--help") {
            true => Err(print(super::HELP)),
            false => Ok(Words { about, line, problems }),
        }
    }

    /// Where the configuration is.
    pub fn sources(&self) -> Result<Sources, ExitCode> {
        cli::sources(self.line.clone()).map_err(|error| failed(&error, BAD_CONFIG))
    }

    /// The data directory that torrc names. Whatever else is in torrc may be wrong here.
    pub fn data_directory(&self) -> Result<PathBuf, ExitCode> {
        let sources = self.sources()?;
        let environment = cli::environment(&sources);
        let mut findings = Findings { problems: self.problems.clone(), ..Findings::default() };
        let (settings, _) = sources.settings(&mut findings);
        let mut reader = Reader { settings: &settings, environment: &environment, findings: &mut findings };
        let data = reader.directories().data;
        cli::report(&findings, Quiet::Hush);
        if findings.problems.is_empty() { Ok(data) } else { Err(ExitCode::from(BAD_CONFIG)) }
    }

    /// Says that the words are wrong.
    pub fn wrong(&self, text: &str) -> ExitCode {
        eprintln!("[err] {text}");
        ExitCode::from(BAD_CONFIG)
    }

    /// What is wrong with the words themselves.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}
