//! Reading out how things go: counters of shards and directory as metrics, heartbeats, the supervisor's watchdog.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam::channel;
use glommio::timer::sleep;
use nix::time::{ClockId, clock_gettime};
use onionring_node::metrics::http::Pages;
use onionring_node::metrics::page::Page;
use onionring_node::metrics::table;
use onionring_node::process::{self, Notice};
use onionring_proto::netdoc::text::Fingerprint;
use tracing::{info, warn};

use super::Control;
use super::overload::{self, Kind, NtorLimits};
use crate::config::StatisticsConfig;
use crate::dir::fetch::FetchState;
use crate::dir::publish::PublishState;
use crate::io::control::Control as ShardMessage;
use crate::load::{Cause, Totals};
use crate::status_page::{self, Status};
use crate::{heartbeat, telemetry};

/// How often counters are read.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How often is looked whether a heartbeat is due.
const BEAT_LOOK: Duration = Duration::from_secs(5);
/// How often the bandwidth history is written to the disk.
const SAVE_INTERVAL: Duration = Duration::from_secs(2 * 3600);

impl Control {
    /// Reads the shards' counters into metrics, for ever.
    pub async fn report(self: Rc<Self>) {
        let shards = self.shards.handles().len();
        let begun = Instant::now();
        let mut saved = begun;
        loop {
            let (sender, answers) = channel::unbounded();
            for handle in self.shards.handles() {
                handle.send(ShardMessage::Counters(sender.clone()));
            }
            drop(sender);
            sleep(REPORT_INTERVAL).await;
            let (mut heard, mut circuits, mut from_ipv6) = (0, 0, 0);
            let mut totals = Totals { at: begun.elapsed(), ..Totals::default() };
            let mut overload = overload::Totals::default();
            let mut shards_cpu = Duration::ZERO;
            while let Ok((shard, counters)) = answers.try_recv() {
                let (counters, io) = &*counters;
                telemetry::publish(&self.exporter, shard, counters, io);
                totals.add(shard, counters, io);
                overload.add(counters, io);
                shards_cpu += io.cpu;
                circuits += counters.circuits;
                from_ipv6 += counters.links_from_relays_ipv6;
                heard += 1;
            }
            self.exporter.upkeep();
            // With a shard too busy to answer within the interval, the sums would be wrong.
            if heard == shards {
                self.answered.set(Instant::now());
                self.open_circuits.set(circuits);
                self.links_from_relays_ipv6.set(from_ipv6);
                let mut history = self.bandwidth.borrow_mut();
                history.observe(Self::now(), totals.at, [totals.read_bytes, totals.written_bytes]);
                self.standing.borrow_mut().observed = history.observed();
                self.overload.borrow_mut().observe(Self::now(), overload, NtorLimits::new(&self.params()));
                self.show_overload();
                self.show_load(totals);
                self.show_cpu(shards_cpu);
            }
            if saved.elapsed() >= SAVE_INTERVAL {
                saved = Instant::now();
                self.save_bandwidth();
            }
        }
    }

    /// Whether the relay is overloaded, and what authorities are told of it, as metrics.
    fn show_overload(&self) {
        let (overload, now) = (self.overload.borrow(), Self::now());
        let StatisticsConfig { extra_info, overload: tells } = self.publicity.borrow().statistics;
        for kind in Kind::ALL {
            let labels = [("kind", kind.label())];
            let told = tells && (extra_info || kind == Kind::General) && overload.told(kind, now).is_some();
            table::OVERLOADED.gauge(&labels).set(f64::from(u8::from(overload.lasts(kind, now))));
            table::OVERLOAD_TOLD.gauge(&labels).set(f64::from(u8::from(told)));
        }
    }

    /// What keeps the relay from doing more, as metrics.
    fn show_load(&self, totals: Totals) {
        let mut load = self.load.borrow_mut();
        load.observe(totals);
        let now = load.limits();
        for ((cause, share), seconds) in Cause::ALL.into_iter().zip(now.0).zip(load.seconds()) {
            let labels = [("cause", cause.label())];
            table::LIMITED_BY.gauge(&labels).set(share);
            self.exporter.set_total(&table::LIMITED_SECONDS, &labels, seconds);
        }
    }

    /// Who spent the CPU time of the process, as metrics. To be called on the control thread.
    fn show_cpu(&self, shards: Duration) {
        let Ok(control) = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from) else { return };
        let process = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from);
        let others = process.saturating_sub(shards + control);
        for (owner, time) in [("shards", shards), ("control", control), ("others", others)] {
            self.exporter.set_total(&table::OWNER_CPU_SECONDS, &[("owner", owner)], time.as_secs_f64());
        }
    }

    /// Writes the bandwidth history to the disk, where the next start finds it.
    pub fn save_bandwidth(&self) {
        let directory = &self.config.borrow().directories.data;
        if let Err(failure) = self.bandwidth.borrow().save(directory) {
            warn!("{failure}");
        }
    }

    /// Writes the heartbeat to the log, for ever, as often as the configuration says.
    pub async fn beat(self: Rc<Self>) {
        let mut last = heartbeat::Totals::default();
        let mut begun = Instant::now();
        loop {
            sleep(BEAT_LOOK).await;
            match self.config.borrow().heartbeat {
                None => begun = Instant::now(),
                Some(every) if begun.elapsed() < every => {}
                Some(_) => {
                    begun = Instant::now();
                    last = self.log_heartbeat(&last);
                }
            }
        }
    }

    /// Tells the supervisor that the relay is alive, for ever: that all shards are, and not this thread alone.
    pub async fn keep_watchdog(self: Rc<Self>, every: Duration) {
        loop {
            if self.answered.get().elapsed() < every {
                process::notify(Notice::Alive);
            } else {
                warn!("a shard has not answered for {} s", every.as_secs());
            }
            sleep(every).await;
        }
    }

    /// One heartbeat: how things are, and what moved since `last`.
    pub fn log_heartbeat(&self, last: &heartbeat::Totals) -> heartbeat::Totals {
        let page = self.exporter.render();
        let totals = heartbeat::Totals::read(&Page::parse(&page), Self::now().since(self.started));
        for line in heartbeat::lines(&totals, last) {
            info!("{line}");
        }
        totals
    }

    /// How the directory side goes, as metrics, for ever.
    pub async fn report_directory(
        self: Rc<Self>,
        fetched: Rc<RefCell<FetchState>>,
        published: Rc<RefCell<PublishState>>,
    ) {
        let mut counted = Weak::new();
        // A counter that first appears with what it counts looks as if nothing had happened.
        for outcome in ["connect", "broken", "timeout", "refused", "unfit"] {
            table::DIRECTORY_FETCHES.counter(&[("outcome", outcome)]).absolute(0);
        }
        for outcome in ["refused", "lost", "unreachable"] {
            table::DESCRIPTOR_UPLOADS.counter(&[("outcome", outcome)]).absolute(0);
        }
        loop {
            let microdescs = {
                let state = fetched.borrow();
                table::DIRECTORY_FETCHES.counter(&[("outcome", "answered")]).absolute(state.kept.answered);
                for (outcome, n) in &state.kept.failed {
                    table::DIRECTORY_FETCHES.counter(&[("outcome", outcome)]).absolute(*n);
                }
                self.seen.set(state.seen_ipv4());
                state.kept.microdescs
            };
            let documents = self.directory.documents();
            let held = [
                ("certificate", documents.certs.len()),
                ("descriptor", documents.descriptors.len()),
                ("extra_info", documents.extra_infos.len()),
                ("microdescriptor", microdescs),
            ];
            if counted.as_ptr() != Arc::as_ptr(&documents) {
                counted = Arc::downgrade(&documents);
                table::DIRECTORY_MEMORY_BYTES.gauge(&[]).set(documents.bytes() as f64);
            }
            for (kind, count) in held {
                table::DIRECTORY_DOCUMENTS.gauge(&[("kind", kind)]).set(count as f64);
            }
            {
                let state = published.borrow();
                table::DESCRIPTOR_UPLOADS.counter(&[("outcome", "taken")]).absolute(state.uploads);
                for (outcome, n) in &state.failures {
                    table::DESCRIPTOR_UPLOADS.counter(&[("outcome", outcome)]).absolute(*n);
                }
                if let Some(current) = &state.current {
                    table::DESCRIPTOR_PUBLISHED.gauge(&[]).set(current.published.0 as f64);
                }
            }
            sleep(REPORT_INTERVAL).await;
        }
    }
}

impl Pages for Control {
    fn own(&self) -> String {
        self.exporter.render()
    }

    fn ctor(&self) -> Option<String> {
        Some(self.exporter.render_ctor())
    }

    fn front(&self) -> String {
        let (publicity, standing) = (self.publicity.borrow(), self.standing.borrow());
        let addresses = publicity.addresses().into_iter();
        let load = self.load.borrow();
        let status = Status {
            nickname: publicity.nickname.as_str().to_owned(),
            fingerprint: Fingerprint(self.identity.borrow().server().rsa_id).to_string(),
            addresses: addresses.map(|at| (at.to_string(), standing.reaches(at))).collect(),
            uptime: Self::now().since(self.started),
            rates: load.rates(),
            limits: load.limits(),
            draining: self.draining.get(),
        };
        status_page::render(&status, &Page::parse(&self.exporter.render()))
    }
}
