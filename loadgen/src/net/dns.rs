//! The network's own resolver: answers for test names only, from this process, so that no question leaves it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Seconds a resolver may keep an answer. Unlike the 60 that an exit reports, so that tests can tell them apart.
pub const TTL_SECONDS: u32 = 333;
/// Largest question that is read.
const QUESTION_LEN_MAX: usize = 1500;

/// What the resolver does when asked for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// These addresses (A for IPv4, AAAA for IPv6), and the name in return for each of them (PTR).
    Addresses(Vec<IpAddr>),
    /// SERVFAIL.
    Failure,
    /// Nothing at all: the exit runs into its time-out.
    Silence,
}

#[derive(Debug, Default)]
struct Zone {
    answers: BTreeMap<String, Answer>,
    questions: Vec<(String, RecordType)>,
}

/// A running resolver. Names nobody has set do not exist (NXDOMAIN).
#[derive(Debug)]
pub struct Dns {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

impl Dns {
    /// Serves on `address` until the value is dropped: on port 53 where that is allowed, else on a free port.
    pub fn start(address: Ipv4Addr) -> io::Result<Dns> {
        let socket = UdpSocket::bind((address, 53)).or_else(|_| UdpSocket::bind((address, 0)))?;
        let dns = Dns { address: socket.local_addr()?, zone: Arc::default() };
        let zone = Arc::clone(&dns.zone);
        thread::Builder::new().name("dns".into()).spawn(move || serve(&socket, &zone))?;
        Ok(dns)
    }

    /// Where it listens, UDP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets what `name` resolves to.
    pub fn set(&self, name: &str, answer: Answer) {
        lock(&self.zone).answers.insert(canonical(name), answer);
    }

    /// Every question so far: lower-case name without the last dot, and the record type.
    pub fn questions(&self) -> Vec<(String, RecordType)> {
        lock(&self.zone).questions.clone()
    }

    /// The text for `resolv.conf`. A port other than 53 follows the address, as libevent's resolver reads it.
    pub fn resolv_conf(&self) -> String {
        match self.address.port() {
            53 => format!("nameserver {}\n", self.address.ip()),
            _ => format!("nameserver {}\n", self.address),
        }
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        // An empty datagram is the thread's sign to end.
        let wake = || UdpSocket::bind((self.address.ip(), 0))?.send_to(&[], self.address);
        let _ = wake();
    }
}

fn lock(zone: &Mutex<Zone>) -> MutexGuard<'_, Zone> {
    zone.lock().unwrap_or_else(PoisonError::into_inner)
}

fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn serve(socket: &UdpSocket, zone: &Mutex<Zone>) {
    let mut buffer = [0; QUESTION_LEN_MAX];
    loop {
        // An error here is an ICMP answer to something we sent; the socket itself stays good.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        if length == 0 {
            return;
        }
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        let reply = reply(&question, &mut lock(zone));
        if let Some(bytes) = reply.and_then(|r| r.to_vec().ok()) {
            let _ = socket.send_to(&bytes, from);
        }
    }
}

/// The reply to `question`, if any.
fn reply(question: &Message, zone: &mut Zone) -> Option<Message> {
    if question.metadata.message_type != MessageType::Query {
        return None;
    }
    let query = question.queries.first()?;
    let name = canonical(&query.name().to_ascii());
    zone.questions.push((name.clone(), query.query_type()));
    let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
    reply.metadata.recursion_desired = question.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    // The name goes back in the case it came in: resolvers that vary the case check it.
    reply.add_query(query.clone());
    match zone.answers.get(&name) {
        Some(Answer::Silence) => return None,
        Some(Answer::Failure) => reply.metadata.response_code = ResponseCode::ServFail,
        Some(Answer::Addresses(addresses)) => {
            for address in addresses {
                let data = match (address, query.query_type()) {
                    (IpAddr::V4(v4), RecordType::A) => RData::A(A(*v4)),
                    (IpAddr::V6(v6), RecordType::AAAA) => RData::AAAA(AAAA(*v6)),
                    _ => continue,
                };
                reply.add_answer(Record::from_rdata(query.name().clone(), TTL_SECONDS, data));
            }
        }
        None => match zone.name_of(query.name()).filter(|_| query.query_type() == RecordType::PTR) {
            Some(host) => {
                let data = RData::PTR(PTR(host));
                reply.add_answer(Record::from_rdata(query.name().clone(), TTL_SECONDS, data));
            }
            None => reply.metadata.response_code = ResponseCode::NXDomain,
        },
    }
    Some(reply)
}

impl Zone {
    /// The host whose address `arpa` (such as `1.0.0.127.in-addr.arpa`) stands for.
    fn name_of(&self, arpa: &Name) -> Option<Name> {
        let arpa = canonical(&arpa.to_ascii());
        self.answers.iter().find_map(|(name, answer)| {
            let Answer::Addresses(addresses) = answer else { return None };
            let held = addresses.iter().any(|a| canonical(&Name::from(*a).to_ascii()) == arpa);
            if held { Name::from_ascii(format!("{name}.")).ok() } else { None }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{OpCode, Query};

    fn ask(dns: &Dns, name: &str, record: RecordType) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), record));
        socket.send_to(&message.to_vec().unwrap(), dns.address()).unwrap();
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    #[test]
    fn answers_forward_and_reverse_and_keeps_the_case() {
        let dns = Dns::start(Ipv4Addr::new(127, 0, 0, 1)).unwrap();
        dns.set("Sink.test", Answer::Addresses(vec!["127.1.2.3".parse().unwrap(), "::5".parse().unwrap()]));
        dns.set("broken.test", Answer::Failure);

        let a = ask(&dns, "sInK.test.", RecordType::A);
        assert_eq!(a.queries[0].name().to_ascii(), "sInK.test.");
        assert_eq!(a.answers.len(), 1);
        assert_eq!(a.answers[0].data, RData::A(A(Ipv4Addr::new(127, 1, 2, 3))));
        assert_eq!(a.answers[0].ttl, TTL_SECONDS);
        assert_eq!(ask(&dns, "sink.test.", RecordType::AAAA).answers.len(), 1);

        let ptr = ask(&dns, "3.2.1.127.in-addr.arpa.", RecordType::PTR);
        assert_eq!(ptr.answers[0].data, RData::PTR(PTR(Name::from_ascii("sink.test.").unwrap())));

        assert_eq!(ask(&dns, "none.test.", RecordType::A).metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(ask(&dns, "broken.test.", RecordType::A).metadata.response_code, ResponseCode::ServFail);
        assert_eq!(dns.questions()[0], ("sink.test".into(), RecordType::A));
    }
}
