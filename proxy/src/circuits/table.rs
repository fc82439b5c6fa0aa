//! The circuits there are and those being built: which of them a stream may use, and when each is done with.
//!
//! Pure logic: circuits are whatever `C` is, and time comes in as an argument.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use onionring_proto::netdoc::consensus::RelayFlags;
use onionring_proto::netdoc::text::{Fingerprint, Nickname};
use onionring_proto::path::{NodeRules, RelayRef};
use onionring_proto::policy::PortSummary;
use tokio::time::Instant;

use crate::isolation::{Mark, Token};
use crate::network::{Families, Host};

/// Names a circuit for as long as the program runs.
pub type Number = u64;

/// What a circuit must know of a relay on its path.
#[derive(Clone, Debug)]
pub struct Hop {
    /// RSA identity.
    pub identity: Fingerprint,
    /// Nickname, for people.
    pub nickname: Nickname,
    /// Whether it is Stable.
    pub stable: bool,
    /// Whether streams may leave there at all.
    may_exit: bool,
    /// Where it lets streams out, over IPv4.
    policy: PortSummary,
    /// Over IPv6.
    policy_v6: PortSummary,
}

impl Hop {
    /// A relay of the directory.
    pub fn new(relay: &RelayRef<'_>, nodes: &NodeRules) -> Hop {
        let may_exit = !relay.status.flags.has(RelayFlags::BAD_EXIT)
            && !relay.status.flags.has(RelayFlags::MIDDLE_ONLY)
            && nodes.allow_exit(relay.status);
        Hop {
            identity: relay.status.identity,
            nickname: relay.status.nickname,
            stable: relay.status.flags.has(RelayFlags::STABLE),
            may_exit,
            policy: relay.microdesc.policy.clone(),
            policy_v6: relay.microdesc.policy_v6.clone(),
        }
    }

    /// Whether it may let a stream out to there, as far as its summary tells.
    pub fn permits(&self, target: &Target) -> bool {
        self.may_exit && target.is_permitted(&self.policy, &self.policy_v6)
    }
}

impl Target {
    /// Whether a relay with these policies may serve it.
    pub fn is_permitted(&self, policy: &PortSummary, policy_v6: &PortSummary) -> bool {
        match self {
            Target::Stream { host: Host::Address(IpAddr::V4(_)), port, .. } => policy.permits(*port),
            Target::Stream { host: Host::Address(IpAddr::V6(_)), port, .. } => policy_v6.permits(*port),
            Target::Stream { host: Host::Name(_), port, families } => {
                families.v4 && policy.permits(*port) || families.v6 && policy_v6.permits(*port)
            }
            Target::LookUp => !policy.rejects_all(),
        }
    }

    /// The same stream, once it is known at which address its destination is.
    pub fn at(&self, address: IpAddr) -> Option<Target> {
        match *self {
            Target::Stream { port, families, .. } => {
                Some(Target::Stream { host: Host::Address(address), port, families })
            }
            Target::LookUp => None,
        }
    }
}

/// What a circuit is wanted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A stream.
    Stream {
        /// Where to.
        host: Host,
        /// The port there.
        port: u16,
        /// Addresses that will do.
        families: Families,
    },
    /// A look-up, which any exit makes.
    LookUp,
}

/// A circuit that somebody wants.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// What for.
    pub target: &'a Target,
    /// Whether it will be used for long, so that its relays should be Stable.
    pub stable: bool,
    /// Whom it may be shared with.
    pub token: &'a Token,
    /// Exits that have not served this wish.
    pub avoid: &'a [Fingerprint],
}

/// How circuits are kept.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How long after its first stream a circuit takes new ones (`MaxCircuitDirtiness`).
    pub max_dirtiness: Duration,
    /// Whether streams may leave at any hop but the first (`LeakyPipe`).
    pub leaky_pipe: bool,
    /// How long a worn circuit without streams waits to be cut and extended to another exit (`TruncateCircuits`).
    pub worn_time: Duration,
}

/// What there is for a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// This circuit, at this of its hops.
    Open(Number, usize),
    /// This one, once it is built.
    Building(Number),
    /// None.
    Nothing,
}

enum State<C> {
    Building,
    /// Built, but perhaps never to be used: a better guard may still answer.
    Waiting,
    Open(C),
}

/// One circuit.
pub struct Record<C> {
    state: State<C>,
    /// Its path, first hop first.
    pub hops: Arc<[Hop]>,
    /// Whether all its relays are Stable.
    pub stable: bool,
    mark: Mark,
    /// When a stream was first put on it.
    dirty_since: Option<Instant>,
    /// It takes no more streams.
    retired: bool,
    /// Until when it waits for its first stream.
    spare_until: Instant,
}

impl<C> Record<C> {
    /// The circuit, if it is built.
    pub fn circuit(&self) -> Option<&C> {
        match &self.state {
            State::Building | State::Waiting => None,
            State::Open(circuit) => Some(circuit),
        }
    }

    /// Whether it has carried nothing yet, and may.
    pub fn is_spare(&self) -> bool {
        self.mark.is_clean() && !self.retired && !matches!(self.state, State::Waiting)
    }

    /// Whether it takes no more streams.
    pub fn is_retired(&self) -> bool {
        self.retired
    }

    fn takes_streams(&self, rules: &Rules, now: Instant) -> bool {
        !self.retired && !matches!(self.state, State::Waiting) && self.worn_for(rules, now).is_none()
    }

    /// For how long it has been in use for too long.
    fn worn_for(&self, rules: &Rules, now: Instant) -> Option<Duration> {
        now.duration_since(self.dirty_since?).checked_sub(rules.max_dirtiness)
    }

    /// Whether another exit may be put in place of its own.
    fn may_be_cut(&self, rules: &Rules, now: Instant) -> bool {
        !self.retired && self.worn_for(rules, now).is_some_and(|time| time < rules.worn_time)
    }

    /// Whether it will do for streams that last long with a Stable exit in place of its own.
    fn is_stable_before_exit(&self) -> bool {
        let kept = self.hops.split_last().map_or(&[][..], |(_, kept)| kept);
        self.stable || kept.iter().all(|hop| hop.stable)
    }

    /// The hop at which it can serve the wish: the last, or with a leaky pipe the last that lets it out.
    fn serves(&self, wish: &Wish<'_>, rules: &Rules) -> Option<usize> {
        if wish.stable && !self.stable || !self.mark.admits(wish.token) {
            return None;
        }
        let last = self.hops.len().checked_sub(1)?;
        let from = if rules.leaky_pipe { 1 } else { last };
        let serves = |hop: &Hop| hop.permits(wish.target) && !wish.avoid.contains(&hop.identity);
        (from..=last).rev().find(|n| self.hops.get(*n).is_some_and(serves))
    }
}

/// All circuits.
pub struct Table<C> {
    records: BTreeMap<Number, Record<C>>,
    next: Number,
    /// How they are kept.
    pub rules: Rules,
}

impl<C> Table<C> {
    /// No circuits.
    pub fn new(rules: Rules) -> Table<C> {
        Table { records: BTreeMap::new(), next: 1, rules }
    }

    /// A circuit is being built; it waits for a first stream until `spare_until`.
    pub fn begin(&mut self, hops: Arc<[Hop]>, stable: bool, spare_until: Instant) -> Number {
        let number = self.next;
        self.next += 1;
        let record = Record {
            state: State::Building,
            hops,
            stable,
            mark: Mark::default(),
            dirty_since: None,
            retired: false,
            spare_until,
        };
        self.records.insert(number, record);
        number
    }

    /// It is built; it comes back if nobody has a use for it any more.
    pub fn built(&mut self, number: Number, circuit: C) -> Option<C> {
        match self.records.get_mut(&number) {
            Some(record) if !record.retired => {
                record.state = State::Open(circuit);
                // Whoever waited for it looks again, and may have found another one.
                record.mark = Mark::default();
                None
            }
            _ => {
                self.records.remove(&number);
                Some(circuit)
            }
        }
    }

    /// It is built, and waits until it is known whether it may be used.
    pub fn wait(&mut self, number: Number) {
        if let Some(record) = self.records.get_mut(&number) {
            record.state = State::Waiting;
        }
    }

    /// It is gone.
    pub fn remove(&mut self, number: Number) -> Option<Record<C>> {
        self.records.remove(&number)
    }

    /// One of them.
    pub fn get(&self, number: Number) -> Option<&Record<C>> {
        self.records.get(&number)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Number, &Record<C>)> {
        self.records.iter().map(|(number, record)| (*number, record))
    }

    /// Number of circuits that are being built.
    pub fn building(&self) -> usize {
        self.records.values().filter(|record| matches!(record.state, State::Building)).count()
    }

    /// Finds a circuit for a wish and counts it as used by it. Circuits in use come first, the one last taken into use
    /// before others, so that what is spare stays for those who may not share.
    pub fn find(&mut self, wish: &Wish<'_>, now: Instant) -> Found {
        let rules = self.rules;
        let fitting = self.records.iter().filter_map(|(number, record)| {
            let hop = record.takes_streams(&rules, now).then(|| record.serves(wish, &rules))??;
            Some((record.circuit().is_some(), record.dirty_since, std::cmp::Reverse(*number), hop))
        });
        let Some((is_open, _, std::cmp::Reverse(number), hop)) = fitting.max() else { return Found::Nothing };
        if let Some(record) = self.records.get_mut(&number) {
            record.mark.join(wish.token);
            if is_open {
                let since = record.dirty_since.get_or_insert(now);
                if wish.token.keep_alive {
                    *since = now;
                }
            }
        }
        if is_open { Found::Open(number, hop) } else { Found::Building(number) }
    }

    /// Number of circuits, built or being built, that wait for their first stream and could serve this, with exits that
    /// are not to be avoided.
    pub fn spare(&self, target: &Target, stable: bool, avoid: &[Fingerprint]) -> usize {
        let serves = |hop: &Hop| hop.permits(target) && !avoid.contains(&hop.identity);
        let fits = |record: &&Record<C>| {
            record.is_spare() && (record.stable || !stable) && record.hops.last().is_some_and(serves)
        };
        self.records.values().filter(fits).count()
    }

    /// A worn circuit that `is_fit` to be cut and extended to another exit; a `stable` one, if it is for streams that last
    /// long.
    pub fn worn(
        &self,
        now: Instant,
        stable: bool,
        is_fit: impl Fn(&C) -> bool,
    ) -> Option<(Number, Arc<[Hop]>)> {
        let rules = self.rules;
        let fits = |record: &Record<C>| {
            record.may_be_cut(&rules, now)
                && (!stable || record.is_stable_before_exit())
                && record.circuit().is_some_and(&is_fit)
        };
        let (number, record) = self.records.iter().find(|(_, record)| fits(record))?;
        Some((*number, record.hops.clone()))
    }

    /// Takes out a circuit that is built.
    pub fn take(&mut self, number: Number) -> Option<C> {
        match self.records.remove(&number)?.state {
            State::Open(circuit) => Some(circuit),
            State::Building | State::Waiting => None,
        }
    }

    /// The circuit takes no more streams.
    pub fn retire(&mut self, number: Number) {
        if let Some(record) = self.records.get_mut(&number) {
            record.retired = true;
        }
    }

    /// No circuit takes streams any more: what comes next looks like somebody else.
    pub fn retire_all(&mut self) {
        self.records.values_mut().for_each(|record| record.retired = true);
    }

    /// Circuits that nobody needs any more leave: broken ones, worn or retired ones without streams, and spare ones that
    /// have waited long enough.
    pub fn expire(
        &mut self,
        now: Instant,
        is_gone: impl Fn(&C) -> bool,
        has_streams: impl Fn(&C) -> bool,
    ) -> Vec<Record<C>> {
        let rules = self.rules;
        let over = |record: &Record<C>| match &record.state {
            State::Building | State::Waiting => false,
            State::Open(circuit) => {
                let unused = record.dirty_since.is_none() && now >= record.spare_until;
                is_gone(circuit)
                    || !has_streams(circuit)
                        && (unused || !record.takes_streams(&rules, now) && !record.may_be_cut(&rules, now))
            }
        };
        let numbers: Vec<Number> =
            self.records.iter().filter(|(_, record)| over(record)).map(|(number, _)| *number).collect();
        numbers.iter().filter_map(|number| self.records.remove(number)).collect()
    }
}

#[cfg(test)]
pub(super) mod tests;
