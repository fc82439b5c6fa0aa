use proptest::prelude::*;

use super::*;

/// What a server says, how much it uses, and what it finds.
type Served = (Vec<u8>, Result<(usize, Option<Request>), SocksError>);

/// What a server says and finds when all of this arrives at once.
fn serve(input: &[u8]) -> Served {
    serve_with(Server::new(false), input)
}

fn serve_with(mut server: Server, input: &[u8]) -> Served {
    let mut out = Vec::new();
    let result = server.handle(input, &mut out);
    (out, result)
}

/// The same with the input in pieces, as a connection brings it.
fn serve_in_pieces(input: &[u8], sizes: &[usize]) -> Served {
    let (mut server, mut out) = (Server::new(false), Vec::new());
    let (mut used, mut arrived) = (0, 0);
    let mut sizes = sizes.iter().copied().chain(std::iter::repeat(1));
    while arrived < input.len() {
        arrived = (arrived + sizes.next().unwrap().max(1)).min(input.len());
        match server.handle(&input[used..arrived], &mut out) {
            Ok((n, None)) => used += n,
            Ok((n, request)) => return (out, Ok((used + n, request))),
            Err(error) => return (out, Err(error)),
        }
    }
    (out, Ok((used, None)))
}

fn name(name: &str) -> Host {
    Host::Name(name.into())
}

fn address(address: &str) -> Host {
    Host::Address(address.parse().unwrap())
}

fn auth(user: &[u8], password: &[u8]) -> Option<Auth> {
    Some(Auth { user: user.into(), password: password.into() })
}

const V5_HELLO: &[u8] = b"\x05\x01\x00";
const EXAMPLE_443: &[u8] = b"\x05\x01\x00\x03\x0bexample.com\x01\xbb";

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn version_5_without_authentication_leaves_what_follows() {
    let input = joined(&[V5_HELLO, EXAMPLE_443, b"GET / HTTP/1.0\r\n"]);
    let (out, result) = serve(&input);
    let (used, request) = result.unwrap();
    assert_eq!(out, b"\x05\x00");
    assert_eq!(&input[used..], b"GET / HTTP/1.0\r\n");
    let expected = Request {
        version: Version::V5,
        command: Command::Connect,
        host: name("example.com"),
        is_literal: false,
        port: 443,
        auth: None,
    };
    assert_eq!(request, Some(expected));
}

#[test]
fn a_password_is_asked_for_when_both_are_offered() {
    let input = joined(&[b"\x05\x02\x00\x02", b"\x01\x04user\x06secret", EXAMPLE_443]);
    let (out, result) = serve(&input);
    assert_eq!(out, b"\x05\x02\x01\x00");
    assert_eq!(result.unwrap().1.unwrap().auth, auth(b"user", b"secret"));

    let (out, _) = serve(b"\x05\x02\x02\x00");
    assert_eq!(out, b"\x05\x02");
    let (out, result) = serve_with(Server::new(true), &joined(&[b"\x05\x02\x00\x02", EXAMPLE_443]));
    assert_eq!(out, b"\x05\x00");
    assert_eq!(result.unwrap().1.unwrap().auth, None);
    let (out, _) = serve_with(Server::new(true), b"\x05\x01\x02");
    assert_eq!(out, b"\x05\x02", "who offers a password alone is asked for it");
}

#[test]
fn user_name_and_password_may_be_empty() {
    let input = joined(&[b"\x05\x01\x02", b"\x01\x00\x00", EXAMPLE_443]);
    assert_eq!(serve(&input).1.unwrap().1.unwrap().auth, auth(b"", b""));
}

#[test]
fn user_names_of_proposal_351() {
    let ask = |user: &[u8]| {
        let sent = joined(&[b"\x05\x01\x02", b"\x01", &[user.len() as u8], user, b"\x01t", EXAMPLE_443]);
        serve(&sent)
    };
    assert_eq!(ask(b"<torS0X>0").1.unwrap().1.unwrap().auth, auth(b"<torS0X>0", b"t"));
    assert_eq!(ask(b"<torS0Y>").1.unwrap().1.unwrap().auth, auth(b"<torS0Y>", b"t"));
    for user in [&b"<torS0X>"[..], b"<torS0X>1", b"<torS0X>00", b"<torS0X>1abcd"] {
        let (out, result) = ask(user);
        assert_eq!(result, Err(SocksError::Extension));
        assert_eq!(out, b"\x05\x02\x01\x01");
    }
}

#[test]
fn version_4_and_4a() {
    let input = b"\x04\x01\x00\x50\xc0\x00\x02\x07me\x00rest";
    let (out, result) = serve(input);
    let (used, request) = result.unwrap();
    assert!(out.is_empty());
    assert_eq!(&input[used..], b"rest");
    let expected = Request {
        version: Version::V4,
        command: Command::Connect,
        host: address("192.0.2.7"),
        is_literal: true,
        port: 80,
        auth: auth(b"me", b""),
    };
    assert_eq!(request, Some(expected));

    let input = b"\x04\x01\x00\x50\x00\x00\x00\x01\x00example.com\x00";
    let request = serve(input).1.unwrap().1.unwrap();
    assert_eq!((request.host, request.is_literal, request.auth), (name("example.com"), false, None));
    let resolve = serve(b"\x04\xf0\x00\x00\x00\x00\x00\x01\x00example.com\x00").1.unwrap().1.unwrap();
    assert_eq!((resolve.command, resolve.port), (Command::Resolve, 0));
}

#[test]
fn refusals_of_version_4() {
    let no = &[0, 91, 0, 0, 0, 0, 0, 0][..];
    for (input, error) in [
        (&b"\x04\x02\x00\x50\xc0\x00\x02\x07\x00"[..], SocksError::Command(Version::V4, 2)),
        (b"\x04\xf1\x00\x50\xc0\x00\x02\x07\x00", SocksError::Command(Version::V4, 0xf1)),
        (b"\x04\x01\x00\x50\x00\x00\x00\x00\x00", SocksError::NoAddress),
        (b"\x04\x01\x00\x00\xc0\x00\x02\x07\x00", SocksError::Port),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00ex ample\x00", SocksError::Name),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00", SocksError::Name),
    ] {
        let (out, result) = serve(input);
        assert_eq!((result, &out[..]), (Err(error), no), "{input:?}");
    }
}

#[test]
fn refusals_of_version_5() {
    for (request, error, status) in [
        (&b"\x05\x02\x00\x01\x01\x02\x03\x04\x00\x50"[..], SocksError::Command(Version::V5, 2), 7),
        (b"\x05\x03\x00\x03\x01a\x00\x50", SocksError::Command(Version::V5, 3), 7),
        (b"\x05\x01\x00\x02\x01\x02\x03\x04\x00\x50", SocksError::AddressType(2), 8),
        (b"\x05\xf1\x00\x03\x01a\x00\x00", SocksError::NotAnAddress, 8),
        (b"\x05\x01\x00\x03\x00\x00\x50", SocksError::Name, 1),
        (b"\x05\x01\x00\x03\x03a\x00b\x00\x50", SocksError::Name, 1),
        (b"\x05\x01\x00\x03\x03[1]\x00\x50", SocksError::Name, 1),
        (b"\x05\x01\x00\x03\x01a\x00\x00", SocksError::Port, 1),
        (b"\x04\x01\x00\x03\x01a\x00\x50", SocksError::Mixed(4), 1),
    ] {
        let (out, result) = serve(&joined(&[V5_HELLO, request]));
        let expected = [5, 0, 5, status, 0, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!((result, &out[..]), (Err(error), &expected[..]), "{request:?}");
    }
    assert_eq!(serve(b"\x05\x01\x01"), (b"\x05\xff".to_vec(), Err(SocksError::Methods)));
    assert_eq!(serve(b"\x05\x00"), (b"\x05\xff".to_vec(), Err(SocksError::Methods)));
    let (out, result) = serve(b"\x05\x01\x02\x05\x01");
    assert_eq!(result, Err(SocksError::AuthVersion(5)));
    assert_eq!(out, b"\x05\x02\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00");
}

#[test]
fn browsers_get_a_page() {
    for request in ["GET / HTTP/1.1\r\n", "HEAD /", "POST /", "CONNECT example.com:443"] {
        let (out, result) = serve(request.as_bytes());
        assert_eq!(result, Err(SocksError::Http));
        assert!(out.starts_with(b"HTTP/1.0 501 ") && out.ends_with(b"</html>\n"));
    }
    assert_eq!(serve(b"\x16\x03\x01"), (vec![], Err(SocksError::Version(0x16))));
}

#[test]
fn names_that_are_addresses() {
    for (text, host) in [
        ("192.0.2.1", Some(address("192.0.2.1"))),
        ("[2001:db8::1]", Some(address("2001:db8::1"))),
        ("2001:db8::1", Some(address("2001:db8::1"))),
        ("Example.com.", Some(name("Example.com."))),
        ("_dmarc.example.com", None),
        ("a_b.example.com", Some(name("a_b.example.com"))),
        ("[192.0.2.1]", None),
        ("[2001:db8::1", None),
        ("exa mple", None),
        ("", None),
    ] {
        assert_eq!(Host::parse(text), host, "{text}");
    }
    let input = joined(&[V5_HELLO, b"\x05\x01\x00\x03\x09192.0.2.1\x00\x50"]);
    let request = serve(&input).1.unwrap().1.unwrap();
    assert_eq!((request.host, request.is_literal), (address("192.0.2.1"), false));
}

#[test]
fn a_message_without_end_is_refused() {
    let mut input = b"\x04\x01\x00\x50\xc0\x00\x02\x07".to_vec();
    input.resize(crate::limits::SOCKS_MESSAGE - 1, b'x');
    assert_eq!(serve(&input).1, Ok((0, None)));
    input.push(b'x');
    assert_eq!(serve(&input).1, Err(SocksError::TooLong));
    // Also if its end has arrived along with it.
    input.push(b'\0');
    assert_eq!(serve(&input).1, Err(SocksError::TooLong));
    let longest = joined(&[
        b"\x04\x01\x00\x50\x00\x00\x00\x01",
        &[b'u'; 255],
        b"\x00",
        [&b"abcdefg."[..]; 31].concat().as_slice(),
        b"abcdefg\x00",
    ]);
    assert_eq!(longest.len(), crate::limits::SOCKS_MESSAGE);
    assert!(serve(&longest).1.unwrap().1.is_some());
}

fn request(version: Version, command: Command) -> Request {
    let host = name("example.com");
    Request { version, command, host, is_literal: false, port: 80, auth: None }
}

#[test]
fn answers() {
    let answer = |version, write: &dyn Fn(&Request, &mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&request(version, Command::Connect), &mut out);
        out
    };
    let status = |status: Status| move |r: &Request, out: &mut Vec<u8>| r.write_status(status, out);
    assert_eq!(answer(Version::V5, &status(Status::Succeeded)), [5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(answer(Version::V5, &status(Status::TtlExpired)), [5, 6, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(answer(Version::V4, &status(Status::Succeeded)), [0, 90, 0, 0, 0, 0, 0, 0]);
    assert_eq!(answer(Version::V4, &status(Status::TtlExpired)), [0, 91, 0, 0, 0, 0, 0, 0]);

    let ip = |text: &'static str| {
        move |r: &Request, out: &mut Vec<u8>| r.write_address(text.parse().unwrap(), out)
    };
    assert_eq!(answer(Version::V5, &ip("192.0.2.7")), [5, 0, 0, 1, 192, 0, 2, 7, 0, 0]);
    assert_eq!(answer(Version::V4, &ip("192.0.2.7")), [0, 90, 0, 0, 192, 0, 2, 7]);
    assert_eq!(answer(Version::V4, &ip("2001:db8::1")), [0, 91, 0, 0, 0, 0, 0, 0]);
    let v6 = answer(Version::V5, &ip("2001:db8::1"));
    assert_eq!((v6.len(), &v6[..8]), (22, &[5, 0, 0, 4, 0x20, 1, 0x0d, 0xb8][..]));

    let named = |text: &'static str| move |r: &Request, out: &mut Vec<u8>| r.write_name(text, out);
    assert_eq!(answer(Version::V5, &named("a.example")), b"\x05\x00\x00\x03\x09a.example\x00\x00");
    assert_eq!(answer(Version::V4, &named("a.example")), [0, 91, 0, 0, 0, 0, 0, 0]);
    let long: &'static str = "x".repeat(256).leak();
    assert_eq!(answer(Version::V5, &named(long)), [5, 4, 0, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn statuses_and_their_bytes() {
    for byte in 0..=255 {
        let status = Status::from_wire(byte);
        assert_eq!(status.to_wire(), byte);
        assert!(status.plain().to_wire() < 0xf0 || matches!(status, Status::Unknown(_)));
        assert!(!status.meaning().is_empty());
    }
    assert_eq!(Status::DescriptorNotFound.plain(), Status::HostUnreachable);
    assert_eq!(Status::BadOnionAddress.plain(), Status::GeneralFailure);
    assert_eq!(Status::Refused.plain(), Status::Refused);
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?}", auth(b"user", b"secret"));
    assert!(!shown.contains("secret") && !shown.contains("user"), "{shown}");
}

#[test]
fn a_client_says_what_it_must() {
    let mut out = Vec::new();
    let mut client = Client::new(Command::Resolve, name("example.com"), 0, auth(b"u", b"pw"), &mut out);
    assert_eq!(std::mem::take(&mut out), b"\x05\x01\x02");
    assert_eq!(client.handle(b"\x05", &mut out), Ok((0, None)));
    assert_eq!(client.handle(b"\x05\x02", &mut out), Ok((2, None)));
    assert_eq!(std::mem::take(&mut out), b"\x01\x01u\x02pw");
    assert_eq!(client.handle(b"\x01\x00", &mut out), Ok((2, None)));
    assert_eq!(std::mem::take(&mut out), b"\x05\xf0\x00\x03\x0bexample.com\x00\x00");
    let answer = client.handle(b"\x05\x00\x00\x01\xc0\x00\x02\x07\x00\x00more", &mut out);
    assert_eq!(answer, Ok((10, Some(Answer::Address("192.0.2.7".parse().unwrap())))));
    assert_eq!(client.handle(b"more", &mut out), Ok((0, None)));
}

#[test]
fn a_client_says_why_there_is_no_answer() {
    let ask = |credentials: Option<Auth>, answers: &[u8]| {
        let mut out = Vec::new();
        Client::new(Command::Connect, address("::1"), 80, credentials, &mut out)
            .handle(answers, &mut out)
            .map(|(_, answer)| answer)
    };
    assert_eq!(ask(None, b"HTTP"), Err(ClientError::NotSocks5(b'H')));
    assert_eq!(ask(None, b"\x05\xff"), Err(ClientError::Method(0xff)));
    assert_eq!(ask(None, b"\x05\x02"), Err(ClientError::Method(2)));
    assert_eq!(ask(auth(b"", b""), b"\x05\x02\x01\x07"), Err(ClientError::Denied(7)));
    let refused = ask(None, b"\x05\x00\x05\x04\x00");
    assert_eq!(refused, Err(ClientError::Refused(Status::HostUnreachable)));
    assert_eq!(ask(None, b"\x05\x00\x05\x00\x00\x09"), Err(ClientError::Address(9)));
    assert_eq!(ask(None, b"\x05\x00\x05\x00\x00\x03\x01\xff\x00\x00"), Err(ClientError::Address(3)));
}

fn any_host() -> impl Strategy<Value = Host> {
    prop_oneof![
        "[a-z0-9][a-z0-9-]{0,20}(\\.[a-z][a-z0-9_]{0,20}){0,3}"
            .prop_filter_map("a name", |text| Host::parse(&text)),
        any::<IpAddr>().prop_map(Host::Address),
    ]
}

fn any_bytes(len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..len)
}

proptest! {
    #[test]
    fn pieces_make_no_difference(
        start in prop_oneof![
            Just(vec![]), Just(V5_HELLO.to_vec()), Just(b"\x05\x02\x00\x02\x01".to_vec()), Just(b"\x04\x01".to_vec()),
            Just(joined(&[V5_HELLO, b"\x05\x01\x00\x03"])), Just(joined(&[V5_HELLO, b"\x05\xf1\x00\x04"])),
        ],
        rest in any_bytes(600),
        sizes in prop::collection::vec(1usize..40, 0..20),
    ) {
        let input = [start, rest].concat();
        let whole = serve(&input);
        prop_assert_eq!(&whole, &serve_in_pieces(&input, &sizes));
        if let Ok((used, _)) = whole.1 {
            prop_assert!(used <= input.len() && (input.len() - used < crate::limits::SOCKS_MESSAGE || whole.1.unwrap().1.is_some()));
        }
    }

    #[test]
    fn a_client_and_a_server_understand_each_other(
        host in any_host(),
        port in 1u16..,
        credentials in prop::option::of((any_bytes(256), any_bytes(256))),
        answer in any_host(),
        data in any_bytes(20),
    ) {
        let auth = credentials
            .map(|(user, password)| Auth { user: user.into(), password: password.into() })
            .filter(|auth| !auth.user.starts_with(b"<torS0X>"));
        let command = if matches!(host, Host::Address(_)) { Command::ResolvePtr } else { Command::Connect };
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        let mut client = Client::new(command, host.clone(), port, auth.clone(), &mut to_server);
        let mut server = Server::new(false);
        let request = loop {
            let (used, request) = server.handle(&to_server, &mut to_client).unwrap();
            to_server.drain(..used);
            if let Some(request) = request {
                break request;
            }
            let (used, answer) = client.handle(&to_client, &mut to_server).unwrap();
            to_client.drain(..used);
            prop_assert!(answer.is_none());
        };
        let is_literal = matches!(host, Host::Address(_));
        let version = Version::V5;
        prop_assert_eq!(&request, &Request { version, command, host, is_literal, port, auth });

        to_client.clear();
        let expected = match answer {
            Host::Address(ip) => { request.write_address(ip, &mut to_client); Answer::Address(ip) }
            Host::Name(name) => { request.write_name(&name, &mut to_client); Answer::Name(name.into()) }
        };
        let len = to_client.len();
        to_client.extend_from_slice(&data);
        prop_assert_eq!(client.handle(&to_client, &mut to_server), Ok((len, Some(expected))));
    }

    #[test]
    fn a_client_survives_any_answer(answers in any_bytes(600)) {
        let mut out = Vec::new();
        let auth = auth(b"u", b"");
        let mut client = Client::new(Command::Connect, name("a"), 1, auth, &mut out);
        if let Ok((used, answer)) = client.handle(&answers, &mut out) {
            prop_assert!(used <= answers.len() && (answer.is_some() || answers.len() - used < 262));
        }
    }
}
