//! `onionring-loadgen demo`: the main job in one command.

use std::time::Duration;

use clap::Args;

use super::net::Common;
use super::ui::{self, Interrupt, byte_bar, cpu_seconds_per_gib, mib};
use super::{CliError, enter_netns};
use crate::net::process::Usage;
use crate::net::{Groups, Kind, Network, NetworkSpec, NodeSpec, Paths, Role};
use crate::traffic::Order;

/// The three positions of the path, in order.
const HOPS: [&str; 3] = ["guard", "middle", "exit"];

/// Boots authorities, a relay for each position and a stock client; downloads through all three, checks the bytes, and
/// prints throughput, CPU time per GiB of each node and where its metrics are.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Directory authorities: `kind:count` with commas between; a kind is `onionring`, `tor` or what --kind defines
    #[arg(long, value_name = "GROUPS", default_value = "tor:3")]
    authorities: Groups,
    /// What the relays run
    #[arg(long, value_name = "KIND", default_value = "onionring")]
    relays: String,
    /// MiB to download
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    size: u64,
    /// Keep the network up afterwards, until Ctrl-C
    #[arg(long)]
    stay: bool,
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
        let kind = Kind::new(self.relays.clone());
        let relay = |role, name| NodeSpec::new(role, kind.clone()).named(name);
        let spec = NetworkSpec::new()
            .add_groups(Role::Authority, &self.authorities)
            .node(relay(Role::Relay, HOPS[0]))
            .node(relay(Role::Relay, HOPS[1]))
            .node(relay(Role::Exit, HOPS[2]))
            .node(NodeSpec::new(Role::Client, Kind::TOR).named("client"));
        let authorities = &self.authorities;
        println!("booting: {authorities} as authorities, {kind} as guard, middle and exit, a tor client");
        let network = ui::boot(self.common.apply(spec)?, &interrupt)?;
        println!("network {} is up after {:.1} s", network.name(), network.boot_time().as_secs_f64());

        self.download(&network, &interrupt)?;
        while self.stay && !interrupt.asked() {
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn download(&self, network: &Network, interrupt: &Interrupt) -> Result<(), CliError> {
        let paths = Paths::of(network.node("client"))?;
        let path = paths.build(&HOPS.map(|hop| network.node(hop)))?;
        let before = usages(network)?;
        let bytes = self.size << 20;
        let bar = byte_bar("download", bytes);
        let order = Order { socks: &path.socks(), target: network.target(), bytes, seed: rand::random() };
        let transfer = order.download(&mut |received| {
            bar.set_position(received);
            interrupt.check_io()
        });
        bar.finish_and_clear();
        interrupt.check()?;
        let transfer = transfer?;
        println!(
            "downloaded {} over client - {} - server in {:.2} s: {}/s, first byte after {:.0} ms",
            mib(bytes),
            HOPS.join(" - "),
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
        Ok(())
    }
}

fn usages(network: &Network) -> Result<Vec<Usage>, CliError> {
    Ok(network.nodes().iter().map(|node| node.usage()).collect::<Result<_, _>>()?)
}
