//! What is answered from the documents of a real network.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use onionring_node::compress::{Encoding, decompress};
use onionring_proto::netdoc::consdiff;
use onionring_proto::netdoc::consensus::UnverifiedConsensus;
use onionring_proto::netdoc::text::{self, Fingerprint};
use onionring_proto::time::Unix;
use proptest::prelude::*;

use super::http::{self, RequestReader};
use super::serve::{Asker, refuse, respond};
use super::snapshot::{DirSnapshot, OwnDocs, RouterDoc};
use super::spool::{Blob, Spool};
use super::testdata::{self, NOW};

fn dir() -> &'static DirSnapshot {
    static DIR: LazyLock<DirSnapshot> = LazyLock::new(|| testdata::library_with_diffs().snapshot());
    &DIR
}

/// An answer as it arrives at the client.
struct Got {
    status: String,
    headers: String,
    body: Vec<u8>,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn ask_at(dir: &DirSnapshot, now: Unix, address: Option<IpAddr>, request: &str) -> Got {
    let asker = Asker { address, now, may_encode: true };
    let response = match RequestReader::default().push(request.as_bytes()) {
        Ok(read) => respond(dir, &read.unwrap().0, asker),
        Err(refusal) => refuse(refusal, now).unwrap(),
    };
    let mut spool = Spool::new(response).unwrap();
    let mut bytes = vec![0; 1 << 20];
    let n = spool.fill(&mut bytes).unwrap();
    assert!(spool.is_finished());
    let at = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = std::str::from_utf8(&bytes[..at + 2]).unwrap();
    let (status, headers) = head.split_once("\r\n").unwrap();
    Got { status: status.into(), headers: headers.into(), body: bytes[at + 4..n].to_vec() }
}

fn ask(request: &str) -> Got {
    ask_at(dir(), NOW, None, request)
}

fn get(path: &str) -> Got {
    ask(&format!("GET {path} HTTP/1.0\r\n\r\n"))
}

fn get_with(path: &str, header: &str) -> Got {
    ask(&format!("GET {path} HTTP/1.0\r\n{header}\r\n\r\n"))
}

const CONSENSUS: &str = "/tor/status-vote/current/consensus";
const CONSENSUS_MICRODESC: &str = "/tor/status-vote/current/consensus-microdesc";

#[test]
fn a_consensus_has_the_headers_that_c_tor_sends() {
    let got = get(CONSENSUS_MICRODESC);
    assert_eq!(got.status, "HTTP/1.0 200 OK");
    let names: Vec<&str> = got.headers.lines().filter_map(|l| l.split(": ").next()).collect();
    assert_eq!(names, ["Date", "Content-Type", "Content-Encoding", "Expires", "Vary"]);
    let fresh_until = dir().microdesc.as_ref().unwrap().lifetime.fresh_until;
    assert_eq!(got.header("Expires").unwrap(), http::format_date(fresh_until));
    assert_eq!(got.header("Content-Encoding"), Some("identity"));
    assert_eq!(got.text(), testdata::CONSENSUS_MICRODESC);
    // After that moment it may change at any time.
    let request = format!("GET {CONSENSUS} HTTP/1.0\r\n\r\n");
    let got = ask_at(dir(), fresh_until, None, &request);
    assert_eq!((got.header("Pragma"), got.header("Expires")), (Some("no-cache"), None));
}

#[test]
fn flavours() {
    assert_eq!(get(CONSENSUS).text(), testdata::CONSENSUS_NS);
    assert_eq!(get(&format!("{CONSENSUS}-ns")).text(), testdata::CONSENSUS_NS);
    assert_eq!(get(&format!("{CONSENSUS}-future")).text(), testdata::CONSENSUS_NS);
    assert_eq!(get(CONSENSUS_MICRODESC).text(), testdata::CONSENSUS_MICRODESC);
}

#[test]
fn encodings_of_stored_and_streamed_documents() {
    let cases = [
        ("", Encoding::Identity, Encoding::Identity),
        ("deflate, gzip, x-tor-lzma, x-zstd", Encoding::Lzma, Encoding::Zstd),
        ("x-zstd, gzip", Encoding::Zstd, Encoding::Zstd),
        ("deflate, gzip", Encoding::Deflate, Encoding::Deflate),
        ("gzip", Encoding::Gzip, Encoding::Gzip),
        ("x-tor-lzma", Encoding::Lzma, Encoding::Identity),
        ("identity, br", Encoding::Identity, Encoding::Identity),
    ];
    for (accept, stored, streamed) in cases {
        let header = format!("accept-encoding: {accept}");
        for (path, encoding, plain) in
            [(CONSENSUS, stored, testdata::CONSENSUS_NS), ("/tor/keys/all", streamed, testdata::CERTS)]
        {
            let got = get_with(path, &header);
            assert_eq!(got.header("Content-Encoding"), Some(encoding.token()), "{path} {accept}");
            let body = decompress(encoding, &got.body, 1 << 20).unwrap();
            assert_eq!(body.len(), plain.len(), "{path} {accept}");
        }
    }
    assert_eq!(get(&format!("{CONSENSUS}.z")).header("Content-Encoding"), Some("deflate"));
    assert_eq!(
        get_with("/tor/keys/all.z", "Accept-Encoding: x-zstd").header("Content-Encoding"),
        Some("x-zstd")
    );
    let busy = Asker { address: None, now: NOW, may_encode: false };
    let request = RequestReader::default().push(b"GET /tor/keys/all.z HTTP/1.0\r\n\r\n").unwrap().unwrap().0;
    assert_eq!(respond(dir(), &request, busy).encoding, Encoding::Identity);
}

#[test]
fn a_consensus_is_only_for_those_who_trust_its_signers() {
    let signers: Vec<String> = testdata::authorities().iter().map(|id| id.to_string()).collect();
    let status = |list: &[&str]| get(&format!("{CONSENSUS}/{}", list.join("+"))).status;
    const OK: &str = "HTTP/1.0 200 OK";
    const TOO_FEW: &str = "HTTP/1.0 404 Consensus not signed by sufficient number of requested authorities";
    let stranger = "00FF".repeat(10);
    assert_eq!(status(&[&signers[0], &signers[1], &signers[2]]), OK);
    assert_eq!(status(&[&signers[0][..6], &signers[1][..6].to_lowercase(), &stranger]), OK);
    assert_eq!(status(&[&signers[0], &stranger]), TOO_FEW);
    assert_eq!(status(&[&signers[0], &stranger, &stranger]), TOO_FEW);
    assert_eq!(status(&[&stranger]), TOO_FEW);
    assert_eq!(status(&["nothex"]), TOO_FEW);
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    let consensus = dir().ns.as_ref().unwrap();
    let valid_after = consensus.lifetime.valid_after;
    let since = |at: Unix| format!("If-Modified-Since: {}", http::format_date(at));
    const NOT_MODIFIED: &str = "HTTP/1.0 304 Not modified";
    assert_eq!(get_with(CONSENSUS, &since(valid_after)).status, "HTTP/1.0 200 OK");
    assert_eq!(get_with(CONSENSUS, &since(valid_after + Duration::from_secs(1))).status, NOT_MODIFIED);
    assert_eq!(get_with(CONSENSUS, "If-Modified-Since: yesterday").status, "HTTP/1.0 200 OK");
    assert_eq!(get_with("/tor/keys/all", &since(Unix(u64::from(u32::MAX)))).status, NOT_MODIFIED);
    let digest = text::hex_upper(&consensus.signed_sha3);
    let stranger = "0".repeat(64);
    let has = |list: &str| get_with(CONSENSUS, &format!("X-Or-Diff-From-Consensus: {list}"));
    assert_eq!(has(&format!("{stranger}, {digest}")).status, NOT_MODIFIED);
    // There is no such diff: the whole document will do.
    assert_eq!(has(&stranger).text(), testdata::CONSENSUS_NS);
    let diff = |hash: &str| get(&format!("{CONSENSUS}/diff/{hash}/AAAAAA")).status;
    assert_eq!(diff(&stranger), "HTTP/1.0 404 No such diff available");
    assert_eq!(diff(&digest), NOT_MODIFIED);
    assert_eq!(diff("junk"), "HTTP/1.0 404 Couldn't parse request");
}

/// Every consensus there is, with its path and the one before it.
fn pairs() -> [(&'static str, &'static str, String); 2] {
    [(CONSENSUS, testdata::CONSENSUS_NS), (CONSENSUS_MICRODESC, testdata::CONSENSUS_MICRODESC)]
        .map(|(path, target)| (path, target, testdata::earlier(target)))
}

#[test]
fn whoever_has_an_earlier_consensus_gets_the_difference() {
    for (path, target, base) in pairs() {
        let (name, stranger) = (text::hex_upper(&consdiff::signed_sha3(&base)), "0".repeat(64));
        let has = |list: &str| get_with(path, &format!("x-or-diff-from-consensus: {list}"));
        for got in [
            get(&format!("{path}/diff/{name}")),
            get(&format!("{path}/diff/{}", name.to_lowercase())),
            has(&name),
            has(&format!("{stranger},{name}")),
            has(&format!("{stranger} {name}")),
        ] {
            assert_eq!(got.status, "HTTP/1.0 200 OK");
            assert_eq!(consdiff::apply(&base, got.text()).as_deref(), Ok(target));
            // The same headers as with a whole one.
            assert_eq!(got.headers, get(path).headers);
        }
        assert_eq!(has(&stranger).text(), target);
        assert_eq!(get(&format!("{path}/diff/{stranger}")).status, "HTTP/1.0 404 No such diff available");
        let header = format!("Accept-Encoding: x-zstd, x-tor-lzma\r\nX-Or-Diff-From-Consensus: {name}");
        let got = get_with(path, &header);
        assert_eq!(got.header("Content-Encoding"), Some("x-tor-lzma"));
        let diff = String::from_utf8(decompress(Encoding::Lzma, &got.body, 1 << 20).unwrap()).unwrap();
        assert_eq!(consdiff::apply(&base, &diff).as_deref(), Ok(target));
        assert_eq!(get(&format!("{path}/diff/{name}.z")).header("Content-Encoding"), Some("deflate"));
    }
}

#[test]
fn a_diff_is_for_those_for_whom_the_consensus_is() {
    for (path, target, base) in pairs() {
        let url = format!("{path}/diff/{}", text::hex_upper(&consdiff::signed_sha3(&base)));
        let signers: Vec<String> = testdata::authorities().iter().map(|id| id.to_string()).collect();
        assert_eq!(get(&format!("{url}/{}", signers.join("+"))).status, "HTTP/1.0 200 OK");
        assert!(get(&format!("{url}/00FF+{}", signers[0])).status.contains(" 404 Consensus not signed by "));
        let valid_after = UnverifiedConsensus::parse(target).unwrap().peek().lifetime.valid_after;
        let since =
            |at: Unix| get_with(&url, &format!("If-Modified-Since: {}", http::format_date(at))).status;
        assert_eq!(since(valid_after), "HTTP/1.0 200 OK");
        assert_eq!(since(valid_after + Duration::from_secs(1)), "HTTP/1.0 304 Not modified");
        let request = format!("GET {url} HTTP/1.0\r\n\r\n");
        let late = NOW + Duration::from_secs(7 * 24 * 3600);
        assert_eq!(ask_at(dir(), late, None, &request).status, "HTTP/1.0 404 Consensus is too old");
        let nothing = ask_at(&DirSnapshot::default(), NOW, None, &request);
        assert_eq!(nothing.status, "HTTP/1.0 404 No such diff available");
    }
}

#[test]
fn a_consensus_far_from_its_time_is_kept_back() {
    let request = format!("GET {CONSENSUS} HTTP/1.0\r\n\r\n");
    let week = Duration::from_secs(7 * 24 * 3600);
    assert_eq!(ask_at(dir(), NOW + week, None, &request).status, "HTTP/1.0 404 Consensus is too old");
    assert_eq!(ask_at(dir(), NOW - week, None, &request).status, "HTTP/1.0 404 Consensus is too new");
    assert_eq!(ask_at(&DirSnapshot::default(), NOW, None, &request).status, "HTTP/1.0 404 Not found");
}

#[test]
fn descriptors_by_their_names() {
    let all = testdata::descriptors();
    let (text, desc) = &all[0];
    for path in [
        format!("/tor/server/fp/{}", desc.identity),
        format!("/tor/server/d/{}", desc.digest.to_string().to_lowercase()),
        format!("/tor/server/d/{}+{}+junk", "0".repeat(40), desc.digest),
    ] {
        let got = get(&path);
        assert_eq!(got.text(), *text, "{path}");
        assert!(got.header("Expires").is_some(), "{path}");
    }
    let mut digests: Vec<_> = all.iter().map(|(text, d)| (d.digest, *text)).collect();
    digests.sort_unstable();
    let list: Vec<String> = digests.iter().map(|(digest, _)| digest.to_string()).collect();
    let got = get(&format!("/tor/server/d/{}", list.join("+")));
    // As C tor does: a list comes from its end.
    assert_eq!(got.text(), digests.iter().rev().map(|(_, text)| *text).collect::<String>());
    assert_eq!((got.header("Pragma"), got.header("Content-Length")), (Some("no-cache"), None));
    assert_eq!(get("/tor/server/all").body.len(), testdata::DESCRIPTORS.len());
    for path in ["/tor/server/d/", "/tor/server/fp/0000", "/tor/server/authority"] {
        assert_eq!(get(path).status, "HTTP/1.0 404 Servers unavailable", "{path}");
    }
    // Whoever asks for a relay's current descriptor is not served one from the day before yesterday.
    let request = format!("GET /tor/server/fp/{} HTTP/1.0\r\n\r\n", desc.identity);
    let late = desc.published + Duration::from_secs(48 * 3600);
    assert_eq!(ask_at(dir(), late, None, &request).status, "HTTP/1.0 404 Not found");
}

#[test]
fn extra_infos_by_their_names() {
    for (text, extra) in testdata::extra_infos() {
        assert_eq!(get(&format!("/tor/extra/d/{}", extra.digests.sha1)).text(), text);
        assert_eq!(get(&format!("/tor/extra/fp/{}", extra.identity)).text(), text);
    }
    assert_eq!(get("/tor/extra/all").body.len(), testdata::EXTRA_INFOS.len());
}

#[test]
fn microdescriptors_by_their_digests() {
    let mut all: Vec<_> = testdata::microdescs().iter().map(|(text, m)| (m.digest, *text)).collect();
    all.sort_unstable();
    let list: Vec<String> = all.iter().map(|(digest, _)| text::base64_unpadded(digest)).collect();
    let got = get(&format!("/tor/micro/d/{}", list.join("-")));
    assert_eq!(got.text(), all.iter().rev().map(|(_, text)| *text).collect::<String>());
    assert!(got.header("Expires").is_some());
    for path in ["/tor/micro/d/", "/tor/micro/d/AAAA", "/tor/micro/all"] {
        assert_eq!(get(path).status, "HTTP/1.0 404 Not found", "{path}");
    }
}

#[test]
fn certificates_by_their_keys() {
    let library = testdata::library();
    let cert = library.certs().iter().next().unwrap();
    let (id, sk) = (cert.identity, cert.signing_key_id);
    let expected = &dir().certs[&(id, sk)].text;
    for path in [
        format!("/tor/keys/fp/{id}"),
        format!("/tor/keys/sk/{sk}"),
        format!("/tor/keys/fp-sk/{id}-{sk}"),
        format!("/tor/keys/fp-sk/{id}-{sk}+{sk}-{id}+junk"),
    ] {
        let got = get(&path);
        assert_eq!(got.body, expected[..], "{path}");
        assert_eq!(got.header("Content-Length"), Some(&*expected.len().to_string()));
    }
    assert_eq!(get("/tor/keys/all").body.len(), testdata::CERTS.len());
    assert_eq!(get("/tor/keys/authority").status, "HTTP/1.0 404 Not found");
    assert_eq!(get("/tor/keys/fp/junk").status, "HTTP/1.0 404 Not found");
    assert_eq!(get("/tor/keys/other/").status, "HTTP/1.0 400 Bad request");
}

#[test]
fn odds_and_ends() {
    assert_eq!(get("/tor/robots.txt").text(), "User-agent: *\r\nDisallow: /\r\n");
    for path in [
        "/tor/",
        "/tor/status-vote/current/authority",
        "/tor/status-vote/next/consensus",
        "/tor/status-vote/next/bandwidth",
        "/tor/hs/3/AAAA",
        "/tor/networkstatus-bridges",
        "/favicon.ico",
        "/tor/micro",
        "/tor/server",
    ] {
        assert_eq!(get(path).status, "HTTP/1.0 404 Not found", "{path}");
    }
    let post = ask("POST /tor/ HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(
        post.status,
        "HTTP/1.0 400 Nonauthoritative directory does not accept posted server descriptors"
    );
    let headers: Vec<&str> = post.headers.lines().map(|l| l.split(": ").next().unwrap()).collect();
    assert_eq!(headers, ["Date"]);
    assert_eq!(ask("POST /tor/hs/3/publish HTTP/1.0\r\n\r\n").status, "HTTP/1.0 404 Not found");
    assert_eq!(ask("get /tor/keys/all HTTP/1.0\r\n\r\n").status, "HTTP/1.0 400 Bad request");
    let page = DirSnapshot { front_page: Some(Blob::from(&b"<p>an exit"[..])), ..DirSnapshot::default() };
    let got = ask_at(&page, NOW, None, "GET / HTTP/1.0\r\n\r\n");
    assert_eq!((got.header("Content-Type"), got.text()), (Some("text/html"), "<p>an exit"));
}

#[test]
fn clients_learn_their_public_address() {
    let address = |ip: &str| {
        let ip = Some(ip.parse().unwrap());
        let got = ask_at(dir(), NOW, ip, "GET /tor/keys/all HTTP/1.0\r\n\r\n");
        got.header("X-Your-Address-Is").map(str::to_owned)
    };
    assert_eq!(address("198.51.100.7").as_deref(), Some("198.51.100.7"));
    assert_eq!(address("2001:db8::7").as_deref(), Some("2001:db8::7"));
    assert_eq!(address("127.0.0.1"), None);
    assert_eq!(address("10.1.2.3"), None);
}

#[test]
fn our_own_documents_are_there_at_once() {
    let doc = |text: &str| RouterDoc { text: Blob::from(text.as_bytes()), published: NOW };
    let identity = Fingerprint([7; 20]);
    let own = OwnDocs { identity, descriptor: doc("router us\n"), extra_info: doc("extra-info us\n") };
    let dir = DirSnapshot { own: Some(own), ..dir().clone() };
    let get = |path: String| ask_at(&dir, NOW, None, &format!("GET {path} HTTP/1.0\r\n\r\n"));
    assert_eq!(get("/tor/server/authority".into()).text(), "router us\n");
    assert_eq!(get(format!("/tor/server/fp/{identity}")).text(), "router us\n");
    assert_eq!(get(format!("/tor/extra/fp/{identity}")).text(), "extra-info us\n");
}

proptest! {
    #[test]
    fn any_path_gets_an_answer(path in "/(tor/)?((server|extra|micro|keys|status-vote)/)?[!-~]{0,60}") {
        let got = ask(&format!("GET {path} HTTP/1.0\r\n\r\n"));
        prop_assert!(got.status.starts_with("HTTP/1.0 "));
    }
}
