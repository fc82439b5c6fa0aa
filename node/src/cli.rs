//! The command line of a program that is configured by a torrc, as C tor has it, and what such a program does before it
//! runs.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use onionring_proto::link::PeerIdentity;
use onionring_proto::netdoc::text::Nickname;
use onionring_proto::time::Unix;
use onionring_proto::torrc::cmdline::{self, Argument, CommandLine, Flag};
use onionring_proto::torrc::{Problem, options};
use rand::rngs::SysRng;
use rand_core::UnwrapErr;
use thiserror::Error;

use crate::config::{Configuration, Directories, Environment, Findings, Loaded, Sources, Torrc};
use crate::keys::{
    KeyError, KeyOptions, KeyStore, RelayKeys, ed25519_fingerprint, rsa_fingerprint, write_fingerprints,
};
use crate::lock::{DataLock, LockError};
use crate::private_dir::{self, PrivateDirError};
use crate::process::PidFileError;
use crate::user::{User, UserError};

/// Where C tor's packages put the configuration.
const TORRC: &str = "/etc/tor/torrc";
/// Where they would put the defaults.
const DEFAULTS: &str = "/etc/tor/torrc-defaults";

/// Exit code: the configuration or the command line is wrong.
pub const BAD_CONFIG: u8 = 1;
/// Exit code: keys, directories or the change of user failed.
pub const BAD_STATE: u8 = 2;
/// Exit code: the system lacks something, or the program failed later.
pub const FAILED: u8 = 3;

/// Prints the fingerprint of a relay, and exits; a program that has no relay's keys leaves it out.
pub const LIST_FINGERPRINT: Flag = flag("--list-fingerprint", "", Argument::Optional);

/// The flags of every program, by which [`read`] goes.
pub const FLAGS: [Flag; 12] = [
    flag("--torrc-file", "-f", Argument::Required),
    flag("--defaults-torrc", "", Argument::Required),
    flag("--ignore-missing-torrc", "", Argument::None),
    flag("--allow-missing-torrc", "", Argument::None),
    flag("--allow-unsupported", "", Argument::None),
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

/// What a program says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The text of `--help`.
    pub help: &'static str,
    /// Flags besides [`FLAGS`]. With one of them it does something that needs no network.
    pub flags: &'static [Flag],
}

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
pub enum Outcome<T> {
    /// Nothing: exit.
    Done(ExitCode),
    /// Go on with this.
    Run(T),
}

/// All that a program needs to start.
pub struct Start<C> {
    /// The configuration.
    pub config: C,
    /// What it was made of, to compare with after a reload.
    pub loaded: Loaded<C>,
    /// Where it came from, to load it again.
    pub sources: Sources,
    /// What it depends on.
    pub environment: Environment,
    /// How much to print where no `Log` line says otherwise.
    pub quiet: Quiet,
}

/// Why a program could not be prepared.
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

/// Reads the command line and the configuration, says what there is to say about them, and obeys the flags that all
/// programs have. What is left are the program's own flags, and to run it.
pub fn read<C: Configuration>(program: &Program, words: &[String]) -> Outcome<(CommandLine, Start<C>)> {
    let mut problems = Vec::new();
    let flags: Vec<Flag> = FLAGS.iter().chain(program.flags).copied().collect();
    let line = cmdline::parse(words, &flags, &mut problems);
    let quiet = match () {
        () if line.has("--quiet") || line.has("--dump-config") => Quiet::Quiet,
        () if line.has("--hush") => Quiet::Hush,
        () => Quiet::No,
    };
    if let Some(text) = immediate(program, &line) {
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
    let mut loaded: Loaded<C> = sources.load(&environment);
    let needs_network = !line.has("--dump-config") && !program.flags.iter().any(|flag| line.has(flag.name));
    if needs_network && loaded.config.as_ref().is_some_and(|config| config.authorities().is_empty()) {
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
    Outcome::Run((line, Start { config, loaded, sources, environment, quiet }))
}

/// Prints why the program cannot start or go on, and gives the exit code.
pub fn failed(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("[err] {error}");
    ExitCode::from(code)
}

/// Prints to standard output.
pub fn print(text: &str) -> ExitCode {
    // A reader that has gone away is no failure of ours.
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

/// Becomes the configured user. Call it before any thread is started, and before everything that makes files. With
/// `keep_bind`, ports below 1024 can still be opened.
pub fn become_user(user: Option<&str>, keep_bind: bool) -> Result<(), PrepareError> {
    if let Some(name) = user {
        User::find(name)?.become_it(keep_bind)?;
    }
    Ok(())
}

/// Makes and closes the program's directories and locks the data directory for as long as the result lives.
pub fn take_directories(directories: &Directories) -> Result<DataLock, PrepareError> {
    ensure_directories(directories)?;
    Ok(DataLock::acquire(&directories.data)?)
}

fn ensure_directories(directories: &Directories) -> Result<(), PrepareError> {
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

/// A relay's fingerprint as C tor prints it; `key` is rsa, ed25519 or empty. Makes the keys if there are none and no relay
/// runs in the directory.
pub fn list_fingerprint(
    key: &str,
    nickname: &Nickname,
    directories: &Directories,
    options: KeyOptions,
) -> Result<String, PrepareError> {
    if !["", "rsa", "ed25519"].contains(&key) {
        return Err(PrepareError::NoSuchKey(key.to_owned()));
    }
    ensure_directories(directories)?;
    let store = KeyStore::open(&directories.keys, options)?.guarded_by(&directories.data);
    let identities = match DataLock::acquire(&directories.data) {
        Ok(_lock) => {
            let keys = make_keys(nickname, directories, &store)?;
            PeerIdentity { rsa_id: keys.rsa_identity.public().rsa_id(), ed_id: keys.ed_identity }
        }
        Err(LockError::Taken(_)) => {
            let identities = store.identities()?;
            identities.ok_or_else(|| PrepareError::KeysInTheMaking(directories.keys.clone()))?
        }
        Err(error) => return Err(error.into()),
    };
    let fingerprint = if key == "ed25519" {
        ed25519_fingerprint(&identities.ed_id)
    } else {
        rsa_fingerprint(&identities.rsa_id)
    };
    Ok(format!("{nickname} {fingerprint}\n"))
}

/// Loads a relay's keys, makes those that are missing, and writes the fingerprint files.
pub fn make_keys(
    nickname: &Nickname,
    directories: &Directories,
    store: &KeyStore,
) -> Result<RelayKeys, KeyError> {
    let now = Unix(UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()));
    let keys = store.load_or_create(now, &mut UnwrapErr(SysRng))?;
    write_fingerprints(&directories.data, nickname.as_str(), &keys)?;
    Ok(keys)
}

/// The answers that need no configuration.
fn immediate(program: &Program, line: &CommandLine) -> Option<String> {
    if line.has("--help") {
        Some(program.help.to_owned())
    } else if line.has("--version") {
        Some(format!("{} {}\n", program.name, program.version))
    } else if line.has("--list-torrc-options") {
        Some(options::all().iter().map(|option| format!("{}\n", option.name)).collect())
    } else {
        None
    }
}

/// Prints what there is to say about a configuration.
pub fn report(findings: &Findings, quiet: Quiet) {
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

/// Where the configuration is, as the command line says.
///
/// # Errors
/// If it is to come from standard input, and that cannot be read.
pub fn sources(line: CommandLine) -> io::Result<Sources> {
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

/// What the configuration depends on. The home directory is that of the user the program will run as, so `User` must be
/// known first.
pub fn environment(sources: &Sources) -> Environment {
    let memory = rustix::system::sysinfo();
    let memory = (memory.totalram as u64).checked_mul(memory.mem_unit.into());
    let (settings, _) = sources.settings(&mut Findings::default());
    let user = settings.text("User").and_then(|name| User::find(name).ok());
    Environment { home: user.map(|user| user.home()).or_else(std::env::home_dir), memory }
}

fn dump<C>(loaded: &Loaded<C>, kind: &str) -> ExitCode {
    match kind {
        "short" | "non-builtin" => print(&loaded.settings.dump(Some(&loaded.baseline))),
        "full" => print(&loaded.settings.dump(None)),
        _ => {
            eprintln!("[err] --dump-config needs to know what to print; write short or full");
            ExitCode::from(BAD_CONFIG)
        }
    }
}
