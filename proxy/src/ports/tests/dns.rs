use std::str::FromStr as _;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};
use proptest::prelude::*;

use super::*;
use crate::ports::dns::read;

const TORRC: &str = "SocksPort 0\nDNSPort auto";

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    // Label by label: a program may ask for what is no host name.
    let labels = name.split('.').map(str::as_bytes).filter(|label| !label.is_empty());
    message.add_query(Query::query(Name::from_labels(labels).unwrap(), kind));
    message
}

async fn exchange(bench: &Bench, datagram: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(bench.address()).await.unwrap();
    socket.send(datagram).await.unwrap();
    let mut buffer = [0; 4096];
    let len = socket.recv(&mut buffer).await.unwrap();
    buffer[..len].to_vec()
}

async fn ask(bench: &Bench, question: &Message) -> Message {
    let answer = Message::from_vec(&exchange(bench, &question.to_vec().unwrap()).await).unwrap();
    let head = &answer.metadata;
    assert_eq!((head.id, head.message_type), (question.metadata.id, MessageType::Response));
    assert_eq!(answer.queries, question.queries);
    answer
}

/// Code and answers.
async fn look_up(bench: &Bench, name: &str, kind: RecordType) -> (ResponseCode, Vec<RData>) {
    let answer = ask(bench, &question(name, kind)).await;
    assert!(answer.answers.iter().all(|record| record.ttl == 60));
    let data = answer.answers.iter().map(|record| record.data.clone()).collect();
    (answer.metadata.response_code, data)
}

fn data(addresses: &[&str]) -> Vec<RData> {
    addresses.iter().map(|text| RData::from(ip(text))).collect()
}

#[tokio::test]
async fn addresses_of_both_kinds() {
    let bench = Bench::new(TORRC);
    bench.answer(Ok(vec![addr("192.0.2.1"), addr("2001:db8::1"), addr("192.0.2.2")]));
    let found = look_up(&bench, "Example.com.", RecordType::A).await;
    assert_eq!(found, (ResponseCode::NoError, data(&["192.0.2.1", "192.0.2.2"])));
    let found = look_up(&bench, "example.com.", RecordType::AAAA).await;
    assert_eq!(found, (ResponseCode::NoError, data(&["2001:db8::1"])));
    assert_eq!(bench.questions()[0], Question::Addresses("Example.com".into()));
    bench.answer(Ok(vec![addr("192.0.2.1")]));
    let found = look_up(&bench, "example.com.", RecordType::AAAA).await;
    assert_eq!(found, (ResponseCode::NoError, vec![]), "the name exists, and has none");
    let counters = bench.of(ClientKind::Dns);
    until(|| counters.open() == 0).await;
    assert_eq!(counters.accepted(), 3);
}

#[tokio::test]
async fn names_of_addresses() {
    let bench = Bench::new(TORRC);
    bench.answer(Ok(vec![ResolvedValue::Name("a.example".into())]));
    let ptr = |text: &str| vec![RData::PTR(hickory_proto::rr::rdata::PTR(Name::from_str(text).unwrap()))];
    let found = look_up(&bench, "1.2.0.192.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(found, (ResponseCode::NoError, ptr("a.example.")));
    let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.";
    assert_eq!(look_up(&bench, v6, RecordType::PTR).await.1, ptr("a.example."));
    let asked = [Question::Name(ip("192.0.2.1")), Question::Name(ip("2001:db8::1"))];
    assert_eq!(bench.questions(), asked);
    for name in ["1.0.0.127.in-addr.arpa.", "example.com.", "x.in-addr.arpa."] {
        assert_eq!(look_up(&bench, name, RecordType::PTR).await.0, ResponseCode::NXDomain, "{name}");
    }
    assert_eq!(bench.questions().len(), 2);
}

#[tokio::test]
async fn every_refusal_has_its_code() {
    let bench = Bench::new(TORRC);
    for (refusal, code) in [
        (Refusal::NotReady, ResponseCode::ServFail),
        (Refusal::NotAllowed, ResponseCode::Refused),
        (Refusal::NotFound, ResponseCode::NXDomain),
        (Refusal::Timeout, ResponseCode::ServFail),
        (Refusal::Failed, ResponseCode::ServFail),
    ] {
        bench.answer(Err(refusal));
        assert_eq!(look_up(&bench, "example.com.", RecordType::A).await, (code, vec![]), "{refusal:?}");
        assert_eq!(bench.of(ClientKind::Dns).denied(refusal.into()), 1);
    }
    for name in ["a.onion.", "a.exit.", "-a.example.", "a b.example.", "192.0.2.1.", "."] {
        assert_eq!(look_up(&bench, name, RecordType::A).await.0, ResponseCode::NXDomain, "{name}");
    }
    assert_eq!(bench.questions().len(), 5);
}

#[tokio::test]
async fn what_is_not_answered_here() {
    let bench = Bench::new(TORRC);
    for kind in [RecordType::MX, RecordType::TXT, RecordType::ANY, RecordType::HTTPS, RecordType::CNAME] {
        assert_eq!(look_up(&bench, "example.com.", kind).await, (ResponseCode::NotImp, vec![]), "{kind}");
    }
    let mut other_class = question("example.com.", RecordType::A);
    other_class.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(ask(&bench, &other_class).await.metadata.response_code, ResponseCode::NotImp);
    let mut update = question("example.com.", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(ask(&bench, &update).await.metadata.response_code, ResponseCode::NotImp);
    let mut two = question("example.com.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(ask(&bench, &two).await.metadata.response_code, ResponseCode::FormErr);
    let mut none = question("example.com.", RecordType::A);
    none.queries.clear();
    assert_eq!(ask(&bench, &none).await.metadata.response_code, ResponseCode::FormErr);

    let broken = exchange(&bench, b"\xab\xcd\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x3fx").await;
    assert_eq!(broken, b"\xab\xcd\x80\x01\x00\x00\x00\x00\x00\x00\x00\x00");
    assert_eq!(bench.questions(), []);
}

#[tokio::test]
async fn garbage_and_answers_are_not_answered() {
    let bench = Bench::new(TORRC);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(bench.address()).await.unwrap();
    let mut answer = question("example.com.", RecordType::A);
    answer.metadata.message_type = MessageType::Response;
    for datagram in [&b""[..], b"x", b"\xab\xcd\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x3fx"] {
        socket.send(datagram).await.unwrap();
    }
    socket.send(&answer.to_vec().unwrap()).await.unwrap();
    bench.answer(Ok(vec![addr("192.0.2.1")]));
    socket.send(&question("example.com.", RecordType::A).to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 512];
    let len = socket.recv(&mut buffer).await.unwrap();
    // The first that comes back is the answer to the last.
    assert_eq!(Message::from_vec(&buffer[..len]).unwrap().answers.len(), 1);
}

#[tokio::test]
async fn answers_that_are_too_long_say_so() {
    let bench = Bench::new(TORRC);
    let many: Vec<_> = (0..60).map(|n| addr(&format!("192.0.2.{n}"))).collect();
    bench.answer(Ok(many));
    let plain = ask(&bench, &question("example.com.", RecordType::A)).await;
    assert!(plain.metadata.truncation && plain.answers.is_empty());
    let mut question = question("example.com.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    question.set_edns(edns);
    let whole = ask(&bench, &question).await;
    assert!(!whole.metadata.truncation && whole.answers.len() == 60);
    assert!(whole.edns.is_some());
}

#[tokio::test]
async fn a_bounded_number_is_under_way() {
    let mut config = config(TORRC);
    config.rules.applications = 1;
    let bench = Bench::with(config);
    bench.plan(Plan::Hang);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let datagram = question("example.com.", RecordType::A).to_vec().unwrap();
    socket.send_to(&datagram, bench.address()).await.unwrap();
    until(|| bench.of(ClientKind::Dns).open() == 1).await;
    assert_eq!(look_up(&bench, "example.com.", RecordType::A).await.0, ResponseCode::ServFail);
    assert_eq!(bench.of(ClientKind::Dns).turned_away(), 1);
}

#[tokio::test]
async fn the_policy_says_who_may_ask() {
    let bench = Bench::new("SocksPort 0\nDNSPort auto\nSocksPolicy reject *");
    assert_eq!(look_up(&bench, "example.com.", RecordType::A).await.0, ResponseCode::Refused);
    assert_eq!(bench.questions(), []);
}

proptest! {
    #[test]
    fn any_datagram_is_read_without_panic(
        head in prop::option::of(any::<u16>()),
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        questions in 0u8..3,
    ) {
        // With a head that looks like that of a question, or as it is.
        if let (Some(id), true) = (head, bytes.len() >= 12) {
            bytes[..2].copy_from_slice(&id.to_be_bytes());
            bytes[2..12].copy_from_slice(&[1, 0, 0, questions, 0, 0, 0, 0, 0, 0]);
        }
        if let Err(Some(refusal)) = read(&bytes) {
            prop_assert_eq!(refusal.metadata.message_type, MessageType::Response);
            prop_assert_eq!(refusal.metadata.id, u16::from_be_bytes([bytes[0], bytes[1]]));
            prop_assert!(refusal.to_vec().is_ok());
        }
    }
}
