//! `check`: says in plain words what works and what does not.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::time::Instant;

use onionring_node::cli::{self, BAD_CONFIG, FAILED, print};
use onionring_node::config::Loaded;
use onionring_proto::netdoc::text::format_time;
use onionring_proto::socks::{Command, Host};
use onionring_proto::time::Unix;
use onionring_proto::torrc::cmdline::{Argument, Flag};

use super::command::Words;
use super::resolve::{connect, port_of};
use super::socks::{self, Place};
use super::web;
use crate::config::Config;
use crate::control::{self, Phase, Report, Request};

const URL: Flag = Flag { name: "--url", short: "", argument: Argument::Required };

/// Obeys the command; `words` are those behind it.
pub fn run(words: &[String]) -> ExitCode {
    let words = match Words::read(words, &[URL]) {
        Ok(words) => words,
        Err(code) => return code,
    };
    if let Some(word) = words.about.first() {
        return words.wrong(&format!("check takes no words; leave out {word}"));
    }
    let url = match words.line.flag(URL.name).map(Url::parse) {
        Some(None) => return words.wrong("--url needs HOST:PORT/PATH"),
        url => url.flatten(),
    };
    if let Some(problem) = words.problems().first() {
        return words.wrong(&problem.to_string());
    }
    let sources = match words.sources() {
        Ok(sources) => sources,
        Err(code) => return code,
    };
    let loaded: Loaded<Config> = sources.load(&cli::environment(&sources));
    let verdict = configuration(&loaded);
    let is_fine = verdict.is_ok();
    say("configuration", verdict);
    let Some(config) = loaded.config.filter(|_| is_fine) else { return ExitCode::from(BAD_CONFIG) };
    match proxy(&config, url.as_ref()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FAILED),
    }
}

/// One line about one thing.
fn line(works: bool, what: &str, text: &str) -> String {
    let word = if works { "works" } else { "fails" };
    format!("{word}  {what}: {text}\n")
}

/// Prints it at once: what follows may take its time.
fn say(what: &str, outcome: Result<String, String>) {
    match outcome {
        Ok(text) => print(&line(true, what, &text)),
        Err(text) => print(&line(false, what, &text)),
    };
}

fn configuration(loaded: &Loaded<Config>) -> Result<String, String> {
    let problems: Vec<String> = loaded.findings.problems.iter().map(ToString::to_string).collect();
    let authorities = loaded.config.as_ref().map_or(0, |config| config.authorities.len());
    match (problems.as_slice(), authorities) {
        ([], 0) => Err("it names no authority; add a DirAuthority line for each of the network's".to_owned()),
        ([], authorities) => Ok(format!("the network has {authorities} authorities")),
        (problems, _) => Err(problems.join("; ")),
    }
}

/// Asks the running proxy, and tries what it is for. Whether all works.
fn proxy(config: &Config, url: Option<&Url>) -> bool {
    let report = match control::ask(&config.directories.data, Request::Status) {
        Ok(text) => Report::parse(&text),
        Err(error) => {
            say("proxy", Err(error.to_string()));
            return false;
        }
    };
    say("proxy", Ok(format!("process {} runs", report.pid)));
    let now = Unix(std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()));
    let mut all = true;
    for (what, outcome) in judge(&report, config.guards.enabled, now) {
        all &= outcome.is_ok();
        say(what, outcome);
    }
    let place = match port_of(&report) {
        Ok(place) => place,
        Err(error) => {
            say("SocksPort", Err(error.to_string()));
            return false;
        }
    };
    say("SocksPort", Ok(place.to_string()));
    let Some(url) = url else { return all };
    if let Host::Name(_) = url.host {
        let found = resolve(&place, url);
        all &= found.is_ok();
        say("resolve", found);
    }
    let fetched = fetch(&place, url);
    all &= fetched.is_ok();
    say("fetch", fetched);
    all
}

/// What a report says of the parts of a proxy, in the order in which they come to work.
fn judge(report: &Report, with_guards: bool, now: Unix) -> Vec<(&'static str, Result<String, String>)> {
    let waits = || format!("not yet: {} ({} %)", report.phase.label(), report.percent);
    let directory = match (&report.clock, report.consensus) {
        // Without the right time there will be none, and a later one will not be believed.
        (Some(problem), _) => Err(problem.clone()),
        (None, None) => Err(format!("there is no consensus; {}", waits())),
        (None, Some((_, until))) if until < now => {
            let text = "the consensus was valid until";
            Err(format!("{text} {} UTC; is the clock of this machine right?", format_time(until)))
        }
        (None, Some((_, until))) if report.phase >= Phase::Circuits => {
            Ok(format!("the consensus is valid until {} UTC", format_time(until)))
        }
        (None, Some(_)) => Err(waits()),
    };
    let guards = match (report.guards.as_slice(), with_guards) {
        (_, false) => Ok("none wanted (UseEntryGuards 0)".to_owned()),
        ([], true) => Err(waits()),
        (guards, true) => Ok(guards.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    };
    let circuits = match report.is_ready() {
        true => Ok(format!("{} are open, with {} streams", report.circuits, report.streams)),
        false => Err(waits()),
    };
    vec![("directory", directory), ("guards", guards), ("circuits", circuits)]
}

fn resolve(place: &Place, url: &Url) -> Result<String, String> {
    let mut stream = connect(place.clone()).map_err(|error| error.to_string())?;
    let found = socks::request(&mut *stream, Command::Resolve, url.host.clone(), 0);
    found
        .map(|(found, _)| format!("{} is {}", url.host, socks::shown(&found)))
        .map_err(|error| error.to_string())
}

/// Fetches it over HTTP.
fn fetch(place: &Place, url: &Url) -> Result<String, String> {
    let begin = Instant::now();
    let mut stream = connect(place.clone()).map_err(|error| error.to_string())?;
    let opened = socks::request(&mut *stream, Command::Connect, url.host.clone(), url.port);
    let (_, begun) = opened.map_err(|error| error.to_string())?;
    let request =
        format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", url.path, url.authority);
    stream.write_all(request.as_bytes()).map_err(|error| format!("the stream fails: {error}"))?;
    let answer = web::read(begun.chain(stream)).map_err(|error| error.to_string())?;
    let seconds = begin.elapsed().as_secs_f64();
    let at_least = if answer.is_whole { "" } else { "more than " };
    Ok(format!("{at_least}{} bytes in {seconds:.2} s, {}", answer.bytes, answer.head))
}

/// What is to be fetched.
#[derive(Debug, PartialEq, Eq)]
struct Url {
    host: Host,
    port: u16,
    path: String,
    authority: String,
}

impl Url {
    fn parse(text: &str) -> Option<Url> {
        let text = text.strip_prefix("http://").unwrap_or(text);
        let (authority, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let clean = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().ok()?),
            _ => (authority, 80),
        };
        if port == 0 || !clean(text) {
            return None;
        }
        Some(Url {
            host: Host::parse(host)?,
            port,
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
            authority: authority.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use onionring_proto::netdoc::text::Fingerprint;

    use super::*;

    #[test]
    fn places_to_fetch_from() {
        let url = |text| Url::parse(text).map(|url| (url.host.to_string(), url.port, url.path));
        let expected = |host: &str, port, path: &str| Some((host.to_owned(), port, path.to_owned()));
        assert_eq!(url("a.example:8080/x/y?z"), expected("a.example", 8080, "/x/y?z"));
        assert_eq!(url("http://a.example"), expected("a.example", 80, "/"));
        assert_eq!(url("127.0.0.1:1/"), expected("127.0.0.1", 1, "/"));
        assert_eq!(url("[2001:db8::1]:81/x"), expected("2001:db8::1", 81, "/x"));
        assert!(matches!(Url::parse("[::1]").unwrap().host, Host::Address(_)));
        for bad in ["", ":80/", "a:0/", "a:x/", "a:99999/", "a b/", "a/\r\nEvil: 1"] {
            assert_eq!(url(bad), None, "{bad}");
        }
    }

    fn works(report: &Report, now: u64) -> Vec<bool> {
        judge(report, true, Unix(now)).into_iter().map(|(_, outcome)| outcome.is_ok()).collect()
    }

    #[test]
    fn parts_are_judged_one_by_one() {
        let mut report = Report::default();
        assert_eq!(works(&report, 50), [false, false, false]);
        report.consensus = Some((Unix(1), Unix(100)));
        report.phase = Phase::Descriptors;
        assert_eq!(works(&report, 50), [false, false, false]);
        report.phase = Phase::Circuits;
        report.guards.push(Fingerprint([1; 20]));
        assert_eq!(works(&report, 50), [true, true, false]);
        (report.phase, report.percent) = (Phase::Done, 100);
        assert_eq!(works(&report, 50), [true, true, true]);
        assert_eq!(works(&report, 101), [false, true, true]);
        let [(_, directory), ..] = &judge(&report, true, Unix(101))[..] else { panic!("no directory") };
        assert!(directory.as_ref().unwrap_err().contains("clock"), "{directory:?}");
        report.clock = Some("this machine's clock seems to be 3 hours ahead".to_owned());
        assert_eq!(works(&report, 50), [false, true, true]);
        let [(_, directory), ..] = &judge(&report, true, Unix(50))[..] else { panic!("no directory") };
        assert!(directory.as_ref().unwrap_err().contains("3 hours ahead"), "{directory:?}");
        report.clock = None;
        report.guards.clear();
        assert!(judge(&report, false, Unix(50)).iter().all(|(_, outcome)| outcome.is_ok()));
    }
}
