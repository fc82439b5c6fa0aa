//! The command line, as C tor has it.

use onionring_node::cli::{self, LIST_FINGERPRINT, Program};
use onionring_node::lock::DataLock;

use crate::config::Config;

mod gencert;
mod relays;

pub use onionring_node::cli::{BAD_STATE, FAILED, Outcome, PrepareError, failed};

/// All that the authority needs to start.
pub type Start = cli::Start<Config>;

const PROGRAM: Program = Program {
    name: "onionring-dirauth",
    version: env!("CARGO_PKG_VERSION"),
    help: HELP,
    flags: &[LIST_FINGERPRINT],
};

const HELP: &str = "\
A directory authority of an onion-routing network.

usage: onionring-dirauth [-f TORRC] [FLAGS] [--Option value]...
       onionring-dirauth gencert [FLAGS]
       onionring-dirauth approve|reject RELAY... [-f TORRC]
       onionring-dirauth pending|list [-f TORRC]

Configuration is read from the file of defaults, then the torrc, then the command line; what comes later counts more.
Any torrc option can stand on the command line: --ORPort 9001. With a plus, --+ORPort 9002, it adds to the lines of the
file instead of replacing them; with a slash, --/ORPort, it removes them.

  -f, --torrc-file FILE    configuration; - is standard input (default /etc/tor/torrc, then ~/.torrc)
  --defaults-torrc FILE    read this before it, if it exists (default /etc/tor/torrc-defaults)
  --ignore-missing-torrc   go on without a torrc if FILE does not exist
  --allow-missing-torrc    the same
  --allow-unsupported      ignore options that are not supported, with a warning, instead of refusing to start

instead of running the authority:
  --verify-config          check the configuration, and exit
  --dump-config KIND       print it and exit: short (what differs from the defaults), full, or non-builtin (as short)
  --list-fingerprint [KEY] print the fingerprint of the relay that an authority is, making its keys if there are none, and
                           exit; KEY is rsa or ed25519
  --list-torrc-options     print the names of all options, and exit
  --version                print the version, and exit
  -h, --help               print this, and exit

  --hush                   until the log is set up, and without a Log line, print warnings and errors only
  --quiet                  the same, print errors only

commands:
  gencert                  make the keys and the certificate to vote with, as tor-gencert does; see gencert --help
  approve RELAY...         list these relays, if AuthDirListApprovedOnly is 1; takes back that they were rejected
  reject RELAY...          refuse these relays; takes back that they were approved
  pending                  print the relays that wait for approval: fingerprint, nickname, address, since, contact
  list                     print what is decided: decision, identity, nickname
A RELAY is a fingerprint of 40 hex digits, an Ed25519 identity of 43 characters, or the nickname of a relay that waits; one
that waits is decided about under both its identities. Decisions are in approved-routers in the DataDirectory, which a
running authority is told to read again. Where standard output is no terminal, fields are separated by tabs.

signals: TERM and INT end the authority; HUP reads the configuration and approved-routers again; USR1 writes a heartbeat to
the log; USR2 logs everything until the next HUP.

exit codes: 0 when all went well or the authority was told to stop, 1 when the command line or the configuration is wrong,
2 when keys, directories or the change of user fail, 3 when the system lacks something or the authority fails later.
";

/// Reads the command line and the configuration, and does all but running the authority.
pub fn run(words: &[String]) -> Outcome<Box<Start>> {
    match words.split_first() {
        Some((command, words)) if command == "gencert" => return Outcome::Done(gencert::run(words)),
        Some((command, words)) if relays::COMMANDS.contains(&command.as_str()) => {
            return Outcome::Done(relays::run(command, words));
        }
        _ => {}
    }
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

/// Makes and closes the authority's directories and locks the data directory for as long as the result lives.
pub fn take_directories(config: &Config) -> Result<DataLock, PrepareError> {
    cli::take_directories(&config.directories)
}

fn list_fingerprint(config: &Config, key: &str) -> Result<String, PrepareError> {
    become_user(config)?;
    cli::list_fingerprint(key, &config.nickname, &config.directories, config.keys)
}
