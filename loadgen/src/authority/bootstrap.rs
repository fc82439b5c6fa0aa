//! Clients that learn a large network: how long until they know enough of it to build circuits, and what that takes.
//!
//! The network exists on paper; one authority serves it, which all clients ask for everything. Relays are not there, so
//! nothing is built.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::subject::Subject;
use super::{AuthorityError, Settings, clients, rounds};
use crate::net::process::{Process, describe};
use crate::synthetic::Directory;

/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(10);
/// What clients log when they know enough. C tor's `Bootstrapped 75%` does not do: when everything is in its cache, it
/// waits for a relay, and there is none.
const KNOWN: [&str; 2] = ["We now have enough directory information", "bootstrap 75%"];

/// A client to measure.
#[derive(Clone, Debug)]
pub struct Client {
    /// What it is called in results.
    pub kind: String,
    /// Its program, with C tor's command line.
    pub program: PathBuf,
}

/// One bootstrap of one client.
#[derive(Clone, Debug, Serialize)]
pub struct Bootstrap {
    /// Which client.
    pub kind: String,
    /// Whether it had everything in its cache.
    pub from_cache: bool,
    /// Seconds until it knew enough.
    pub seconds: f64,
    /// CPU seconds until then.
    pub cpu_seconds: f64,
    /// The most memory until then, in bytes.
    pub rss_max_bytes: u64,
}

/// Has an authority publish a network, and clients bootstrap from it by turns: `rounds` times with an empty cache, and each
/// time once more with what is in it then.
///
/// # Errors
/// [`AuthorityError`].
pub fn bootstrap(
    settings: &Settings,
    directory: &Directory,
    bootstrapping: &[Client],
    rounds: usize,
    stop: &(dyn Fn() -> bool + Sync),
    tell: &dyn Fn(&str),
) -> Result<Vec<Bootstrap>, AuthorityError> {
    tell("starting an authority");
    let subject = Subject::start(settings, directory)?;
    tell("uploads");
    clients::upload(&subject, directory, stop)?;
    rounds::Rounds { subject: &subject, directory, interval: settings.interval, stop, tell }.first()?;
    let mut results = Vec::new();
    for _ in 0..rounds {
        for client in bootstrapping {
            tell(&client.kind);
            let home = subject.client_home()?;
            for from_cache in [false, true] {
                if stop() {
                    return Err(AuthorityError::Interrupted);
                }
                results.push(measure(&subject, client, home.path(), from_cache, directory)?);
            }
        }
    }
    Ok(results)
}

fn measure(
    subject: &Subject,
    client: &Client,
    home: &std::path::Path,
    from_cache: bool,
    directory: &Directory,
) -> Result<Bootstrap, AuthorityError> {
    let failed = |why: String| AuthorityError::Start { kind: client.kind.clone(), why };
    let data = home.join("data");
    fs::create_dir_all(&data)?;
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
    let (torrc, log) = (home.join("torrc"), home.join("log"));
    let text = format!(
        "TestingTorNetwork 1\nDataDirectory {}\nSocksPort {}:9050\nLog [dir]info notice file {}\nFetchDirInfoEarly 1\n\
         PathsNeededToBuildCircuits 0.95\n{}",
        data.display(),
        subject.client_address(),
        log.display(),
        subject.authority_lines(directory, true)
    );
    fs::write(&torrc, text)?;
    let _ = fs::remove_file(&log);
    let (began, path) = (Instant::now(), torrc.display().to_string());
    let mut process = Process::start(&client.program, &["-f", &path], &[], &home.join("output"))?;
    loop {
        let text = fs::read_to_string(&log).unwrap_or_default();
        if KNOWN.iter().any(|known| text.contains(known)) {
            break;
        }
        if let Some(status) = process.try_wait()? {
            let output = fs::read_to_string(home.join("output")).unwrap_or_default();
            return Err(failed(format!("{}\n{text}{output}", describe(status))));
        }
        if began.elapsed() > PATIENCE {
            return Err(failed(format!("it does not know enough in time; its log:\n{text}")));
        }
        thread::sleep(POLL);
    }
    let (seconds, usage) = (began.elapsed().as_secs_f64(), process.usage()?);
    process.stop(Duration::from_secs(10))?;
    let (cpu_seconds, rss_max_bytes) = (usage.cpu_seconds, usage.rss_max_bytes);
    Ok(Bootstrap { kind: client.kind.clone(), from_cache, seconds, cpu_seconds, rss_max_bytes })
}
