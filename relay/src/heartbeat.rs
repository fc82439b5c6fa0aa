//! What the relay says of itself every few hours (`HeartbeatPeriod`): text from numbers.

use std::time::Duration;

use onionring_node::metrics::{Metric, page::Page, table};

use crate::load::{Cause, Limits};

/// Numbers of the whole relay: totals since its start, and gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Time since the start.
    pub uptime: Duration,
    /// Gauge: open links.
    pub links: u64,
    /// Gauge: open circuits.
    pub circuits: u64,
    /// Gauge: open streams.
    pub streams: u64,
    /// Bytes read from links.
    pub read_bytes: u64,
    /// Bytes written to links.
    pub written_bytes: u64,
    /// Relay cells passed on, both ways.
    pub relayed_cells: u64,
    /// Connections accepted, and opened to other relays.
    pub connections: [u64; 2],
    /// Circuit handshakes answered.
    pub handshakes: u64,
    /// Circuit handshakes refused because too many waited.
    pub handshakes_shed: u64,
    /// Streams to the outside that were asked for.
    pub exit_streams: u64,
    /// Name lookups that went to a server, and those of them that no server answered in time.
    pub lookups: [u64; 2],
    /// Times no local port was left.
    pub ports_exhausted: u64,
    /// Circuits closed because memory was short.
    pub circuits_shed: u64,
    /// What single clients asked for too much of, refused or not: connections, circuits, streams.
    pub floods: [u64; 3],
    /// Clients marked as sources of floods.
    pub flooders: u64,
    /// Seconds that the shard which worked most has worked.
    pub busiest_seconds: u64,
    /// Seconds for which each cause limited the relay, in the order of [`Cause::ALL`].
    pub limited_seconds: [f64; Cause::ALL.len()],
}

impl Totals {
    /// Reads the totals from a page of metrics ([`Exporter::render`](onionring_node::metrics::Exporter::render)).
    pub fn read(page: &Page<'_>, uptime: Duration) -> Self {
        let sum = |metric: Metric, labels: &[(&str, &str)]| page.sum(metric.name, labels) as u64;
        Totals {
            uptime,
            links: sum(table::LINKS, &[]),
            circuits: sum(table::CIRCUITS, &[]),
            streams: sum(table::STREAMS, &[]),
            read_bytes: sum(table::LINK_READ_BYTES, &[]),
            written_bytes: sum(table::LINK_WRITTEN_BYTES, &[]),
            relayed_cells: sum(table::CELLS_RELAYED_OUTBOUND, &[]) + sum(table::CELLS_RELAYED_INBOUND, &[]),
            connections: [
                sum(table::CONNECTIONS_ACCEPTED, &[]),
                sum(table::LINKS_OPENED, &[("kind", "relay_out")]),
            ],
            handshakes: sum(table::CIRCUIT_HANDSHAKES, &[("outcome", "success")]),
            handshakes_shed: sum(table::CIRCUIT_HANDSHAKES_SHED, &[]),
            exit_streams: sum(table::STREAMS_OPENED, &[("kind", "begin")]),
            lookups: [sum(table::DNS_LOOKUPS, &[]), sum(table::DNS_LOOKUPS, &[("outcome", "timeout")])],
            ports_exhausted: sum(table::PORTS_EXHAUSTED, &[]),
            circuits_shed: sum(table::CIRCUITS_SHED, &[]),
            floods: [
                sum(table::DOS_REFUSED, &[("reason", "connects")])
                    + sum(table::DOS_REFUSED, &[("reason", "concurrent_connections")]),
                sum(table::DOS_REFUSED, &[("reason", "circuits")]),
                sum(table::DOS_REFUSED, &[("reason", "streams")]),
            ],
            flooders: sum(table::DOS_MARKED, &[]),
            busiest_seconds: page.values(table::SHARD_BUSY_SECONDS.name, &[]).fold(0.0, f64::max) as u64,
            limited_seconds: Cause::ALL
                .map(|cause| page.sum(table::LIMITED_SECONDS.name, &[("cause", cause.label())])),
        }
    }
}

/// The lines of a heartbeat: how the relay is, whether it could do more, and what needs attention, if anything does. `before` are
/// the totals of the last heartbeat, zeroes at the first.
pub fn lines(now: &Totals, before: &Totals) -> Vec<String> {
    let time = now.uptime.saturating_sub(before.uptime);
    let since = |total: fn(&Totals) -> u64| total(now).saturating_sub(total(before));
    let summary = format!(
        "Heartbeat: up for {}, with {} links, {} circuits and {} streams. In the last {}: read {}, wrote {} ({} a \
         second), relayed {} cells, answered {} circuit handshakes, accepted {} connections and opened {}{}.",
        duration(now.uptime),
        now.links,
        now.circuits,
        now.streams,
        duration(time),
        bytes(since(|t| t.read_bytes)),
        bytes(since(|t| t.written_bytes)),
        bytes(since(|t| t.written_bytes) / time.as_secs().max(1)),
        since(|t| t.relayed_cells),
        since(|t| t.handshakes),
        since(|t| t.connections[0]),
        since(|t| t.connections[1]),
        exit(since(|t| t.exit_streams), since(|t| t.lookups[0])),
    );
    let busy = since(|t| t.busiest_seconds);
    let mut lines = vec![summary, load(busy, time, &limits(now, before)), attention(&since)];
    lines.extend(floods(&since));
    lines
}

/// What the defence against floods had to do, if it had.
fn floods(since: &impl Fn(fn(&Totals) -> u64) -> u64) -> Option<String> {
    let [connections, circuits, streams] =
        [since(|t| t.floods[0]), since(|t| t.floods[1]), since(|t| t.floods[2])];
    let clients = since(|t| t.flooders);
    (connections + circuits + streams + clients > 0).then(|| {
        format!(
            "Heartbeat: of single clients, {connections} connections, {circuits} circuits and {streams} streams were too \
             many, and {clients} clients were marked for it; what was refused depends on the DoS options, and nothing \
             need be done."
        )
    })
}

fn exit(streams: u64, lookups: u64) -> String {
    match (streams, lookups) {
        (0, 0) => String::new(),
        _ => format!(", opened {streams} streams to the outside and looked up {lookups} names"),
    }
}

/// What limited the relay between two heartbeats.
fn limits(now: &Totals, before: &Totals) -> Limits {
    let mut shares = [0.0; Cause::ALL.len()];
    for (i, share) in shares.iter_mut().enumerate() {
        *share = (now.limited_seconds[i] - before.limited_seconds[i]).max(0.0);
    }
    match shares.iter().sum::<f64>() {
        sum if sum > 0.0 => Limits(shares.map(|share| share / sum)),
        _ => Limits::default(),
    }
}

/// Whether the relay could do more than it is asked to, and what keeps it from that.
fn load(busy: u64, time: Duration, limits: &Limits) -> String {
    let percent = busy * 100 / time.as_secs().max(1);
    let shares: Vec<String> = Cause::ALL
        .into_iter()
        .zip(limits.0)
        .filter(|(_, share)| *share >= 0.005)
        .map(|(cause, share)| format!("{} {:.0} %", cause.label().replace('_', " "), share * 100.0))
        .collect();
    format!(
        "Heartbeat: the busiest shard worked {percent} % of the time. The relay was limited by {} ({}).",
        limits.main().words(),
        shares.join(", ")
    )
}

fn attention(since: &impl Fn(fn(&Totals) -> u64) -> u64) -> String {
    let mut faults = Vec::new();
    let (shed, answered) = (since(|t| t.handshakes_shed), since(|t| t.handshakes));
    if shed > 0 {
        faults.push(format!(
            "{shed} of {} circuit handshakes were refused because too many came at once; more cores help, and floods pass",
            shed + answered
        ));
    }
    let (timeouts, lookups) = (since(|t| t.lookups[1]), since(|t| t.lookups[0]));
    // Other people's name servers fail too: only an unusual share is the operator's business.
    if timeouts * 100 > lookups {
        faults.push(format!(
            "{timeouts} of {lookups} name lookups were not answered in time; check the servers in resolv.conf"
        ));
    }
    let ports = since(|t| t.ports_exhausted);
    if ports > 0 {
        faults.push(format!("{ports} times no local port was left; widen net.ipv4.ip_local_port_range"));
    }
    let circuits = since(|t| t.circuits_shed);
    if circuits > 0 {
        faults.push(format!("{circuits} circuits were closed to save memory; MaxMemInQueues may be raised"));
    }
    match faults.is_empty() {
        true => "Heartbeat: nothing needs attention.".to_owned(),
        false => format!("Heartbeat: worth attention: {}.", faults.join("; ")),
    }
}

/// Days, hours and minutes.
pub fn duration(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    let (days, hours, minutes) = (minutes / (24 * 60), minutes / 60 % 24, minutes % 60);
    match days {
        0 => format!("{hours}:{minutes:02} hours"),
        1 => format!("1 day {hours}:{minutes:02} hours"),
        _ => format!("{days} days {hours}:{minutes:02} hours"),
    }
}

/// Bytes in the unit that leaves one to four digits before the point.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = n as f64;
    let mut unit = "bytes";
    for larger in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "bytes" { format!("{n} bytes") } else { format!("{value:.2} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy() -> Totals {
        Totals {
            uptime: Duration::from_secs(30 * 3600 + 25 * 60),
            links: 4000,
            circuits: 50_000,
            streams: 12,
            read_bytes: 10 << 30,
            written_bytes: 216 << 30,
            relayed_cells: 20_000_000,
            connections: [300, 200],
            handshakes: 1_000_000,
            busiest_seconds: 6 * 3600 / 4 * 3,
            limited_seconds: [60.0, 10.0, 0.0, 0.0, 30.0],
            ..Totals::default()
        }
    }

    #[test]
    fn a_healthy_relay_says_that_all_is_well() {
        let before = Totals {
            uptime: Duration::from_secs(24 * 3600 + 25 * 60),
            written_bytes: 0,
            ..Totals::default()
        };
        let expected = [
            "Heartbeat: up for 1 day 6:25 hours, with 4000 links, 50000 circuits and 12 streams. In the last 6:00 hours: \
             read 10.00 GiB, wrote 216.00 GiB (10.24 MiB a second), relayed 20000000 cells, answered 1000000 circuit \
             handshakes, accepted 300 connections and opened 200.",
            "Heartbeat: the busiest shard worked 75 % of the time. The relay was limited by its processor: more or faster \
             cores, and NumCPUs, would carry more (processor 60 %, network 10 %, low demand 30 %).",
            "Heartbeat: nothing needs attention.",
        ];
        assert_eq!(lines(&busy(), &before), expected);
    }

    #[test]
    fn trouble_is_named_with_what_to_do() {
        let now = Totals {
            handshakes_shed: 5,
            exit_streams: 10,
            lookups: [100, 2],
            ports_exhausted: 3,
            circuits_shed: 1,
            ..busy()
        };
        let text = lines(&now, &busy()).pop().unwrap();
        for part in ["5 of 5 circuit handshakes", "2 of 100 name", "ip_local_port_range", "MaxMemInQueues"] {
            assert!(text.contains(part), "{text}");
        }
        let flood = Totals { floods: [3, 200, 1], flooders: 2, ..busy() };
        let text = lines(&flood, &busy()).pop().unwrap();
        assert!(text.contains("3 connections, 200 circuits and 1 streams"), "{text}");
        assert!(text.contains("2 clients were marked"), "{text}");
        // All of it happened before the last heartbeat.
        assert_eq!(lines(&flood, &flood).len(), 3);
        assert_eq!(lines(&now, &now).pop().unwrap(), "Heartbeat: nothing needs attention.");
        assert!(lines(&now, &busy())[0].contains("opened 10 streams to the outside and looked up 100 names"));
    }

    #[test]
    fn quantities_read_well() {
        assert_eq!((bytes(1023), bytes(1024)), ("1023 bytes".into(), "1.00 KiB".into()));
        assert_eq!(bytes(u64::MAX), "16384.00 PiB");
        assert_eq!(duration(Duration::from_secs(59)), "0:00 hours");
        assert_eq!(duration(Duration::from_secs(50 * 3600)), "2 days 2:00 hours");
        assert_eq!(lines(&Totals::default(), &Totals::default()).len(), 3);
    }

    #[test]
    fn totals_come_from_the_page_of_metrics() {
        let page = Page::parse(
            "onionring_links{shard=\"0\"} 3\nonionring_links{shard=\"1\"} 4\n\
             onionring_dns_lookups_total{shard=\"0\",outcome=\"success\"} 5\n\
             onionring_dns_lookups_total{shard=\"0\",outcome=\"timeout\"} 1\n\
             onionring_shard_busy_seconds_total{shard=\"0\"} 7\nonionring_shard_busy_seconds_total{shard=\"1\"} 9\n\
             onionring_dos_refused_total{shard=\"0\",reason=\"connects\"} 1\n\
             onionring_dos_refused_total{shard=\"1\",reason=\"concurrent_connections\"} 2\n\
             onionring_dos_refused_total{shard=\"0\",reason=\"circuits\"} 4\n\
             onionring_dos_refused_total{shard=\"0\",reason=\"streams\"} 5\n\
             onionring_dos_marked_total{shard=\"0\",reason=\"queues\"} 6\n\
             onionring_limited_seconds_total{cause=\"network\"} 1.5\n",
        );
        let expected = Totals {
            links: 7,
            lookups: [6, 1],
            floods: [3, 4, 5],
            flooders: 6,
            busiest_seconds: 9,
            limited_seconds: [0.0, 1.5, 0.0, 0.0, 0.0],
            ..Totals::default()
        };
        assert_eq!(Totals::read(&page, Duration::ZERO), expected);
    }
}
