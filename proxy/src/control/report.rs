//! How a proxy is, as lines of a key and a value.

use std::fmt;

use onionring_proto::netdoc::text::{Fingerprint, format_time, time};
use onionring_proto::time::Unix;

/// How far the proxy has come since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It has no consensus in force.
    #[default]
    Consensus,
    /// It has one, and fetches the keys of the authorities that signed it.
    Certificates,
    /// It fetches descriptions of relays.
    Descriptors,
    /// It knows enough, and builds the first circuits.
    Circuits,
    /// Streams are carried.
    Done,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Phase; 5] =
        [Phase::Consensus, Phase::Certificates, Phase::Descriptors, Phase::Circuits, Phase::Done];

    /// The words for it.
    pub fn label(self) -> &'static str {
        match self {
            Phase::Consensus => "loading the consensus",
            Phase::Certificates => "loading keys of the authorities",
            Phase::Descriptors => "loading descriptions of relays",
            Phase::Circuits => "building circuits",
            Phase::Done => "done",
        }
    }
}

/// A port that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The option, such as `SocksPort`.
    pub option: String,
    /// `ADDRESS:PORT`, with the port that the system chose for `auto`, or `unix:PATH`.
    pub address: String,
}

/// How things are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The number of the process.
    pub pid: u32,
    /// What it does to become ready.
    pub phase: Phase,
    /// How far it has come with that, from 0 to 100; 100 is ready.
    pub percent: u8,
    /// What speaks against this machine's clock, in words, if anything does.
    pub clock: Option<String>,
    /// The ports that listen.
    pub ports: Vec<Port>,
    /// When the consensus in use became valid, and until when it is; `None` without one.
    pub consensus: Option<(Unix, Unix)>,
    /// The guards in use.
    pub guards: Vec<Fingerprint>,
    /// Open circuits.
    pub circuits: usize,
    /// Open streams.
    pub streams: usize,
}

impl Report {
    /// Reads the lines that [`fmt::Display`] writes. Keys that are not known are passed over, and what is missing is as in
    /// a proxy that has just started.
    pub fn parse(text: &str) -> Report {
        let mut report = Report::default();
        let mut consensus = (None, None);
        for (key, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            match key {
                "pid" => report.pid = value.parse().unwrap_or_default(),
                "phase" => {
                    let phase = Phase::ALL.into_iter().find(|phase| phase.label() == value);
                    report.phase = phase.unwrap_or_default();
                }
                "bootstrap" => report.percent = value.parse().unwrap_or_default(),
                "clock" => report.clock = Some(value.to_owned()),
                "port" => {
                    let port = value.split_once(' ');
                    report.ports.extend(
                        port.map(|(option, address)| Port { option: option.into(), address: address.into() }),
                    );
                }
                "consensus-valid-after" => consensus.0 = read_time(value),
                "consensus-valid-until" => consensus.1 = read_time(value),
                "guard" => report.guards.extend(Fingerprint::from_hex(value)),
                "circuits" => report.circuits = value.parse().unwrap_or_default(),
                "streams" => report.streams = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
        report.consensus = consensus.0.zip(consensus.1);
        report
    }

    /// The addresses of an option's ports.
    pub fn ports_of<'a>(&'a self, option: &'a str) -> impl Iterator<Item = &'a str> {
        self.ports.iter().filter(move |port| port.option == option).map(|port| &*port.address)
    }

    /// Whether streams are carried.
    pub fn is_ready(&self) -> bool {
        self.percent >= 100
    }
}

fn read_time(value: &str) -> Option<Unix> {
    let (date, clock) = value.split_once(' ')?;
    time(date, clock)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "pid {}", self.pid)?;
        writeln!(f, "bootstrap {}", self.percent)?;
        writeln!(f, "phase {}", self.phase.label())?;
        if let Some(clock) = &self.clock {
            writeln!(f, "clock {clock}")?;
        }
        for Port { option, address } in &self.ports {
            writeln!(f, "port {option} {address}")?;
        }
        if let Some((after, until)) = self.consensus {
            writeln!(f, "consensus-valid-after {}", format_time(after))?;
            writeln!(f, "consensus-valid-until {}", format_time(until))?;
        }
        for guard in &self.guards {
            writeln!(f, "guard {guard}")?;
        }
        writeln!(f, "circuits {}", self.circuits)?;
        writeln!(f, "streams {}", self.streams)
    }
}
