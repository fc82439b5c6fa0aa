//! The command line, as C tor has it, and commands that ask a running proxy.

use onionring_node::cli::{self, Program};
use onionring_node::lock::DataLock;

use crate::config::Config;

mod ask;
mod check;
mod command;
mod resolve;
mod socks;
pub mod web;

pub use onionring_node::cli::{BAD_CONFIG, BAD_STATE, FAILED, Outcome, PrepareError, failed};

/// All that the proxy needs to start.
pub type Start = cli::Start<Config>;

const PROGRAM: Program =
    Program { name: "onionring-proxy", version: env!("CARGO_PKG_VERSION"), help: HELP, flags: &[] };

const HELP: &str = "\
An onion proxy: carries the streams of applications through an onion-routing network.

usage: onionring-proxy [-f TORRC] [FLAGS] [--Option value]...
       onionring-proxy resolve NAME [-f TORRC] [--socks ADDRESS:PORT|unix:PATH]
       onionring-proxy resolve -x ADDRESS [-f TORRC] [--socks ADDRESS:PORT|unix:PATH]
       onionring-proxy check [-f TORRC] [--url HOST:PORT/PATH]
       onionring-proxy new-identity|status|circuits [-f TORRC]

Configuration is read from the file of defaults, then the torrc, then the command line; what comes later counts more.
Any torrc option can stand on the command line: --SocksPort 9050. With a plus, --+SocksPort 9150, it adds to the lines of
the file instead of replacing them; with a slash, --/SocksPort, it removes them.

  -f, --torrc-file FILE    configuration; - is standard input (default /etc/tor/torrc, then ~/.torrc)
  --defaults-torrc FILE    read this before it, if it exists (default /etc/tor/torrc-defaults)
  --ignore-missing-torrc   go on without a torrc if FILE does not exist
  --allow-missing-torrc    the same
  --allow-unsupported      ignore options that are not supported, with a warning, instead of refusing to start

instead of running the proxy:
  --verify-config          check the configuration, and exit
  --dump-config KIND       print it and exit: short (what differs from the defaults), full, or non-builtin (as short)
  --list-torrc-options     print the names of all options, and exit
  --version                print the version, and exit
  -h, --help               print this, and exit

  --hush                   until the log is set up, and without a Log line, print warnings and errors only
  --quiet                  the same, print errors only

commands, which ask the proxy that runs with the DataDirectory of the same torrc:
  resolve NAME             print the address of a name, as an exit looks it up
  resolve -x ADDRESS       print the name of an address, likewise
    --socks PLACE          ask the proxy at this SocksPort, whatever torrc says
  check                    say in plain words what works and what does not, one line each
    --url HOST:PORT/PATH   fetch this through the proxy as well, over HTTP
  new-identity             let new streams take circuits that no stream has used before
  status                   print how the proxy is, in lines of a key and a value
  circuits                 print its circuits, one a line

signals: TERM and INT end the proxy; HUP reads the configuration again; USR1 writes a heartbeat to the log; USR2 logs
everything until the next HUP.

exit codes: 0 when all went well or the proxy was told to stop, 1 when the command line or the configuration is wrong,
2 when directories or the change of user fail, or no proxy runs that a command could ask, 3 when the system lacks something,
the proxy fails later, or what a command asks for does not work.
";

/// Reads the command line and the configuration, and does all but running the proxy.
pub fn run(words: &[String]) -> Outcome<Box<Start>> {
    if let Some((command, words)) = words.split_first() {
        match command.as_str() {
            "resolve" => return Outcome::Done(resolve::run(words)),
            "check" => return Outcome::Done(check::run(words)),
            word => {
                if let Some(request) = ask::request(word) {
                    return Outcome::Done(ask::run(request, words));
                }
            }
        }
    }
    match cli::read(&PROGRAM, words) {
        Outcome::Run((_, start)) => Outcome::Run(Box::new(start)),
        Outcome::Done(code) => Outcome::Done(code),
    }
}

/// Becomes the configured user. Call it before any thread is started, and before everything that makes files.
pub fn become_user(config: &Config) -> Result<(), PrepareError> {
    cli::become_user(config.user.as_deref(), config.keep_bind_capabilities)
}

/// Makes and closes the proxy's directories and locks the data directory for as long as the result lives.
pub fn take_directories(config: &Config) -> Result<DataLock, PrepareError> {
    cli::take_directories(&config.directories)
}
