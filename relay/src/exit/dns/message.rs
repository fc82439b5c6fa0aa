//! Questions to a name server and what its datagrams say, without I/O.

use super::{Data, DnsError};
use crate::limits;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use rand_core::CryptoRng;
use std::net::IpAddr;
use std::time::Duration;

/// What is asked about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name of an address.
    Ptr,
}

impl Kind {
    fn record_type(self) -> RecordType {
        match self {
            Kind::A => RecordType::A,
            Kind::Aaaa => RecordType::AAAA,
            Kind::Ptr => RecordType::PTR,
        }
    }
}

/// One question as it goes to one server: a fresh identifier and a fresh mix of upper and lower case each time.
pub struct Question {
    id: u16,
    name: Name,
    kind: Kind,
    check_case: bool,
}

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram, which anyone may have sent who guesses the port and the identifier.
    Udp,
    /// Over a connection, which only the server can have answered; its letters need not be ours.
    Tcp,
}

/// What a datagram or a TCP message means for a [`Question`].
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not an answer to this question: late, or forged. Wait on.
    Unrelated,
    /// The right question in other letters: a server that changes case, or a forger who guessed. Ask over TCP.
    CaseChanged,
    /// Too long for a datagram. Ask over TCP.
    Truncated,
    /// The server answered.
    Answer(Answer),
}

/// An answer and how long it may be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What the server says.
    pub result: Result<Data, DnsError>,
    /// Time to live, clipped to our limits.
    pub ttl: Duration,
}

impl Question {
    /// Asks for `kind` of `name`; with `randomize_case`, letters are drawn at random and must come back alike.
    pub fn new(name: &Name, kind: Kind, randomize_case: bool, rng: &mut impl CryptoRng) -> Self {
        let mut name = name.clone();
        if randomize_case {
            name.randomize_label_case();
        }
        let mut id = [0; 2];
        rng.fill_bytes(&mut id);
        Question { id: u16::from_be_bytes(id), name, kind, check_case: randomize_case }
    }

    /// The message to send. An error means that the name cannot be encoded.
    pub fn to_wire(&self) -> Result<Vec<u8>, DnsError> {
        let mut message = Message::new(self.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(self.name.clone(), self.kind.record_type()));
        message.to_vec().map_err(|_| DnsError::BadName)
    }

    /// What `bytes`, received from the server's address, say about this question.
    pub fn judge(&self, bytes: &[u8], transport: Transport) -> Verdict {
        let Ok(message) = Message::from_vec(bytes) else { return Verdict::Unrelated };
        let header = &message.metadata;
        if header.id != self.id
            || header.message_type != MessageType::Response
            || header.op_code != OpCode::Query
        {
            return Verdict::Unrelated;
        }
        match message.queries.as_slice() {
            [q] if q.name() == &self.name
                && q.query_type() == self.kind.record_type()
                && q.query_class() == DNSClass::IN =>
            {
                if self.check_case && transport == Transport::Udp && !q.name().eq_case(&self.name) {
                    return Verdict::CaseChanged;
                }
            }
            // Some servers leave the question out when they refuse it; with the identifier alone that is too weak
            // to believe, and a server that never answers properly is soon passed over.
            _ => return Verdict::Unrelated,
        }
        if header.truncation {
            return Verdict::Truncated;
        }
        Verdict::Answer(match header.response_code {
            ResponseCode::NoError => self.records(&message),
            ResponseCode::NXDomain => negative(DnsError::NoSuchName, &message),
            ResponseCode::Refused => failure(DnsError::Refused),
            ResponseCode::FormErr => failure(DnsError::Format),
            ResponseCode::NotImp => failure(DnsError::NotImplemented),
            _ => failure(DnsError::ServerFailed),
        })
    }

    /// Follows the chain of aliases from the name asked to the records wanted.
    fn records(&self, message: &Message) -> Answer {
        if message.answers.len() > limits::DNS_ANSWER_RECORDS {
            return failure(DnsError::ServerFailed);
        }
        let mut owner = &self.name;
        let mut ttl = u32::MAX;
        for _ in 0..=limits::DNS_CNAME_CHAIN {
            let here = || message.answers.iter().filter(|r| &r.name == owner && r.dns_class == DNSClass::IN);
            let mut found = Collected::default();
            for record in here().filter(|r| r.record_type() == self.kind.record_type()) {
                ttl = ttl.min(record.ttl);
                found.add(record);
            }
            if let Some(data) = found.into_data() {
                return Answer { result: Ok(data), ttl: clip(ttl, limits::DNS_CACHE_TTL_MAX) };
            }
            let alias = here().find_map(|r| match &r.data {
                RData::CNAME(target) => Some((r.ttl, &target.0)),
                _ => None,
            });
            match alias {
                Some((alias_ttl, target)) => {
                    ttl = ttl.min(alias_ttl);
                    owner = target;
                }
                None => return negative(DnsError::NoData, message),
            }
        }
        failure(DnsError::ServerFailed)
    }
}

/// The records of one owner, in the server's order.
#[derive(Default)]
struct Collected {
    addresses: Vec<IpAddr>,
    name: Option<String>,
}

impl Collected {
    fn add(&mut self, record: &Record) {
        let address = match &record.data {
            RData::A(a) => IpAddr::V4(a.0),
            RData::AAAA(a) => IpAddr::V6(a.0),
            RData::PTR(name) => {
                self.name = self.name.take().or_else(|| host_name(&name.0));
                return;
            }
            _ => return,
        };
        if self.addresses.len() < limits::DNS_ADDRESSES_PER_FAMILY && !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
    }

    fn into_data(self) -> Option<Data> {
        match self.name {
            Some(name) => Some(Data::Name(name)),
            None if !self.addresses.is_empty() => Some(Data::Addresses(self.addresses)),
            None => None,
        }
    }
}

/// A name as text without the final dot, if it is one that can be passed on: whoever runs a reverse zone chooses these
/// bytes, and clients log and print them.
fn host_name(name: &Name) -> Option<String> {
    let text = name.to_ascii();
    let text = text.strip_suffix('.').unwrap_or(&text);
    let printable = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    (printable && !text.is_empty() && text.len() <= Name::MAX_LENGTH).then(|| text.to_owned())
}

/// "No": remembered as long as the zone's SOA record allows (RFC 2308 section 5); without one, not at all.
fn negative(error: DnsError, message: &Message) -> Answer {
    let ttl = message.authorities.iter().find_map(|r| match &r.data {
        RData::SOA(soa) => Some(r.ttl.min(soa.minimum)),
        _ => None,
    });
    Answer { result: Err(error), ttl: clip(ttl.unwrap_or(0), limits::DNS_NEGATIVE_TTL_MAX) }
}

fn failure(error: DnsError) -> Answer {
    Answer { result: Err(error), ttl: limits::DNS_FAILURE_TTL }
}

fn clip(ttl: u32, max: Duration) -> Duration {
    Duration::from_secs(ttl.into()).min(max)
}
