//! Programs that know nothing of onionring, at every kind of port, and the proxy's own commands: all in one network.

use std::fs::{self, Permissions};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, PTR};
use hickory_proto::rr::{Name, RData, RecordType};
use onionring_loadgen::net::dns::Answer;
use onionring_loadgen::net::{Network, Node};
use onionring_loadgen::traffic::{Digest, Pattern};

use super::{Mix, boot, circuits, client, opened, report, spec};

/// What applications fetch: so many bytes of the pattern of this seed.
const BYTES: usize = 300_000;
const SEED: u64 = 11;

/// Fetches a page through a SOCKS port as one would write it by hand, with a user name and a password, and prints the
/// SHA-256 of its body.
const PYTHON_SOCKS: &str = r#"
import hashlib, socket, sys
proxy, port, host, target, path = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]
s = socket.create_connection((proxy, port), 60)
f = s.makefile('rb')
s.sendall(b'\x05\x02\x00\x02')
assert f.read(2) == b'\x05\x02', 'the method'
s.sendall(b'\x01\x05alice\x06secret')
assert f.read(2)[1] == 0, 'the password'
name = host.encode()
s.sendall(b'\x05\x01\x00\x03' + bytes([len(name)]) + name + target.to_bytes(2, 'big'))
assert f.read(10)[:4] == b'\x05\x00\x00\x01', 'the answer'
s.sendall(f'GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n'.encode())
length = 0
while (line := f.readline().strip()):
    if line.lower().startswith(b'content-length:'):
        length = int(line.split(b':')[1])
print(hashlib.sha256(f.read(length)).hexdigest())
"#;

/// The same through HTTP CONNECT, with Python's own client.
const PYTHON_CONNECT: &str = r#"
import hashlib, http.client, sys
proxy, port, host, target, path = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]
c = http.client.HTTPConnection(proxy, port, timeout=60)
c.set_tunnel(host, target)
c.request('GET', path)
print(hashlib.sha256(c.getresponse().read()).hexdigest())
"#;

#[test]
fn programs_use_it_and_notice_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody else may come to the socket.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    let socket = folder.path().join("socks");
    let client = client()
        .torrc(&format!("+SocksPort unix:{}", socket.display()))
        .torrc("HTTPTunnelPort 127.0.0.1:auto")
        .torrc("DNSPort 127.0.0.1:auto");
    let network = boot(spec(Mix::Both, client));
    curl_downloads(&network, &socket);
    python_downloads(&network);
    dns_is_answered(&network);
    users_are_kept_apart(&network);
    commands_answer(&network);
    new_identity_takes_new_circuits(&network);
}

/// Where the proxy serves an option.
fn port(network: &Network, option: &str) -> SocketAddr {
    let report = report(network.node("client"));
    let mut ports = report.ports_of(option);
    ports.next().unwrap_or_else(|| panic!("no {option}: {report:?}")).parse().unwrap()
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {} {said}", output.status);
    output
}

fn path() -> String {
    format!("/{BYTES}?seed={SEED}")
}

fn curl_downloads(network: &Network, socket: &Path) {
    let socks = network.node("client").socks_addr().unwrap().to_string();
    let tunnel = format!("http://{}", port(network, "HTTPTunnelPort"));
    let socket = format!("socks5h://localhost{}", socket.display());
    let (name, server_port) = network.target();
    let address = network.server().address().ip().to_string();
    let mut expected = vec![0; BYTES];
    Pattern::new(SEED).fill(&mut expected);
    let ways: [(&[&str], &str); 6] = [
        (&["--socks4", &socks], &address),
        (&["--socks4a", &socks], name),
        (&["--socks5", &socks], &address),
        (&["--socks5-hostname", &socks], name),
        (&["--proxy", &socket], name),
        (&["--proxytunnel", "--proxy", &tunnel], name),
    ];
    for (way, host) in ways {
        let url = format!("http://{host}:{server_port}{}", path());
        let arguments = [&["--silent", "--show-error", "--fail", "--max-time", "60"], way, &[&*url]].concat();
        assert!(run("curl", &arguments).stdout == expected, "{way:?}: other bytes");
    }
}

fn python_downloads(network: &Network) {
    let (host, server_port) = network.target();
    let socks = network.node("client").socks_addr().unwrap();
    for (script, proxy) in [(PYTHON_SOCKS, socks), (PYTHON_CONNECT, port(network, "HTTPTunnelPort"))] {
        let words =
            [&*proxy.ip().to_string(), &proxy.port().to_string(), host, &server_port.to_string(), &path()];
        let output = run("python3", &[&["-c", script], &words[..]].concat());
        let sum = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert_eq!(sum, Digest::of_pattern(SEED, BYTES as u64).to_string(), "{script}");
    }
}

fn dns_is_answered(network: &Network) {
    let dns = port(network, "DNSPort");
    let address: IpAddr = "203.0.113.7".parse().unwrap();
    network.dns().set("host.test", Answer::Addresses(vec![address]));
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let ask = |question: &str, record| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(name(question), record));
        socket.send_to(&message.to_vec().unwrap(), dns).unwrap();
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        let answer = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(answer.metadata.id, 7);
        let data: Vec<RData> = answer.answers.iter().map(|record| record.data.clone()).collect();
        (answer.metadata.response_code, data)
    };
    let IpAddr::V4(v4) = address else { panic!("{address} is IPv4") };
    assert_eq!(ask("host.test.", RecordType::A), (ResponseCode::NoError, vec![RData::A(A(v4))]));
    let host = RData::PTR(PTR(name("host.test.")));
    assert_eq!(ask("7.113.0.203.in-addr.arpa.", RecordType::PTR), (ResponseCode::NoError, vec![host]));
    assert_eq!(ask("nowhere.test.", RecordType::A), (ResponseCode::NXDomain, vec![]));
}

fn users_are_kept_apart(network: &Network) {
    let socks = |user| network.node("client").socks().unwrap().with_user(user);
    let (mut alice, of_alice) = opened(network, &socks("alice"));
    let (mut again, of_both) = opened(network, &socks("alice"));
    let (mut bob, of_bob) = opened(network, &socks("bob"));
    assert_eq!(of_both.number, of_alice.number);
    assert_ne!(of_bob.number, of_alice.number);
    for echo in [&mut alice, &mut again, &mut bob] {
        echo.say(b"still here");
    }
}

/// Runs a command of the proxy's. What it prints, and its exit code.
fn command(client: &Node, words: &[&str]) -> (String, Option<i32>) {
    let torrc = client.dir().join("torrc").display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_onionring-proxy"));
    let output = command.args(words).args(["-f", &torrc]).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

fn commands_answer(network: &Network) {
    let client = network.node("client");
    let (host, port) = network.target();
    let server = network.server().address().ip();
    assert_eq!(command(client, &["resolve", host]), (format!("{server}\n"), Some(0)));
    assert_eq!(command(client, &["resolve", "-x", "203.0.113.7"]), ("host.test\n".to_owned(), Some(0)));
    assert_eq!(command(client, &["resolve", "nowhere.test"]), (String::new(), Some(3)));

    let (said, code) = command(client, &["check", "--url", &format!("{host}:{port}/1000")]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.lines().all(|line| line.starts_with("works  ")), "{said}");
    let (said, code) = command(client, &["check", "--url", &format!("nowhere.test:{port}/1000")]);
    assert_eq!(code, Some(3), "{said}");
    let fails: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("fails  ")).collect();
    assert!(
        matches!(fails[..], [resolve, fetch] if resolve.starts_with("resolve: ") && fetch.starts_with("fetch: ")),
        "{said}"
    );
}

fn new_identity_takes_new_circuits(network: &Network) {
    let client = network.node("client");
    let socks = client.socks().unwrap();
    let (mut before, old) = opened(network, &socks);
    let known: Vec<u64> = circuits(client).iter().map(|circuit| circuit.number).collect();
    assert!(known.contains(&old.number));
    assert_eq!(command(client, &["new-identity"]), ("new streams take new circuits\n".to_owned(), Some(0)));
    let (mut after, new) = opened(network, &socks);
    assert!(!known.contains(&new.number), "{new:?} of {known:?}");
    // What is there stays.
    before.say(b"still here");
    after.say(b"here too");
}
