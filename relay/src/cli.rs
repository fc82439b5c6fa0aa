//! The command line, as C tor has it.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use onionring_node::keys::{
    KeyError, KeyStore, RelayKeys, ed25519_fingerprint, rsa_fingerprint, write_fingerprints,
};
use onionring_node::lock::{DataLock, LockError};
use onionring_node::private_dir::{self, PrivateDirError};
use onionring_node::user::{User, UserError};
use onionring_proto::link::PeerIdentity;
use onionring_proto::time::Unix;
use onionring_proto::torrc::cmdline::{self, Argument, CommandLine, Flag};
use onionring_proto::torrc::{Problem, options};
use rand::rngs::SysRng;
use rand_core::UnwrapErr;
use thiserror::Error;

use crate::config::{Config, Environment, Findings, Loaded, Sources, Torrc};
use crate::process::PidFileError;

/// Where C tor's packages put the configuration.
const TORRC: &str = "/etc/tor/torrc";
/// Where they would put the defaults.
const DEFAULTS: &str = "/etc/tor/torrc-defaults";

/// Exit code: the configuration or the command line is wrong.
const BAD_CONFIG: u8 = 1;
/// Exit code: keys, directories or the change of user failed.
pub const BAD_STATE: u8 = 2;
/// Exit code: the system lacks something, or the relay failed later.
pub const FAILED: u8 = 3;

const FLAGS: &[Flag] = &[
    flag("--torrc-file", "-f", Argument::Required),
    flag("--defaults-torrc", "", Argument::Required),
    flag("--ignore-missing-torrc", "", Argument::None),
    flag("--allow-missing-torrc", "", Argument::None),
    flag("--allow-unsupported", "", Argument::None),
    flag("--list-fingerprint", "", Argument::Optional),
    flag("--verify-config", "", Argument::None),
    flag("--dump-config", "", Argument::Optional),
    flag("--list-torrc-options", "", Argument::None),
    flag("--quiet", "", Argument::None),
    flag("--hush", "", Argument::None),
    flag("--version", "", Argument::None),
    flag("--help", "-h", Argument::None),
];

const fn flag(name: &'static str, short: &'static str, argument: Argument) -> Flag {
    Flag { name, short, argument }
}

const HELP: &str = "\
A thread-per-core onion-routing relay on io_uring.

usage: onionring-relay [-f TORRC] [FLAGS] [--Option value]...

Configuration is read from the file of defaults, then the torrc, then the command line; what comes later counts more.
Any torrc option can stand on the command line: --ORPort 9001. With a plus, --+ORPort 9002, it adds to the lines of the
file instead of replacing them; with a slash, --/ORPort, it removes them.

  -f, --torrc-file FILE    configuration; - is standard input (default /etc/tor/torrc, then ~/.torrc)
  --defaults-torrc FILE    read this before it, if it exists (default /etc/tor/torrc-defaults)
  --ignore-missing-torrc   go on without a torrc if FILE does not exist
  --allow-missing-torrc    the same
  --allow-unsupported      ignore options that are not supported, with a warning, instead of refusing to start

instead of running the relay:
  --verify-config          check the configuration, and exit
  --dump-config KIND       print it and exit: short (what differs from the defaults), full, or non-builtin (as short)
  --list-fingerprint [KEY] print the fingerprint, making the keys if there are none, and exit; KEY is rsa or ed25519
  --list-torrc-options     print the names of all options, and exit
  --version                print the version, and exit
  -h, --help               print this, and exit

  --hush                   until the log is set up, and without a Log line, print warnings and errors only
  --quiet                  the same, print errors only

signals: TERM and INT finish what is under way for up to ShutdownWaitLength and exit, at once when they come again;
HUP reads the configuration again; USR1 writes a heartbeat to the log; USR2 logs everything until the next HUP.

exit codes: 0 when all went well or the relay was told to stop, 1 when the command line or the configuration is wrong, 2
when keys, directories or the change of user fail, 3 when the system lacks something or the relay fails later.
";

/// How much is printed before the log is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quiet {
    /// Everything.
    No,
    /// Warnings and errors.
    Hush,
    /// Errors.
    Quiet,
}

/// What is left to do after the command line has been obeyed.
pub enum Outcome {
    /// Nothing: exit.
    Done(ExitCode),
    /// Run the relay.
    Run(Box<Start>),
}

/// All that the relay needs to start.
pub struct Start {
    /// The configuration.
    pub config: Config,
    /// What it was made of, to compare with after a reload.
    pub loaded: Loaded,
    /// Where it came from, to load it again.
    pub sources: Sources,
    /// What it depends on.
    pub environment: Environment,
    /// How much to print where no `Log` line says otherwise.
    pub quiet: Quiet,
}

/// Why the relay could not be prepared.
#[derive(Debug, Error)]
pub enum PrepareError {
    /// The user.
    #[error(transparent)]
    User(#[from] UserError),
    /// A directory.
    #[error(transparent)]
    Directory(#[from] PrivateDirError),
    /// The lock.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The file for the number of the process.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// A name for a key that is none.
    #[error("--list-fingerprint {0}: no such key; write rsa or ed25519")]
    NoSuchKey(String),
    /// The relay that holds the data directory has not made its keys yet.
    #[error("another process is making the keys in {}; try again", .0.display())]
    KeysInTheMaking(PathBuf),
}

/// Reads the command line and the configuration, and does all but running the relay.
pub fn run(words: &[String]) -> Outcome {
    let mut problems = Vec::new();
    let line = cmdline::parse(words, FLAGS, &mut problems);
    let quiet = match () {
        () if line.has("--quiet") || line.has("--dump-config") => Quiet::Quiet,
        () if line.has("--hush") => Quiet::Hush,
        () => Quiet::No,
    };
    if let Some(text) = immediate(&line) {
        return Outcome::Done(print(&text));
    }
    if !problems.is_empty() {
        report(&Findings { problems, ..Findings::default() }, quiet);
        return Outcome::Done(ExitCode::from(BAD_CONFIG));
    }
    let sources = match sources(line.clone()) {
        Ok(sources) => sources,
        Err(error) => {
            eprintln!("[err] cannot read the torrc from standard input: {error}");
            return Outcome::Done(ExitCode::from(BAD_CONFIG));
        }
    };
    let environment = environment(&sources);
    let mut loaded = sources.load(&environment);
    let needs_network = !line.has("--dump-config") && !line.has("--list-fingerprint");
    if needs_network && loaded.config.as_ref().is_some_and(|config| config.authorities.is_empty()) {
        loaded.findings.problems.push(no_authorities());
    }
    report(&loaded.findings, quiet);
    let config = match loaded.config.take().filter(|_| loaded.findings.problems.is_empty()) {
        Some(config) => config,
        None => return Outcome::Done(ExitCode::from(BAD_CONFIG)),
    };

    if let Some(kind) = line.flag("--dump-config") {
        return Outcome::Done(dump(&loaded, kind));
    }
    if line.has("--verify-config") {
        let text = if quiet == Quiet::No { "Configuration was valid\n" } else { "" };
        return Outcome::Done(print(text));
    }
    if let Some(key) = line.flag("--list-fingerprint") {
        return Outcome::Done(match list_fingerprint(&config, key) {
            Ok(text) => print(&text),
            Err(error) => failed(&error, BAD_STATE),
        });
    }
    Outcome::Run(Box::new(Start { config, loaded, sources, environment, quiet }))
}

/// Prints why the relay cannot start or go on, and gives the exit code.
pub fn failed(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("[err] {error}");
    ExitCode::from(code)
}

/// Becomes the configured user. Call it before any thread is started, and before everything that makes files.
pub fn become_user(config: &Config) -> Result<(), PrepareError> {
    if let Some(name) = &config.user {
        User::find(name)?.become_it(config.keep_bind_capabilities)?;
    }
    Ok(())
}

/// Makes and closes the relay's directories and locks the data directory for as long as the result lives.
pub fn take_directories(config: &Config) -> Result<DataLock, PrepareError> {
    ensure_directories(config)?;
    Ok(DataLock::acquire(&config.directories.data)?)
}

fn ensure_directories(config: &Config) -> Result<(), PrepareError> {
    let directories = &config.directories;
    for (path, group) in [
        (&directories.data, directories.data_group_readable),
        (&directories.cache, directories.cache_group_readable),
    ] {
        if private_dir::ensure(path, group)? {
            eprintln!("[warn] closed directory {} to others", path.display());
        }
    }
    Ok(())
}

/// The answers that need no configuration.
fn immediate(line: &CommandLine) -> Option<String> {
    if line.has("--help") {
        Some(HELP.to_owned())
    } else if line.has("--version") {
        Some(format!("onionring-relay {}\n", env!("CARGO_PKG_VERSION")))
    } else if line.has("--list-torrc-options") {
        Some(options::all().iter().map(|option| format!("{}\n", option.name)).collect())
    } else {
        None
    }
}

fn print(text: &str) -> ExitCode {
    // A reader that has gone away is no failure of ours.
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

fn report(findings: &Findings, quiet: Quiet) {
    if quiet == Quiet::No {
        findings.notes.iter().for_each(|note| eprintln!("[notice] {note}"));
    }
    if quiet <= Quiet::Hush {
        findings.warnings.iter().for_each(|note| eprintln!("[warn] {note}"));
    }
    findings.problems.iter().for_each(|problem| eprintln!("[err] {problem}"));
}

/// What is wrong when no authority is configured.
fn no_authorities() -> Problem {
    Problem::general(
        "DirAuthority",
        "there is none, and none is built in: joining a network is the operator's choice",
        "add one line for each of the network's directory authorities, e.g. \"DirAuthority NAME orport=PORT v3ident=40HEX \
         IP:DIRPORT 40HEX\"",
    )
}

fn sources(line: CommandLine) -> io::Result<Sources> {
    let optional = line.has("--ignore-missing-torrc") || line.has("--allow-missing-torrc");
    let torrc = match line.flag("--torrc-file") {
        Some("-") => Torrc::from_stdin()?,
        Some(path) if optional => Torrc::Optional(path.into()),
        Some(path) => Torrc::File(path.into()),
        None => Torrc::Optional(default_torrc()),
    };
    let defaults = PathBuf::from(line.flag("--defaults-torrc").unwrap_or(DEFAULTS));
    let allow_unsupported = line.has("--allow-unsupported");
    Ok(Sources { defaults: Some(defaults), torrc, command_line: line.items, allow_unsupported })
}

fn default_torrc() -> PathBuf {
    let system = PathBuf::from(TORRC);
    let own = std::env::home_dir().map(|home| home.join(".torrc"));
    own.filter(|own| !system.exists() && own.exists()).unwrap_or(system)
}

/// What the configuration depends on. The home directory is that of the user the relay will run as, so `User` must be
/// known first.
fn environment(sources: &Sources) -> Environment {
    let memory = rustix::system::sysinfo();
    let memory = (memory.totalram as u64).checked_mul(memory.mem_unit.into());
    let without_home = sources.load(&Environment { home: None, memory });
    let user = without_home.settings.text("User").and_then(|name| User::find(name).ok());
    Environment { home: user.map(|user| user.home()).or_else(std::env::home_dir), memory }
}

fn dump(loaded: &Loaded, kind: &str) -> ExitCode {
    match kind {
        "short" | "non-builtin" => print(&loaded.settings.dump(Some(&loaded.baseline))),
        "full" => print(&loaded.settings.dump(None)),
        _ => {
            eprintln!("[err] --dump-config needs to know what to print; write short or full");
            ExitCode::from(BAD_CONFIG)
        }
    }
}

/// The relay's fingerprint as C tor prints it. Makes the keys if there are none and no relay runs in the directory.
fn list_fingerprint(config: &Config, key: &str) -> Result<String, PrepareError> {
    if !["", "rsa", "ed25519"].contains(&key) {
        return Err(PrepareError::NoSuchKey(key.to_owned()));
    }
    become_user(config)?;
    ensure_directories(config)?;
    let store = KeyStore::open(&config.directories.keys, config.keys)?.guarded_by(&config.directories.data);
    let identities = match DataLock::acquire(&config.directories.data) {
        Ok(_lock) => {
            let keys = make_keys(config, &store)?;
            PeerIdentity { rsa_id: keys.rsa_identity.public().rsa_id(), ed_id: keys.ed_identity }
        }
        Err(LockError::Taken(_)) => {
            let identities = store.identities()?;
            identities.ok_or_else(|| PrepareError::KeysInTheMaking(config.directories.keys.clone()))?
        }
        Err(error) => return Err(error.into()),
    };
    let fingerprint = if key == "ed25519" {
        ed25519_fingerprint(&identities.ed_id)
    } else {
        rsa_fingerprint(&identities.rsa_id)
    };
    Ok(format!("{} {fingerprint}\n", config.nickname))
}

/// Loads the relay's keys, makes those that are missing, and writes the fingerprint files.
pub fn make_keys(config: &Config, store: &KeyStore) -> Result<RelayKeys, KeyError> {
    let now = Unix(UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()));
    let keys = store.load_or_create(now, &mut UnwrapErr(SysRng))?;
    write_fingerprints(&config.directories.data, config.nickname.as_str(), &keys)?;
    Ok(keys)
}
