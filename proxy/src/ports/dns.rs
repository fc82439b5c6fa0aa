//! `DNSPort`: answers questions for A, AAAA and PTR records by asking exits.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use onionring_node::log::safe;
use onionring_proto::relay_msg::Resolve;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::debug;

use super::accept::{is_admitted, too_many};
use super::{Asker, Denied, Port};
use crate::isolation::Protocol;
use crate::limits;
use crate::network::{Families, Network, Refusal};

/// Bytes of an answer to a program that does not say how much it takes.
const PLAIN_ANSWER: usize = 512;
/// Bytes of an answer to one that does: more may not get through in one piece.
const EDNS_ANSWER: u16 = 1232;

/// Answers questions for ever. When the future is dropped, those under way are given up.
pub(super) async fn serve<N: Network>(port: Arc<Port<N>>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let room = Arc::new(Semaphore::new(port.rules().applications));
    let mut under_way = JoinSet::new();
    let mut buffer = [0; limits::DNS_QUESTION];
    loop {
        let (len, from) = tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // The answer to something that was sent before.
                Err(error) => {
                    debug!("cannot receive from DNSPort: {error}");
                    tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                    continue;
                }
            },
            // Only to forget those that are answered.
            Some(_) = under_way.join_next() => continue,
        };
        let asked = match read(&buffer[..len]) {
            Ok(asked) => asked,
            Err(None) => continue,
            Err(Some(refusal)) => {
                port.counters().deny(Denied::Malformed);
                send(&socket, from, &refusal, PLAIN_ANSWER).await;
                continue;
            }
        };
        if !is_admitted(&port, Some(from.ip())) {
            send(&socket, from, &asked.failed(ResponseCode::Refused), PLAIN_ANSWER).await;
            continue;
        }
        let Ok(place) = room.clone().try_acquire_owned() else {
            too_many(&port);
            send(&socket, from, &asked.failed(ResponseCode::ServFail), PLAIN_ANSWER).await;
            continue;
        };
        let (port, socket) = (port.clone(), socket.clone());
        under_way.spawn(async move {
            let _visit = port.counters().enter();
            let answer = answer(&port, &asked, from).await;
            send(&socket, from, &answer, asked.room).await;
            drop(place);
        });
    }
}

/// A question that is understood.
pub(super) struct Asked {
    /// The answer, still empty.
    reply: Message,
    name: Name,
    kind: RecordType,
    /// Bytes that the answer may have.
    room: usize,
}

impl Asked {
    fn failed(&self, code: ResponseCode) -> Message {
        let mut reply = self.reply.clone();
        reply.metadata.response_code = code;
        reply
    }
}

/// Reads a question. Otherwise, what to answer instead, if anything: answers to answers would never end.
pub(super) fn read(datagram: &[u8]) -> Result<Asked, Option<Box<Message>>> {
    let message = Message::from_vec(datagram).map_err(|_| malformed(datagram).map(Box::new))?;
    let head = &message.metadata;
    if head.message_type != MessageType::Query {
        return Err(None);
    }
    let mut reply = Message::response(head.id, head.op_code);
    reply.metadata.recursion_desired = head.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.checking_disabled = head.checking_disabled;
    reply.add_queries(message.queries.iter().cloned());
    let mut room = PLAIN_ANSWER;
    if message.edns.is_some() {
        room = message.max_payload().min(EDNS_ANSWER).into();
        let mut edns = Edns::new();
        edns.set_max_payload(EDNS_ANSWER);
        reply.set_edns(edns);
    }
    let refusal = |code| {
        let mut reply = reply.clone();
        reply.metadata.response_code = code;
        Err(Some(Box::new(reply)))
    };
    if head.op_code != OpCode::Query {
        return refusal(ResponseCode::NotImp);
    }
    let [query] = &message.queries[..] else { return refusal(ResponseCode::FormErr) };
    let kind = query.query_type();
    let is_known = matches!(kind, RecordType::A | RecordType::AAAA | RecordType::PTR);
    if query.query_class() != DNSClass::IN || !is_known {
        return refusal(ResponseCode::NotImp);
    }
    Ok(Asked { name: query.name().clone(), kind, room, reply })
}

/// What somebody gets who sends something that cannot be read, but has the head of a question.
fn malformed(datagram: &[u8]) -> Option<Message> {
    let &[high, low, flags, _, _, _, _, _, _, _, _, _, ..] = datagram else { return None };
    let is_question = flags & 0x80 == 0;
    let id = u16::from_be_bytes([high, low]);
    is_question.then(|| Message::error_msg(id, OpCode::Query, ResponseCode::FormErr))
}

async fn answer<N: Network>(port: &Port<N>, asked: &Asked, from: SocketAddr) -> Message {
    match records(port, asked, from.ip()).await {
        Ok(records) => {
            let mut reply = asked.reply.clone();
            reply.add_answers(
                records.into_iter().map(|data| Record::from_rdata(asked.name.clone(), limits::DNS_TTL, data)),
            );
            reply
        }
        Err(denied) => {
            debug!("DNSPort for {}: {denied}", safe(&asked.name));
            port.counters().deny(denied);
            asked.failed(code(denied))
        }
    }
}

async fn records<N: Network>(port: &Port<N>, asked: &Asked, client: IpAddr) -> Result<Vec<RData>, Denied> {
    let asker = Asker { client: Some(client), protocol: Protocol::Dns, auth: None };
    let name = asked.name.to_ascii();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let subject = Resolve::parse(name.as_bytes()).map_err(|_| Denied::Name)?;
    if asked.kind == RecordType::PTR {
        let Resolve::Reverse(address) = subject else { return Err(Refusal::NotFound.into()) };
        let found = port.name(&asker, address).await?;
        let found = Name::from_ascii(&found).map_err(|_| Refusal::NotFound)?;
        return Ok(vec![RData::PTR(PTR(found))]);
    }
    // Names of addresses have none themselves, and an address has no name to look up.
    let Resolve::Name(name) = subject else { return Err(Refusal::NotFound.into()) };
    let v4 = asked.kind == RecordType::A;
    let both = Families { v4: true, v6: true, prefer_v6: !v4 };
    let found = port.addresses(&asker, name.into(), both).await?;
    // A name that has addresses, but none of this kind, exists: the answer is empty.
    Ok(found
        .into_iter()
        .filter_map(|ip| match ip {
            IpAddr::V4(ip) => v4.then_some(RData::A(A(ip))),
            IpAddr::V6(ip) => (!v4).then_some(RData::AAAA(AAAA(ip))),
        })
        .collect())
}

/// What the program hears. Only what is certain is a "no": who hears that a name does not exist does not ask again.
fn code(denied: Denied) -> ResponseCode {
    match denied {
        Denied::Name | Denied::DotExit => ResponseCode::NXDomain,
        Denied::Network(Refusal::NotFound | Refusal::OnionService) => ResponseCode::NXDomain,
        Denied::Network(Refusal::NotAllowed) => ResponseCode::Refused,
        Denied::Unsafe | Denied::Plaintext | Denied::Family | Denied::Lookup => ResponseCode::Refused,
        Denied::Malformed | Denied::Port => ResponseCode::FormErr,
        Denied::Network(_) => ResponseCode::ServFail,
    }
}

/// Sends a message, or of one that is too long, that it is too long.
async fn send(socket: &UdpSocket, to: SocketAddr, message: &Message, room: usize) {
    let Ok(mut bytes) = message.to_vec() else { return };
    if bytes.len() > room {
        match message.truncate().to_vec() {
            Ok(shorter) => bytes = shorter,
            Err(_) => return,
        }
    }
    if let Err(error) = socket.send_to(&bytes, to).await {
        debug!("cannot answer a question to DNSPort: {error}");
    }
}
