//! What is fuzzed: functions of any bytes that must not panic, hang or grow, and that check what holds for every input.
//!
//! The fuzzer in `proto/fuzz` drives them with coverage; the test beside this file replays the kept inputs and mutations
//! of them with every `cargo test`.

use std::sync::{Arc, OnceLock};

use onionring_proto::build_times::{BuildTimeSettings, BuildTimes};
use onionring_proto::cell::{self, BODY_LEN, Body, Command, Frame, Framing, LinkVersion};
use onionring_proto::circuit::{Outbound, RelayCircuit};
use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::crypto::tor1::{ClientOnion, KeyMaterial};
use onionring_proto::guard::Guards;
use onionring_proto::handshake::{
    self, Client, Create2, CreateFast, Created2, CreatedFast, OnionKey, OnionKeyRing, ServerIdentity, htype,
};
use onionring_proto::link::cert::{self, CertType, Certified};
use onionring_proto::link::{
    ExpectedPeer, ExportError, Handshake, LinkIdentity, LinkParams, TlsExporter, judge,
};
use onionring_proto::netdoc::authcert::AuthCert;
use onionring_proto::netdoc::consdiff;
use onionring_proto::netdoc::consensus::UnverifiedConsensus;
use onionring_proto::netdoc::detached::DetachedSignatures;
use onionring_proto::netdoc::extrainfo::ExtraInfo;
use onionring_proto::netdoc::microdesc::Microdesc;
use onionring_proto::netdoc::params::ConsensusParams;
use onionring_proto::netdoc::routerdesc::RouterDesc;
use onionring_proto::netdoc::tally::{Tally, Terms};
use onionring_proto::netdoc::vote::{self, SignedVote};
use onionring_proto::netdoc::{text, text_of};
use onionring_proto::path::NodeSet;
use onionring_proto::policy::ExitPolicy;
use onionring_proto::relay_msg::{
    self, Begin, Connected, End, Extend2, Extended2, RelayCmd, Resolve, Resolved, Sendme, StreamId, Truncate,
    Truncated,
};
use onionring_proto::socks::{self, Client as SocksClient, Command as SocksCommand, Server as SocksServer};
use onionring_proto::state_file::{Damage, StateFile};
use onionring_proto::time::Unix;
use onionring_proto::torrc::{Settings, lines};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// A target: its name, which is that of its corpus too, and the function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("cells", cells),
    ("link_responder", link_responder),
    ("link_initiator", link_initiator),
    ("handshakes", handshakes),
    ("relay_messages", relay_messages),
    ("relay_circuit", relay_circuit),
    ("router_descriptor", router_descriptor),
    ("extra_info", extra_info),
    ("microdescriptor", microdescriptor),
    ("authority_cert", authority_cert),
    ("consensus", consensus),
    ("consensus_diff", consensus_diff),
    ("vote", vote),
    ("detached_signatures", detached_signatures),
    ("torrc", torrc),
    ("state_file", state_file),
    ("socks_server", socks_server),
    ("socks_client", socks_client),
    ("node_sets", node_sets),
];

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

/// The first byte says how bytes are framed; the rest is read as cells, and what is read is written again.
fn cells(data: &[u8]) {
    let Some((&mode, data)) = data.split_first() else { return };
    let framing = match LinkVersion::from_number(u16::from(mode % 4) + 2) {
        Some(version) => Framing::Negotiated(version),
        None => Framing::Initial,
    };
    let mut buf = data.to_vec();
    let mut used = 0;
    while let Ok(Some((n, frame))) = cell::next_frame(framing, &mut buf[used..]) {
        assert!(n > 0);
        let mut again = Vec::new();
        match (&frame, framing) {
            (Frame::Fixed { circ_id, command, body }, Framing::Negotiated(version)) => {
                cell::write_fixed(version, *circ_id, *command, body, &mut again);
                let _ = judge(version, &frame);
            }
            (Frame::Fixed { .. }, Framing::Initial) => unreachable!("only VERSIONS and the like come first"),
            (Frame::Variable { circ_id, command, body }, _) => {
                cell::write_variable(framing, *circ_id, *command, body, &mut again);
            }
        }
        assert_eq!(again, data[used..used + n]);
        used += n;
    }
}

struct NoTls;

impl TlsExporter for NoTls {
    fn export(&self, _label: &[u8], _context: &[u8], out: &mut [u8; 32]) -> Result<(), ExportError> {
        out.fill(7);
        Ok(())
    }
}

/// When the recorded flights of the corpus were sent.
const RECORDED: Unix = Unix(1_795_346_690);

fn identity() -> Arc<LinkIdentity> {
    static IDENTITY: OnceLock<Arc<LinkIdentity>> = OnceLock::new();
    let make = || {
        let rsa = RsaPrivate::from_pem(include_str!("../../src/crypto/rsa/test_key.pem")).expect("a key");
        let (master, signing) = (Ed25519Pair::from_seed(&[1; 32]), Ed25519Pair::from_seed(&[2; 32]));
        let certified = Certified::Ed25519(signing.public());
        let expires = Unix(RECORDED.0 + 86_400 * 30);
        let cert = cert::build(CertType::IDENTITY_V_SIGNING, certified, expires, &master);
        let identity = LinkIdentity::new(&rsa, &cert, &signing, b"leaf", RECORDED, &mut rng());
        Arc::new(identity.expect("keys that belong together"))
    };
    IDENTITY.get_or_init(make).clone()
}

fn link_params() -> LinkParams {
    let address = [127, 0, 0, 1].into();
    LinkParams { versions: LinkVersion::ALL.to_vec(), peer_address: address, own_addresses: vec![address] }
}

/// Hands the bytes over in two parts, as a connection may.
fn drive(mut handshake: Handshake, data: &[u8]) {
    let mut out = Vec::new();
    let split = data.first().map_or(0, |&at| usize::from(at) * data.len() / 256);
    let mut buf = data.get(1..).unwrap_or_default().to_vec();
    let mut used = 0;
    for end in [split.min(buf.len()), buf.len()] {
        match handshake.handle(RECORDED, &mut buf[used..end], &NoTls, &mut rng()) {
            Ok((n, None)) => used += n,
            Ok((_, Some(_))) | Err(_) => break,
        }
        handshake.poll_transmit(&mut out);
    }
}

fn link_responder(data: &[u8]) {
    drive(Handshake::responder(identity(), link_params()), data);
}

fn link_initiator(data: &[u8]) {
    let handshake =
        Handshake::initiator(Some(identity()), ExpectedPeer::default(), recorded_leaf(), link_params());
    drive(handshake, data);
}

/// The TLS certificate of the recorded responder, so that its certificates are worth checking.
fn recorded_leaf() -> &'static [u8] {
    static LEAF: OnceLock<Vec<u8>> = OnceLock::new();
    LEAF.get_or_init(|| {
        let recording = include_str!("../../src/link/handshake/testdata/tor-0.4.9.11-responder-v5.txt");
        let hex = recording.lines().find_map(|line| line.strip_prefix("tls_leaf ")).expect("in the file");
        let digit = |b: u8| (b as char).to_digit(16).expect("hex") as u8;
        hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    })
}

/// The start of a cell body, the rest zero.
fn body(data: &[u8]) -> Body {
    let mut body = [0; BODY_LEN];
    let n = data.len().min(BODY_LEN);
    body[..n].copy_from_slice(&data[..n]);
    body
}

/// The bytes as body of each cell of a circuit handshake, answered as a relay and read as a client. Then honest
/// messages with the bytes laid over them, so that all zeros is an honest handshake.
fn handshakes(data: &[u8]) {
    static KEYS: OnceLock<OnionKeyRing> = OnceLock::new();
    let keys = KEYS.get_or_init(|| OnionKeyRing::new(OnionKey::from_secret(&[3; 32]), None, &mut rng()));
    let onion_key = keys.current().public();
    let server = ServerIdentity { rsa_id: [4; 20], ed_id: [5; 32] };
    let terms = handshake::Terms { half_close: data.len() % 2 == 1 };
    let respond =
        |htype, hdata: &[u8]| handshake::respond_with(&mut rng(), &server, keys, terms, htype, hdata).ok();
    let body = body(data);
    if let Ok(create) = Create2::parse(&body)
        && let Some((reply, ..)) = respond(create.htype, create.hdata)
    {
        let mut created = [0; BODY_LEN];
        Created2 { hdata: &reply }.write(&mut created);
        assert_eq!(Created2::parse(&created).map(|created| created.hdata), Ok(&reply[..]));
    }
    let _ = Created2::parse(&body);
    let _ = handshake::fast::server(&mut rng(), &CreateFast::parse(&body).x);
    let _ = handshake::fast::Client::start(&mut rng()).0.finish(&CreatedFast::parse(&body).reply);

    let overlay = |message: &mut [u8]| message.iter_mut().zip(data).for_each(|(byte, with)| *byte ^= with);
    for htype in [htype::NTOR, htype::NTOR_V3] {
        let (client, mut hdata) = match htype {
            htype::NTOR => {
                let (client, hdata) = handshake::ntor::Client::start(&mut rng(), &server.rsa_id, onion_key);
                (Client::Ntor(client), hdata)
            }
            _ => {
                let (client, hdata) =
                    handshake::ntor_v3::Client::start_asking(&mut rng(), &server.ed_id, onion_key, terms);
                (Client::NtorV3(client), hdata)
            }
        };
        let (mut reply, _, granted) = respond(htype, &hdata).expect("an honest handshake is answered");
        overlay(&mut hdata);
        let changed = data.iter().take(hdata.len()).any(|&byte| byte != 0);
        assert!(!changed || respond(htype, &hdata).is_none_or(|(other, ..)| other != reply));
        overlay(&mut reply);
        let changed = data.iter().take(reply.len()).any(|&byte| byte != 0);
        let agreed = client.agree(&reply).ok().map(|(_, terms)| terms);
        assert_eq!(agreed, (!changed).then_some(granted));
    }
}

/// The bytes as body of each relay message; what is read is written and read again.
fn relay_messages(data: &[u8]) {
    let _ = relay_msg::decode(&body(data));
    let data = &data[..data.len().min(relay_msg::MAX_DATA_LEN)];
    macro_rules! again {
        ($kind:ty, $parsed:expr) => {
            if let Ok(parsed) = $parsed {
                let mut out = Vec::new();
                parsed.write(&mut out);
                assert_eq!(<$kind>::parse(&out).as_ref(), Ok(&parsed));
            }
        };
    }
    again!(Begin<'_>, Begin::parse(data));
    again!(Connected, Connected::parse(data));
    again!(Extend2<'_>, Extend2::parse(data));
    again!(Extended2<'_>, Extended2::parse(&data[..data.len().min(498)]));
    again!(Sendme, Sendme::parse(data));
    again!(Truncate, Truncate::parse(data));
    again!(Truncated, Truncated::parse(data));
    again!(Resolve<'_>, Resolve::parse(data));
    let _ = Resolved::parse(data);
    let end = End::parse(data);
    let mut out = Vec::new();
    end.write(&mut out);
    assert_eq!(End::parse(&out), end);
}

/// The bytes as a sequence of cells to a relay: `flags 1 | command 1 | stream 1 | length 1 | data`, encrypted as its
/// client would, or not at all.
fn relay_circuit(mut data: &[u8]) {
    let keys = KeyMaterial { df: [1; 20], db: [2; 20], kf: [3; 16], kb: [4; 16], kh: [5; 20] };
    let mut relay = RelayCircuit::new(&keys, 1000, true);
    let mut client = ClientOnion::new();
    client.push_hop(&keys);
    let mut rng = rng();
    while let [flags, cmd, stream, len, rest @ ..] = data {
        let (msg, rest) = rest.split_at(rest.len().min((*len).into()));
        data = rest;
        let mut body = [0; BODY_LEN];
        relay_msg::encode(RelayCmd(*cmd), StreamId((*stream).into()), msg, &mut rng, &mut body);
        if flags & 1 == 0 {
            client.encrypt_outbound(0, &mut body);
        }
        relay.set_joined(flags & 2 != 0);
        let command = if flags & 4 == 0 { Command::RELAY } else { Command::RELAY_EARLY };
        match relay.outbound(command, &mut body) {
            Ok(Outbound::Forward) => {}
            Ok(Outbound::Recognised(tag)) => {
                if relay.receive(command == Command::RELAY_EARLY, tag, &body).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
        if flags & 8 != 0 && relay.window() > 0 {
            let len = msg.len().min(relay.data_limit());
            relay.originate(RelayCmd::DATA, StreamId(1), &msg[..len], &mut rng, &mut body);
            assert!(client.decrypt_inbound(&mut body).is_some());
        }
    }
}

fn router_descriptor(data: &[u8]) {
    let Ok(text) = text_of(data) else { return };
    let _ = RouterDesc::parse(text);
    let _ = ExitPolicy::from_descriptor(text.lines());
}

fn extra_info(data: &[u8]) {
    let _ = text_of(data).map(ExtraInfo::parse);
}

fn microdescriptor(data: &[u8]) {
    let Ok(text) = text_of(data) else { return };
    let total: usize = Microdesc::parse_all(text).map(|(part, _)| part.len()).sum();
    assert!(total <= text.len());
}

fn authority_cert(data: &[u8]) {
    let Ok(text) = text_of(data) else { return };
    let total: usize = AuthCert::parse_all(text).map(|(part, _)| part.len()).sum();
    assert!(total <= text.len());
}

fn consensus(data: &[u8]) {
    let _ = text_of(data).map(UnverifiedConsensus::parse);
}

/// Up to the first NUL a base, after it the commands of a diff for that, which serve as another consensus, too.
fn consensus_diff(data: &[u8]) {
    let Ok(data) = text_of(data) else { return };
    let (base, rest) = data.split_once('\0').unwrap_or((data, ""));
    let from = text::hex_upper(&consdiff::signed_sha3(base));
    let diff = format!("network-status-diff-version 1\nhash {from} {}\n{rest}", "0".repeat(64));
    assert!(consdiff::is_diff(&diff));
    assert!(consdiff::apply(base, &diff).is_err(), "no text has that digest");
    let _ = consdiff::apply(base, rest);
    if let Ok(diff) = consdiff::generate(base, rest) {
        assert_eq!(consdiff::apply(base, &diff).as_deref(), Ok(rest));
    }
}

/// Votes one after the other; a consensus comes of those that read.
fn vote(data: &[u8]) {
    let Ok(text) = text_of(data) else { return };
    let votes: Vec<SignedVote> = vote::split(text).filter_map(|one| SignedVote::parse(one).ok()).collect();
    let _ = Tally::of(&votes, &Terms { authorities: votes.len(), shared_random: None });
}

/// What is read is written, and reads as the same again.
fn detached_signatures(data: &[u8]) {
    if let Ok(Ok(read)) = text_of(data).map(DetachedSignatures::parse) {
        assert_eq!(DetachedSignatures::parse(&read.encode()), Ok(read));
    }
}

/// Lists of relays: what is read can be put together again.
fn node_sets(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut all = NodeSet::default();
    let one = |entry: &str| NodeSet::parse(entry).map(|set| all.extend(set));
    let parts = text.split(',').map(one).collect::<Result<Vec<()>, _>>();
    match NodeSet::parse(text) {
        Ok(set) => assert_eq!(set, all),
        Err(error) => assert!(parts.is_err() && error.to_string().len() < 500),
    }
}

/// A configuration file; what it comes to is written, and comes to the same when it is read again.
fn torrc(data: &[u8]) {
    let dump = configured(data).dump(None);
    assert_eq!(configured(dump.as_bytes()).dump(None), dump);
}

fn configured(torrc: &[u8]) -> Settings {
    let (mut problems, mut notes) = (Vec::new(), Vec::new());
    let read = lines::parse(torrc, &"torrc".into(), &mut problems);
    let items = read.into_iter().filter_map(|line| match line {
        lines::Line::Item(item) => Some(item),
        _ => None,
    });
    let mut settings = Settings::default();
    settings.assign(items.collect(), &mut problems, &mut notes);
    settings
}

/// What a client remembers: what is read is written, and reads as the same again, without damage.
fn state_file(data: &[u8]) {
    let Ok(text) = text_of(data) else { return };
    let mut file = StateFile::read(text);
    let (guards, _) = Guards::read(&file, RECORDED);
    guards.write(&mut file);
    let (times, _) = read_times(&file);
    times.write(&mut file);
    let written = file.to_string();
    let mut file = StateFile::read(&written);
    let (guards, damage) = Guards::read(&file, RECORDED);
    assert!(damage.is_empty(), "{damage:?}");
    guards.write(&mut file);
    let (times, damage) = read_times(&file);
    assert_eq!(damage, None);
    times.write(&mut file);
    assert_eq!(file.to_string(), written);
}

fn read_times(file: &StateFile) -> (BuildTimes, Option<Damage>) {
    BuildTimes::read(file, &ConsensusParams::default(), &BuildTimeSettings::default(), &mut rng())
}

/// The first byte says where the bytes are cut in two; that must make no difference.
fn socks_server(data: &[u8]) {
    let Some((&at, data)) = data.split_first() else { return };
    let serve = |cut: usize| {
        let (mut server, mut out) = (SocksServer::new(at & 1 == 1), Vec::new());
        let mut used = 0;
        for end in [cut.min(data.len()), data.len()] {
            match server.handle(&data[used..end], &mut out) {
                Ok((n, None)) => used += n,
                Ok((n, request)) => return (out, Ok((used + n, request))),
                Err(error) => return (out, Err(error)),
            }
        }
        (out, Ok((used, None)))
    };
    let (out, result) = serve(at.into());
    assert_eq!((&out, &result), (&serve(data.len()).0, &serve(data.len()).1));
    if let Ok((used, Some(request))) = result {
        assert!(used <= data.len());
        assert!(request.port != 0 || request.command != SocksCommand::Connect);
        let mut answer = Vec::new();
        request.write_status(socks::Status::Succeeded, &mut answer);
        assert!(!answer.is_empty());
    }
}

/// The first byte says whether a password is offered, the rest is what a proxy answers.
fn socks_client(data: &[u8]) {
    let Some((&mode, data)) = data.split_first() else { return };
    let mut out = Vec::new();
    let auth = (mode & 1 == 1).then(|| socks::Auth { user: b"user".as_slice().into(), password: [].into() });
    let host = socks::Host::Name("example.com".into());
    let mut client = SocksClient::new(SocksCommand::Resolve, host, 0, auth, &mut out);
    if let Ok((used, _)) = client.handle(data, &mut out) {
        assert!(used <= data.len());
    }
    assert!(out.len() < 300);
}
