use super::*;
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA};
use hickory_proto::rr::{RData, Record, RecordType};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A name server on loopback that answers by the first label of the name: see [`reply`].
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    over_tcp: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        // The same port for both; another process may have either.
        let (udp, tcp) = std::iter::repeat_with(|| {
            let udp = UdpSocket::bind("127.0.0.1:0").ok()?;
            let tcp = TcpListener::bind(udp.local_addr().ok()?).ok()?;
            Some((udp, tcp))
        })
        .flatten()
        .next()
        .unwrap();
        let address = udp.local_addr().unwrap();
        let (asked, over_tcp, stop) = (Arc::default(), Arc::default(), Arc::<AtomicBool>::default());
        let udp_thread = {
            let (asked, stop) = (Arc::clone(&asked), Arc::clone(&stop));
            std::thread::spawn(move || serve_udp(&udp, &asked, &stop))
        };
        let tcp_thread = {
            let (count, stop) = (Arc::clone(&over_tcp), Arc::clone(&stop));
            std::thread::spawn(move || serve_tcp(&tcp, &count, &stop))
        };
        Server { address, asked, over_tcp, stop, threads: vec![udp_thread, tcp_thread] }
    }

    /// Names asked over UDP, with their case.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes both threads.
        let _ = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(&[], self.address));
        let _ = std::net::TcpStream::connect(self.address);
        // A panic in there has failed the test already: its question stayed unanswered.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn serve_udp(socket: &UdpSocket, asked: &Mutex<Vec<String>>, stop: &AtomicBool) {
    let mut buf = [0; 1500];
    while let Ok((len, from)) = socket.recv_from(&mut buf) {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let query = Message::from_vec(&buf[..len]).unwrap();
        asked.lock().unwrap().push(query.queries[0].name().to_ascii());
        for answer in reply(&query, false) {
            socket.send_to(&answer.to_vec().unwrap(), from).unwrap();
        }
    }
}

fn serve_tcp(listener: &TcpListener, count: &AtomicUsize, stop: &AtomicBool) {
    while let Ok((mut stream, _)) = listener.accept() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        count.fetch_add(1, Ordering::SeqCst);
        let mut len = [0; 2];
        stream.read_exact(&mut len).unwrap();
        let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut query).unwrap();
        for answer in reply(&Message::from_vec(&query).unwrap(), true) {
            let bytes = answer.to_vec().unwrap();
            stream.write_all(&(bytes.len() as u16).to_be_bytes()).unwrap();
            stream.write_all(&bytes).unwrap();
        }
    }
}

const V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);

/// What the server sends for a query: nothing, one message or several.
fn reply(query: &Message, tcp: bool) -> Vec<Message> {
    let question = query.queries[0].clone();
    let name = question.name().clone();
    let mut good = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    good.add_query(question.clone());
    let bare = good.clone();
    let address = |owner: &Name| match question.query_type() {
        RecordType::A => Some(Record::from_rdata(owner.clone(), 300, RData::A(A(V4)))),
        RecordType::AAAA => Some(Record::from_rdata(owner.clone(), 300, RData::AAAA(AAAA(V6)))),
        _ => None,
    };
    good.add_answers(address(&name));
    let soa = SOA::new(name.clone(), name.clone(), 1, 2, 3, 4, 60);
    let status = |code| {
        let mut message = bare.clone();
        message.metadata.response_code = code;
        message.add_authority(Record::from_rdata(name.clone(), 60, RData::SOA(soa.clone())));
        vec![message]
    };
    let alias =
        |from: &Name, to: &Name| Record::from_rdata(from.clone(), 30, RData::CNAME(CNAME(to.clone())));
    let label = String::from_utf8(name.iter().next().unwrap_or_default().to_ascii_lowercase()).unwrap();
    match label.as_str() {
        "missing" => status(ResponseCode::NXDomain),
        "empty" => status(ResponseCode::NoError),
        "broken" => status(ResponseCode::ServFail),
        "refused" => status(ResponseCode::Refused),
        "silent" => Vec::new(),
        "v4only" if question.query_type() == RecordType::AAAA => status(ResponseCode::NoError),
        "slowv6" if question.query_type() == RecordType::AAAA => Vec::new(),
        "truncated" if !tcp => {
            let mut message = bare;
            message.metadata.truncation = true;
            vec![message]
        }
        // A forger who guesses: wrong identifiers first, then the truth.
        "wrongid" => {
            let mut forged = good.clone();
            forged.metadata.id = forged.metadata.id.wrapping_add(1);
            forged.answers[0].data = RData::A(A(Ipv4Addr::new(203, 0, 113, 66)));
            vec![forged.clone(), forged, good]
        }
        "wrongquestion" if !tcp => {
            let mut forged = good.clone();
            forged.queries[0].set_name(Name::from_ascii("other.example.").unwrap());
            vec![forged; limits::DNS_DATAGRAMS_PER_QUESTION as usize]
        }
        "lowercase" => {
            let lower = name.to_lowercase();
            let mut message = bare;
            message.queries[0].set_name(lower.clone());
            message.add_answers(address(&lower));
            vec![message]
        }
        "alias" => {
            let (middle, end) = (below("middle"), below("END"));
            let mut message = bare;
            // In no particular order, with an address of somebody else.
            message.add_answers(address(&below("stranger")));
            message.add_answers(address(&end));
            message.add_answer(alias(&middle, &below("end")));
            message.add_answer(alias(&name, &middle));
            vec![message]
        }
        "loop" => {
            let other = below("other");
            let mut message = bare;
            message.add_answer(alias(&name, &other));
            message.add_answer(alias(&other, &name));
            vec![message]
        }
        "stranger" => {
            let mut message = bare;
            message.add_answers(address(&below("somebody-else")));
            vec![message]
        }
        "www" if name.num_labels() == 1 => status(ResponseCode::NXDomain),
        "many" => {
            let mut message = bare;
            for last in 0..20 {
                message.add_answer(Record::from_rdata(
                    name.clone(),
                    1,
                    RData::A(A(Ipv4Addr::new(192, 0, 2, last))),
                ));
            }
            vec![message]
        }
        _ if question.query_type() == RecordType::PTR => {
            let mut message = bare;
            let first: &[u8] = if label == "66" { b"bad name" } else { b"host" };
            let mut host = Name::from_labels([first, b"example"]).unwrap();
            host.set_fqdn(true);
            message.add_answer(Record::from_rdata(name, 30, RData::PTR(PTR(host))));
            vec![message]
        }
        _ => vec![good],
    }
}

fn below(label: &str) -> Name {
    Name::from_ascii(format!("{label}.example.")).unwrap()
}

fn conf(servers: &[SocketAddr]) -> ResolvConf {
    ResolvConf { servers: servers.to_vec(), search: vec![below("search")], ndots: 1, rotate: false }
}

fn options() -> Options {
    Options { timeout: Duration::from_millis(300), ..Options::default() }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    glommio::LocalExecutorBuilder::default().io_memory(0).make().unwrap().run(future)
}

/// Looks `host` up, both families, with a fresh resolver of a fresh server.
fn lookup(host: &str) -> (Result<Vec<IpAddr>, DnsError>, Server) {
    let server = Server::start();
    let result = run(async {
        Resolver::new(conf(&[server.address]), options(), 0).addresses(host, Families::Both).await
    });
    (result, server)
}

fn both() -> Result<Vec<IpAddr>, DnsError> {
    Ok(vec![V4.into(), V6.into()])
}

#[test]
fn finds_both_families_ipv4_first() {
    let (found, server) = lookup("www.example.com");
    assert_eq!(found, both());
    assert_eq!(server.asked().len(), 2);
    assert_eq!(lookup("v4only.example").0, Ok(vec![V4.into()]));
}

#[test]
fn asks_only_for_the_families_wanted() {
    let server = Server::start();
    run(async {
        let resolver = Resolver::new(conf(&[server.address]), options(), 0);
        assert_eq!(resolver.addresses("a.example", Families::V4).await, Ok(vec![V4.into()]));
        assert_eq!(server.asked().len(), 1);
        assert_eq!(resolver.addresses("a.example", Families::V6).await, Ok(vec![V6.into()]));
        assert_eq!(resolver.addresses("v4only.example", Families::V6).await, Err(DnsError::NoData));
    });
}

#[test]
fn a_family_that_is_never_answered_does_not_hold_up_the_other() {
    let server = Server::start();
    let started = Instant::now();
    let slow = Options { timeout: Duration::from_secs(30), ..options() };
    let found = run(async {
        Resolver::new(conf(&[server.address]), slow, 0).addresses("slowv6.example", Families::Both).await
    });
    assert_eq!(found, Ok(vec![V4.into()]));
    assert!(started.elapsed() < limits::DNS_LOOKUP_TIME);
}

#[test]
fn names_that_do_not_exist_fail_for_good_and_failing_servers_do_not() {
    assert_eq!(lookup("missing.example").0, Err(DnsError::NoSuchName));
    assert_eq!(lookup("empty.example").0, Err(DnsError::NoData));
    assert!(DnsError::NoSuchName.is_permanent() && DnsError::NoData.is_permanent());
    for (host, error) in [
        ("broken.example", DnsError::ServerFailed),
        ("refused.example", DnsError::Refused),
        ("silent.example", DnsError::Timeout),
        ("loop.example", DnsError::ServerFailed),
    ] {
        assert_eq!(lookup(host).0, Err(error), "{host}");
        assert!(!error.is_permanent());
    }
}

#[test]
fn an_answer_too_long_for_a_datagram_comes_over_tcp() {
    let (found, server) = lookup("truncated.example");
    assert_eq!(found, both());
    assert_eq!(server.over_tcp.load(Ordering::SeqCst), 2);
}

#[test]
fn forged_answers_are_not_believed() {
    let (found, server) = lookup("wrongid.example");
    assert_eq!(found.unwrap()[0], IpAddr::from(V4));
    assert_eq!(server.over_tcp.load(Ordering::SeqCst), 0);
    let (found, server) = lookup("wrongquestion.example");
    assert_eq!(found, both());
    assert_eq!(server.over_tcp.load(Ordering::SeqCst), 2, "after so many forgeries only TCP is believed");
    assert_eq!(
        lookup("stranger.example").0,
        Err(DnsError::NoData),
        "an address of another name is not an answer"
    );
}

#[test]
fn letter_case_is_random_and_must_come_back() {
    let (_, server) = lookup("averylonghostnamewithmanyletters.example");
    let asked = server.asked();
    assert!(asked.iter().all(|name| name.eq_ignore_ascii_case("averylonghostnamewithmanyletters.example.")));
    assert_ne!(asked[0], asked[1], "two questions in the same case: less likely than 1 in 2^39");
    // A server that does not preserve case is asked over TCP, where it is believed all the same.
    let (found, server) = lookup("lowercase.example");
    assert_eq!(found, both());
    assert!(server.over_tcp.load(Ordering::SeqCst) > 0);
    let server = Server::start();
    let plain = Options { randomize_case: false, ..options() };
    run(async {
        let resolver = Resolver::new(conf(&[server.address]), plain, 0);
        assert_eq!(resolver.addresses("lowercase.example", Families::V4).await, Ok(vec![V4.into()]));
        assert_eq!(server.asked(), ["lowercase.example."]);
    });
}

#[test]
fn aliases_are_followed_to_their_end() {
    assert_eq!(lookup("alias.example").0, both());
}

#[test]
fn answers_are_bounded() {
    let found = lookup("many.example").0.unwrap();
    assert_eq!(found.len(), limits::DNS_ADDRESSES_PER_FAMILY);
}

#[test]
fn addresses_have_names() {
    let server = Server::start();
    run(async {
        let resolver = Resolver::new(conf(&[server.address]), options(), 0);
        assert_eq!(resolver.reverse(IpAddr::from([192, 0, 2, 1])).await.as_deref(), Ok("host.example"));
        assert_eq!(resolver.reverse(V6.into()).await.as_deref(), Ok("host.example"));
        let asked: Vec<String> = server.asked().iter().map(|name| name.to_ascii_lowercase()).collect();
        assert_eq!(asked[0], "1.2.0.192.in-addr.arpa.");
        assert!(
            asked[1].starts_with("7.0.0.0.") && asked[1].ends_with(".8.b.d.0.1.0.0.2.ip6.arpa."),
            "{asked:?}"
        );
        assert_eq!(
            resolver.reverse(IpAddr::from([192, 0, 2, 66])).await,
            Err(DnsError::NoData),
            "unprintable"
        );
    });
}

#[test]
fn a_dead_server_is_passed_over_for_the_next() {
    // Bound but never answered; and one where nobody listens at all.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::start();
    run(async {
        let servers = [silent.local_addr().unwrap(), closed, server.address];
        let resolver = Resolver::new(conf(&servers), options(), 0);
        for i in 0..limits::DNS_SERVER_FAILURES {
            let host = format!("host{i}.example");
            assert_eq!(resolver.addresses(&host, Families::V4).await, Ok(vec![V4.into()]));
        }
        assert_eq!(resolver.load().2, 2, "both are known to fail");
        let started = Instant::now();
        assert_eq!(resolver.addresses("fast.example", Families::V4).await, Ok(vec![V4.into()]));
        assert!(started.elapsed() < options().timeout, "the working server was asked first");
    });
}

#[test]
fn when_no_server_works_the_error_is_transient() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    run(async {
        let resolver = Resolver::new(conf(&[closed]), options(), 0);
        assert_eq!(resolver.addresses("a.example", Families::Both).await, Err(DnsError::Unreachable));
    });
}

#[test]
fn the_same_question_is_asked_once_and_remembered() {
    let server = Server::start();
    run(async {
        let resolver = Resolver::new(conf(&[server.address]), options(), 0);
        let lookups: Vec<_> = (0..50)
            .map(|i| {
                let resolver = resolver.clone();
                let host = if i % 2 == 0 { "same.example" } else { "SAME.example." };
                glommio::spawn_local(async move { resolver.addresses(host, Families::V4).await })
            })
            .collect();
        for lookup in lookups {
            assert_eq!(lookup.await, Ok(vec![V4.into()]));
        }
        assert_eq!(resolver.addresses("Same.Example", Families::V4).await, Ok(vec![V4.into()]));
        for _ in 0..2 {
            assert_eq!(resolver.addresses("missing.example", Families::V4).await, Err(DnsError::NoSuchName));
        }
        assert_eq!(server.asked().len(), 2);
        assert_eq!(resolver.load(), (2, 0, 0));
        // Other servers may know better.
        let other = Server::start();
        resolver.reconfigure(conf(&[other.address]), options());
        assert_eq!(resolver.load().0, 0);
        assert!(resolver.addresses("same.example", Families::V4).await.is_ok());
        assert_eq!(other.asked().len(), 1);
    });
}

#[test]
fn lookups_at_once_and_waiters_are_bounded() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    run(async {
        let resolver = Resolver::new(conf(&[silent.local_addr().unwrap()]), options(), 0);
        let name = below("same");
        let waiting: Vec<_> =
            (0..limits::DNS_WAITERS_PER_LOOKUP).map(|_| resolver.begin(&name, Kind::A)).collect();
        assert_eq!(outcome(resolver.begin(&name, Kind::A)).await, Err(DnsError::Overloaded));
        drop(waiting);
        let under_way: Vec<_> =
            (1..limits::DNS_LOOKUPS).map(|i| resolver.begin(&below(&format!("n{i}")), Kind::A)).collect();
        assert_eq!(outcome(resolver.begin(&below("one-more"), Kind::A)).await, Err(DnsError::Overloaded));
        for receiver in under_way {
            // Out of files or out of time, depending on the machine's limits: each ends.
            assert!(outcome(receiver).await.is_err());
        }
        assert_eq!(resolver.load().1, 0);
    });
}

#[test]
fn search_domains_are_used_only_when_asked_for() {
    assert_eq!(lookup("www").0, Err(DnsError::NoSuchName));
    let server = Server::start();
    let searching = Options { search_domains: true, randomize_case: false, ..options() };
    run(async {
        let resolver = Resolver::new(conf(&[server.address]), searching, 0);
        assert_eq!(resolver.addresses("www", Families::V4).await, Ok(vec![V4.into()]));
        assert_eq!(resolver.addresses("missing.here", Families::V4).await, Err(DnsError::NoSuchName));
        assert_eq!(resolver.addresses("www.", Families::V4).await, Err(DnsError::NoSuchName));
        let asked = ["www.search.example.", "missing.here.", "missing.here.search.example.", "www."];
        assert_eq!(server.asked(), asked);
    });
}

#[test]
fn what_is_no_host_name_is_not_asked() {
    let long = "x".repeat(64) + ".example";
    for host in
        ["", ".", "..", "a..b", "http://example.com", "a b", "a@b", "a\\032b", "\u{e9}t\u{e9}.example", &long]
    {
        let (result, server) = lookup(host);
        assert_eq!(result, Err(DnsError::BadName), "{host:?}");
        assert!(server.asked().is_empty());
    }
}

mod judging {
    use super::super::message::{Question, Transport, Verdict};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_panics_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let question = Question::new(&below("a"), Kind::A, true, &mut rand::rng());
            prop_assert_eq!(question.judge(&bytes, Transport::Udp), Verdict::Unrelated);
        }

        #[test]
        fn never_panics_on_damaged_answers(at in 0usize..200, byte: u8, host in "(alias|loop|many|missing|a)") {
            let question = Question::new(&below(&host), Kind::A, true, &mut rand::rng());
            let query = Message::from_vec(&question.to_wire().unwrap()).unwrap();
            let mut bytes = reply(&query, false)[0].to_vec().unwrap();
            let len = bytes.len();
            bytes[at % len] = byte;
            question.judge(&bytes, Transport::Udp);
            question.judge(&bytes[..at % len], Transport::Tcp);
        }
    }
}
