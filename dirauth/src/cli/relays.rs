//! `approve`, `reject`, `pending`, `list`: the administrator's decisions about relays, in a running authority or one that
//! will run.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use onionring_node::cli::{self, BAD_CONFIG, BAD_STATE, FLAGS, PrepareError, Quiet, failed, print};
use onionring_node::config::{Findings, Reader};
use onionring_node::lock::{self, DataLock, LockError};
use onionring_node::{atomic_file, config::Directories};
use onionring_proto::netdoc::text::{Nickname, format_time};
use onionring_proto::torrc::cmdline::{self, Argument};
use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;

use crate::approval::{ApprovedRouters, Decision, Pending, PendingRelay, RelayId};
use crate::files::{self, FileError};
use crate::uploads::{APPROVED, PENDING};

/// The commands.
pub const COMMANDS: [&str; 4] = ["approve", "reject", "pending", "list"];

/// Why a command fails. What was not said to be done was not.
#[derive(Debug, Error)]
enum RelaysError {
    #[error(
        "{0} needs to know which relays; give fingerprints, Ed25519 identities, or nicknames of relays that wait"
    )]
    NoRelays(String),
    #[error("{command} takes no relays; leave out {word}")]
    NotWanted { command: String, word: String },
    #[error(
        "'{0}' is no relay that waits, and neither a fingerprint of 40 hex digits nor an Ed25519 identity of 43 \
         characters; `onionring-dirauth pending` shows those that wait"
    )]
    Unknown(String),
    #[error("{count} relays that wait are called {name}; give the fingerprint of the one you mean")]
    Ambiguous { name: String, count: usize },
    #[error(transparent)]
    User(#[from] PrepareError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot write {}: {source}; check who owns its directory and the space on the disk", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "cannot tell process {pid} to read {APPROVED} again: {source}; send it SIGHUP as its user or as root"
    )]
    Signal { pid: i32, source: io::Error },
}

/// Obeys a command; `words` are those behind it.
pub fn run(command: &str, words: &[String]) -> ExitCode {
    let (names, options) = split(words);
    let mut problems = Vec::new();
    let line = cmdline::parse(&options, &FLAGS, &mut problems);
    if line.has("--help") {
        return print(super::HELP);
    }
    let sources = match cli::sources(line) {
        Ok(sources) => sources,
        Err(error) => return failed(&error, BAD_CONFIG),
    };
    let environment = cli::environment(&sources);
    let mut findings = Findings { problems, ..Findings::default() };
    let (settings, _) = sources.settings(&mut findings);
    let mut read = Reader { settings: &settings, environment: &environment, findings: &mut findings };
    let place = Place {
        directories: read.directories(),
        pid_file: read.path("PidFile"),
        user: settings.text("User").map(str::to_owned),
        strict: settings.flag("AuthDirListApprovedOnly"),
    };
    cli::report(&findings, Quiet::Hush);
    if !findings.problems.is_empty() {
        return ExitCode::from(BAD_CONFIG);
    }
    match obey(command, &names, &place) {
        Ok(text) => print(&text),
        Err(error @ (RelaysError::NoRelays(_) | RelaysError::NotWanted { .. })) => failed(&error, BAD_CONFIG),
        Err(error) => failed(&error, BAD_STATE),
    }
}

/// What of a torrc matters here.
struct Place {
    directories: Directories,
    pid_file: Option<PathBuf>,
    user: Option<String>,
    strict: bool,
}

/// The names of relays, and the flags and options with their values.
fn split(words: &[String]) -> (Vec<String>, Vec<String>) {
    let (mut names, mut options) = (Vec::new(), Vec::new());
    let mut words = words.iter().cloned();
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            names.push(word);
            continue;
        }
        let flag = FLAGS.iter().find(|flag| flag.name == word || flag.short == word);
        let argument = flag.map_or(Argument::Required, |flag| flag.argument);
        options.push(word);
        if argument == Argument::Required {
            options.extend(words.next());
        }
    }
    (names, options)
}

fn obey(command: &str, names: &[String], place: &Place) -> Result<String, RelaysError> {
    // What is written must be readable for the authority.
    cli::become_user(place.user.as_deref(), false)?;
    let data = &place.directories.data;
    let pending = read(&data.join(PENDING))?;
    let pending = Pending::read(&pending);
    let decides = command == "approve" || command == "reject";
    match names.first() {
        None if decides => return Err(RelaysError::NoRelays(command.to_owned())),
        Some(word) if !decides => {
            return Err(RelaysError::NotWanted { command: command.to_owned(), word: word.clone() });
        }
        _ => {}
    }
    if command == "pending" {
        return Ok(table(&["fingerprint", "nickname", "address", "since", "contact"], &waiting(&pending)));
    }
    let path = data.join(APPROVED);
    let (mut routers, damaged) = ApprovedRouters::read(&read(&path)?);
    damaged.iter().for_each(|line| eprintln!("[warn] {line}"));
    if command == "list" {
        return Ok(table(&["decision", "identity", "nickname"], &decisions(&routers)));
    }
    let relays = names.iter().map(|name| find(name, &pending)).collect::<Result<Vec<_>, _>>()?;
    let mut said = String::new();
    for relay in &relays {
        decide(&mut routers, command == "approve", relay);
        let ids: Vec<_> = relay.ids.iter().map(ToString::to_string).collect();
        let done = if command == "approve" { "approved" } else { "rejected" };
        // Writing to a String does not fail.
        let _ = writeln!(said, "{done}\t{}", ids.join("\t"));
    }
    write(&path, &routers)?;
    print(&said);
    if command == "approve" && !place.strict {
        eprintln!("[notice] AuthDirListApprovedOnly is 0: relays are listed without approval, too");
    }
    tell_authority(place)?;
    Ok(String::new())
}

/// A relay that is decided about.
#[derive(Debug, PartialEq, Eq)]
struct Relay {
    ids: Vec<RelayId>,
    nickname: Option<Nickname>,
}

impl Relay {
    fn waiting(relay: &PendingRelay) -> Relay {
        Relay { ids: relay.ids().to_vec(), nickname: Some(relay.nickname) }
    }
}

/// The relay that is meant: one that waits, by either identity or its name, with both identities; otherwise any, by its
/// identity.
fn find(name: &str, pending: &Pending) -> Result<Relay, RelaysError> {
    if let Ok(id) = name.trim_start_matches('$').parse::<RelayId>() {
        let waits = pending.list().into_iter().find(|relay| relay.ids().contains(&id));
        return Ok(waits.map_or(Relay { ids: vec![id], nickname: None }, Relay::waiting));
    }
    let called: Vec<_> = pending
        .list()
        .into_iter()
        .filter(|relay| relay.nickname.as_str().eq_ignore_ascii_case(name))
        .collect();
    match called.as_slice() {
        [relay] => Ok(Relay::waiting(relay)),
        [] => Err(RelaysError::Unknown(name.chars().take(64).collect())),
        _ => Err(RelaysError::Ambiguous { name: name.to_owned(), count: called.len() }),
    }
}

/// Decides about a relay under all its identities.
fn decide(routers: &mut ApprovedRouters, approve: bool, relay: &Relay) {
    for n in 0..relay.ids.len() {
        // The first time takes back what was decided under any of them.
        match approve {
            true => routers.approve(&relay.ids[n..], relay.nickname.as_ref()),
            false => routers.reject(&relay.ids[n..]),
        }
    }
}

fn waiting(pending: &Pending) -> Vec<Vec<String>> {
    let row = |relay: &PendingRelay| {
        vec![
            relay.rsa.to_string(),
            relay.nickname.to_string(),
            relay.ipv4.to_string(),
            format_time(relay.since),
            relay.contact.as_deref().unwrap_or("").to_owned(),
        ]
    };
    pending.list().into_iter().map(row).collect()
}

fn decisions(routers: &ApprovedRouters) -> Vec<Vec<String>> {
    let row = |(keyword, id, decision): (&str, RelayId, Decision)| {
        let (word, nickname) = match decision {
            Decision::Approve => ("approve".to_owned(), keyword),
            _ => (keyword.trim_start_matches('!').to_ascii_lowercase(), ""),
        };
        vec![word, id.to_string(), nickname.to_owned()]
    };
    routers.list().map(row).collect()
}

/// Rows for people with a head, in columns; for scripts without it, the fields separated by tabs.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    if !io::stdout().is_terminal() {
        return rows.iter().map(|row| row.join("\t") + "\n").collect();
    }
    let head: Vec<String> = head.iter().map(|&title| title.to_owned()).collect();
    let all: Vec<&Vec<String>> = [&head].into_iter().chain(rows).collect();
    let widest = |n: usize| all.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..head.len()).map(|n| widest(n).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in &all {
        let cells: Vec<_> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}", width = *width)).collect();
        out += cells.join("  ").trim_end();
        out.push('\n');
    }
    out
}

/// A file of the data directory; nothing if it is not there.
fn read(path: &Path) -> Result<String, FileError> {
    Ok(String::from_utf8_lossy(&files::read(path)?.unwrap_or_default()).into_owned())
}

/// Replaces the file, with the permissions that it has.
fn write(path: &Path, routers: &ApprovedRouters) -> Result<(), RelaysError> {
    let mode = path.metadata().map_or(0o600, |metadata| metadata.permissions().mode() & 0o777);
    let written = atomic_file::write(path, routers.write().as_bytes(), mode);
    written.map_err(|source| RelaysError::Write { path: path.to_owned(), source })
}

/// Lets a running authority read the file again.
fn tell_authority(place: &Place) -> Result<(), RelaysError> {
    let data = &place.directories.data;
    let Some(pid) = running(place).and_then(Pid::from_raw) else {
        eprintln!("[notice] no authority runs in {}: it reads {APPROVED} when it starts", data.display());
        return Ok(());
    };
    let number = pid.as_raw_nonzero().get();
    kill_process(pid, Signal::HUP)
        .map_err(|source| RelaysError::Signal { pid: number, source: source.into() })?;
    eprintln!("[notice] told the authority (process {number}) to read {APPROVED} again");
    Ok(())
}

/// The authority's process: who holds the lock of the data directory, or if that cannot be seen and somebody does, whom
/// the `PidFile` names.
fn running(place: &Place) -> Option<i32> {
    let data = &place.directories.data;
    lock::owner(data).or_else(|| {
        let pid = std::fs::read_to_string(place.pid_file.as_ref()?).ok()?.trim().parse().ok()?;
        matches!(DataLock::acquire(data), Err(LockError::Taken(_))).then_some(pid)
    })
}

#[cfg(test)]
mod tests;
