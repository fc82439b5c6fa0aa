//! `onionring-loadgen demo`: the main job in one command.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::Args;

use super::net::Common;
use super::ui::{self, Interrupt, byte_bar, cpu_seconds_per_gib, mib};
use super::{CliError, enter_netns};
use crate::net::process::Usage;
use crate::net::{Groups, Kind, Network, NetworkSpec, Node, NodeSpec, Role};
use crate::traffic::Order;

/// Relays that refuse exit streams, and those that do not.
const RELAYS: (usize, usize) = (3, 2);
const CLIENT: &str = "client";

/// Boots authorities, five relays (two of them exits) and a client, all of them onionring unless it is said otherwise;
/// downloads through the network, checks the bytes, and prints the path, throughput, CPU time per GiB of each node, and
/// where metrics and the SOCKS port are.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Directory authorities: `kind:count` with commas between; a kind is `onionring`, `tor` or what --kind defines
    #[arg(long, value_name = "GROUPS", default_value = "onionring:3")]
    authorities: Groups,
    /// What the relays run
    #[arg(long, value_name = "KIND", default_value = "onionring")]
    relays: String,
    /// What the client runs
    #[arg(long, value_name = "KIND", default_value = "onionring")]
    client: String,
    /// MiB to download
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    size: u64,
    /// Keep the network up afterwards, until Ctrl-C
    #[arg(long, alias = "stay")]
    keep: bool,
    /// Put the network into a network namespace
    #[arg(long)]
    netns: bool,
    #[command(flatten)]
    common: Common,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), CliError> {
        enter_netns(self.netns)?;
        let interrupt = Interrupt::watch()?;
        let (relays, client) = (Kind::new(self.relays.clone()), Kind::new(self.client.clone()));
        let spec = NetworkSpec::new()
            .add_groups(Role::Authority, &self.authorities)
            .add(Role::Relay, relays.clone(), RELAYS.0)
            .add(Role::Exit, relays.clone(), RELAYS.1)
            .node(NodeSpec::new(Role::Client, client.clone()).named(CLIENT));
        let ((middles, exits), authorities) = (RELAYS, &self.authorities);
        println!(
            "booting: {authorities} as authorities, {relays}:{middles} and {exits} exits, {client} as client"
        );
        let network = ui::boot(self.common.apply(spec)?, &interrupt)?;
        println!("network {} is up after {:.1} s", network.name(), network.boot_time().as_secs_f64());

        self.download(&network, &interrupt)?;
        if self.keep {
            println!("the network stays up until Ctrl-C");
        }
        while self.keep && !interrupt.asked() {
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn download(&self, network: &Network, interrupt: &Interrupt) -> Result<(), CliError> {
        let client = network.node(CLIENT);
        let before = usages(network)?;
        let bytes = self.size << 20;
        let bar = byte_bar("download", bytes);
        let mut path = None;
        let socks = client.socks()?;
        let order = Order { socks: &socks, target: network.target(), bytes, seed: rand::random() };
        let transfer = order.download(&mut |received| {
            bar.set_position(received);
            // Which circuit it is shows while the stream is there.
            path = path.take().or_else(|| path_in_use(network, client));
            interrupt.check_io()
        });
        bar.finish_and_clear();
        interrupt.check()?;
        let transfer = transfer?;
        println!(
            "downloaded {} over {CLIENT} - {} - server in {:.2} s: {}/s, first byte after {:.0} ms",
            mib(bytes),
            path.unwrap_or_else(|| "?".to_owned()),
            transfer.elapsed.as_secs_f64(),
            mib(transfer.rate() as u64),
            transfer.time_to_first_byte.as_secs_f64() * 1e3,
        );
        println!("SHA-256 {}: as sent", transfer.sha256);

        println!("{:<12} {:<10} {:>9} {:>10}  METRICS", "NODE", "KIND", "CPU s/GiB", "RSS");
        for (node, (before, after)) in network.nodes().iter().zip(before.iter().zip(usages(network)?)) {
            let cpu = cpu_seconds_per_gib(after.cpu_seconds - before.cpu_seconds, bytes);
            let metrics = node.metrics_addr().map_or_else(String::new, |a| format!("http://{a}/metrics"));
            let (name, kind, rss) = (node.nickname(), node.kind().to_string(), mib(after.rss_bytes));
            println!("{name:<12} {kind:<10} {cpu:>9.2} {rss:>10}  {metrics}");
        }
        if let Some(address) = client.socks_addr() {
            let (host, port) = network.target();
            println!(
                "SOCKS {address}; try: curl -x socks5h://{address} http://{host}:{port}/1048576 | sha256sum"
            );
        }
        Ok(())
    }
}

/// The relays of the circuit in use, as far as the client says: of a stock one, of its newest circuit.
fn path_in_use(network: &Network, client: &Node) -> Option<String> {
    if client.control_addr().is_some() {
        let circuits = client.control().ok()?.circuits().ok()?;
        let mut built =
            circuits.into_iter().filter(|circuit| circuit.state == "BUILT" && circuit.path.len() >= 3);
        let nickname = |fingerprint: &String| {
            let found = network.nodes().iter().find(|node| node.fingerprint() == fingerprint);
            found.map_or_else(|| fingerprint.clone(), |node| node.nickname().to_owned())
        };
        return Some(built.next_back()?.path.iter().map(nickname).collect::<Vec<_>>().join(" - "));
    }
    ask_proxy(client, "circuits").ok()?.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (state, streams, path) = (words.next()?, words.next()?, words.next()?);
        (state == "used" && streams != "0").then(|| path.replace(',', " - "))
    })
}

/// What an onionring proxy answers to a request on its socket.
fn ask_proxy(client: &Node, request: &str) -> io::Result<String> {
    let mut socket = UnixStream::connect(client.dir().join("proxy.sock"))?;
    socket.write_all(format!("{request}\n").as_bytes())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

fn usages(network: &Network) -> Result<Vec<Usage>, CliError> {
    Ok(network.nodes().iter().map(|node| node.usage()).collect::<Result<_, _>>()?)
}
