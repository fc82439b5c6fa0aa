//! The command line, as C tor has it.

use onionring_node::cli::{self, LIST_FINGERPRINT, Program};
use onionring_node::lock::DataLock;

use crate::config::Config;

pub use onionring_node::cli::{BAD_STATE, FAILED, Outcome, PrepareError, failed};

/// All that the relay needs to start.
pub type Start = cli::Start<Config>;

const PROGRAM: Program = Program {
    name: "onionring-relay",
    version: env!("CARGO_PKG_VERSION"),
    help: HELP,
    flags: &[LIST_FINGERPRINT],
};

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

/// Reads the command line and the configuration, and does all but running the relay.
pub fn run(words: &[String]) -> Outcome<Box<Start>> {
    let (line, start) = match cli::read(&PROGRAM, words) {
        Outcome::Run(read) => read,
        Outcome::Done(code) => return Outcome::Done(code),
    };
    let Some(key) = line.flag(LIST_FINGERPRINT.name) else { return Outcome::Run(Box::new(start)) };
    Outcome::Done(match list_fingerprint(&start.config, key) {
        Ok(text) => cli::print(&text),
        Err(error) => failed(&error, BAD_STATE),
    })
}

/// Becomes the configured user. Call it before any thread is started, and before everything that makes files.
pub fn become_user(config: &Config) -> Result<(), PrepareError> {
    cli::become_user(config.user.as_deref(), config.keep_bind_capabilities)
}

/// Makes and closes the relay's directories and locks the data directory for as long as the result lives.
pub fn take_directories(config: &Config) -> Result<DataLock, PrepareError> {
    cli::take_directories(&config.directories)
}

fn list_fingerprint(config: &Config, key: &str) -> Result<String, PrepareError> {
    become_user(config)?;
    cli::list_fingerprint(key, &config.nickname, &config.directories, config.keys)
}
