use std::sync::LazyLock;

use onionring_node::directory::http::RequestReader;
use onionring_node::directory::snapshot::{Encoded, OwnDocs, RouterDoc, StoredCert, StoredConsensus};
use onionring_node::directory::spool::Spool;
use onionring_proto::netdoc::authcert::AuthCert;
use onionring_proto::netdoc::consdiff;
use onionring_proto::netdoc::consensus::UnverifiedConsensus;
use onionring_proto::netdoc::extrainfo::ExtraInfo;
use onionring_proto::netdoc::routerdesc::RouterDesc;
use onionring_proto::netdoc::text;
use proptest::prelude::*;

use super::*;
use crate::admission::AdmissionOptions;
use crate::admission::tests::{DESCRIPTORS, EXTRA_INFOS, NOW, options};
use crate::approval::Approvals;

const CONSENSUS: &str = include_str!("../../../proto/src/netdoc/testdata/consensus.txt");
const CERTS: &str = include_str!("../../../proto/src/netdoc/testdata/certs.txt");
/// When they were current.
const THEN: Unix = Unix(1_795_344_950);

struct Authority {
    directory: Directory,
    _home: tempfile::TempDir,
}

fn authority(voting: Option<Arc<dyn Voting>>) -> Authority {
    let home = tempfile::tempdir().unwrap();
    let options = AdmissionOptions { allow_private_addresses: true, ..options() };
    let uploads = Uploads::open(home.path(), options, Approvals::default(), NOW).unwrap();
    let directory = Directory::new(uploads);
    if let Some(voting) = voting {
        directory.set_voting(voting);
    }
    Authority { directory, _home: home }
}

/// Status line, headers and body.
fn ask_at(directory: &Directory, now: Unix, request: &[u8]) -> Option<(String, String, String)> {
    let (request, used) = match RequestReader::default().push(request) {
        Ok(Some((read, used))) => (read, &request[used..]),
        _ => return None,
    };
    let asker = Asker { address: None, now, may_encode: true };
    let mut spool = Spool::new(directory.answer(&request, used, asker)).unwrap();
    let mut bytes = vec![0; 1 << 20];
    let filled = spool.fill(&mut bytes).unwrap();
    assert!(spool.is_finished());
    bytes.truncate(filled);
    let at = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
    let (status, headers) = head.split_once("\r\n").unwrap();
    Some((
        status.strip_prefix("HTTP/1.0 ").unwrap().into(),
        headers.into(),
        String::from_utf8_lossy(&bytes[at + 4..]).into(),
    ))
}

fn ask(directory: &Directory, request: &str) -> (String, String, String) {
    ask_at(directory, NOW, request.as_bytes()).unwrap()
}

fn get(directory: &Directory, path: &str) -> (String, String) {
    let (status, _, body) = ask(directory, &format!("GET {path} HTTP/1.0\r\n\r\n"));
    (status, body)
}

fn post(directory: &Directory, path: &str, body: &str) -> (String, String) {
    let length = body.len();
    let (status, headers, answer) =
        ask(directory, &format!("POST {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}"));
    assert_eq!(answer, "");
    (status, headers)
}

fn blob(text: &str) -> Blob {
    text.as_bytes().into()
}

#[test]
fn what_is_uploaded_is_served_at_once() {
    let authority = authority(None);
    let directory = &authority.directory;
    assert_eq!(get(directory, "/tor/server/all").0, "404 Servers unavailable");
    let (status, headers) = post(directory, "/tor/", &format!("{DESCRIPTORS}{EXTRA_INFOS}"));
    assert_eq!((&*status, headers.contains("X-Descriptor-Not-New")), ("200 Stored", false));
    for text in split_documents(DESCRIPTORS) {
        let descriptor = RouterDesc::parse(text).unwrap();
        for path in [format!("fp/{}", descriptor.identity), format!("d/{}", descriptor.digest)] {
            assert_eq!(get(directory, &format!("/tor/server/{path}")), ("200 OK".into(), text.into()));
        }
    }
    for text in split_documents(EXTRA_INFOS) {
        let extra_info = ExtraInfo::parse(text).unwrap();
        for path in [format!("fp/{}", extra_info.identity), format!("d/{}", extra_info.digests.sha1)] {
            assert_eq!(get(directory, &format!("/tor/extra/{path}")), ("200 OK".into(), text.into()));
        }
    }
    let (status, headers) = post(directory, "/tor/", DESCRIPTORS);
    assert_eq!(status, "200 This very descriptor is stored already.");
    assert!(headers.ends_with("X-Descriptor-Not-New: Yes"));
    let (status, _) = post(directory, "/tor/", "router nonsense\n");
    assert!(status.starts_with("400 Cannot use this descriptor: "), "{status}");
    // They stay whatever else is served.
    directory.set_documents(Documents::default());
    assert_eq!(split_documents(&get(directory, "/tor/server/all").1).count(), 6);
    directory.expire(NOW + Duration::from_secs(6 * 24 * 3600));
    assert_eq!(get(directory, "/tor/server/all").0, "404 Servers unavailable");
}

/// As another authority sends them, when we have missed many.
#[test]
fn more_documents_than_one_upload_may_have_are_all_taken() {
    let authority = authority(None);
    let before = "router junk\n".repeat(DOCUMENTS_PER_UPLOAD + 8);
    assert_eq!(split_documents(&format!("{before}{DESCRIPTORS}")).count(), DOCUMENTS_PER_UPLOAD + 8 + 6);
    authority.directory.receive_all(&format!("{before}{DESCRIPTORS}"), NOW);
    assert_eq!(authority.directory.documents().served.descriptors.len(), 6);
}

/// Relays look whether what they were told is stored is there, whatever comes meanwhile.
#[test]
fn what_was_stored_is_found_although_more_is_being_judged() {
    let authority = authority(None);
    let directory = &authority.directory;
    directory.uploads().receive(DESCRIPTORS.as_bytes(), None, NOW);
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let held = directory.uploads();
        scope.spawn(move || sender.send(directory.documents().served.descriptors.len()).unwrap());
        assert!(receiver.recv_timeout(Duration::from_millis(20)).is_err(), "nothing old is given");
        drop(held);
        assert!(receiver.recv().unwrap() > 0);
    });
}

#[test]
fn what_was_stored_is_served_while_the_uploads_are_held() {
    let authority = authority(None);
    let directory = &authority.directory;
    post(directory, "/tor/", DESCRIPTORS);
    let before = directory.documents();
    let mut held = directory.uploads();
    held.receive(EXTRA_INFOS.as_bytes(), None, NOW);
    // Would wait for ever if it needed them.
    assert_eq!(split_documents(&get(directory, "/tor/server/all").1).count(), 6);
    assert_eq!(get(directory, "/tor/extra/all").0, "404 Servers unavailable");
    drop(held);
    assert_eq!(split_documents(&get(directory, "/tor/extra/all").1).count(), 6);
    // What is refused, or known, leaves everything as it is.
    let with_extras = directory.documents();
    assert!(!Arc::ptr_eq(&before, &with_extras));
    post(directory, "/tor/", "router nonsense\n");
    post(directory, "/tor/", DESCRIPTORS);
    assert!(Arc::ptr_eq(&with_extras, &directory.documents()));
}

#[test]
fn descriptors_of_yesterday_are_given_to_those_who_name_their_digests() {
    let authority = authority(None);
    let directory = &authority.directory;
    post(directory, "/tor/", &format!("{DESCRIPTORS}{EXTRA_INFOS}"));
    let mut all: Vec<RouterDesc> =
        split_documents(DESCRIPTORS).map(|text| RouterDesc::parse(text).unwrap()).collect();
    all.sort_by_key(|descriptor| descriptor.published);
    let (first, last) = (all[0].published, all[5].published);
    let day = Duration::from_secs(24 * 3600);
    let count = |now: Unix, path: &str| {
        let request = format!("GET /tor/{path} HTTP/1.0\r\n\r\n");
        let (status, _, body) = ask_at(directory, now, request.as_bytes()).unwrap();
        if status == "200 OK" { Ok(split_documents(&body).count()) } else { Err(status) }
    };
    let newer = all.iter().filter(|descriptor| descriptor.published > first).count();
    for kind in ["server", "extra"] {
        let list = format!("{kind}/all");
        assert_eq!(count(first + day, &list), Ok(6));
        assert_eq!(count(Unix((first + day).0 + 1), &list), Ok(newer));
        assert_eq!(count(Unix((last + day).0 + 1), &list), Err("404 Not found".into()));
    }
    let digest = format!("server/d/{}", all[0].digest);
    assert_eq!(count(Unix((last + day).0 + 1), &digest), Ok(1));
    // Its own, in the same way.
    let doc = |published| RouterDoc {
        text: blob("router us\nrouter-signature\n-----END SIGNATURE-----\n"),
        published,
    };
    let own = OwnDocs { identity: Fingerprint([1; 20]), descriptor: doc(first), extra_info: doc(first) };
    let served = DirSnapshot { own: Some(own), ..DirSnapshot::default() };
    directory.set_documents(Documents { served, ..Documents::default() });
    for kind in ["server", "extra"] {
        assert_eq!(count(first + day, &format!("{kind}/authority")), Ok(1));
        assert_eq!(
            count(Unix((first + day).0 + 1), &format!("{kind}/authority")),
            Err("404 Not found".into())
        );
    }
}

#[test]
fn the_vote_under_way() {
    let authority = authority(None);
    let directory = &authority.directory;
    let id = |n: u8| Fingerprint([n; 20]);
    let vote = |n: u8, text: &str| StoredVote { identity: id(n), digest: id(n | 0x80), text: blob(text) };
    let paths = ["next/authority", "next/consensus", "next/consensus-signatures", "next/bandwidth"];
    for path in paths.iter().chain(&["current/authority", "current/consensus", "next/", "next", ""]) {
        assert_eq!(get(directory, &format!("/tor/status-vote/{path}")).0, "404 Not found", "{path}");
    }
    directory.set_documents(Documents {
        served: DirSnapshot { authority: Some(id(1)), ..DirSnapshot::default() },
        next: Next {
            votes: vec![vote(1, "ours\n"), vote(2, "theirs\n")],
            consensus: Some(blob("consensus\n")),
            signatures: Some(blob("signatures\n")),
            bandwidth: Some(blob("bandwidth\n")),
        },
        votes: vec![vote(1, "our last\n"), vote(3, "their last\n")],
    });
    let body = |path: &str| get(directory, &format!("/tor/status-vote/{path}")).1;
    assert_eq!(paths.map(body), ["ours\n", "consensus\n", "signatures\n", "bandwidth\n"]);
    assert_eq!(body(&format!("next/{}", id(2))), "theirs\n");
    assert_eq!(body(&format!("next/d/{}", id(0x82))), "theirs\n");
    assert_eq!(body(&format!("next/{}+{}+junk", id(2), id(1))), "ours\ntheirs\n");
    assert_eq!(body("current/authority"), "our last\n");
    assert_eq!(body(&format!("current/{}", id(3))), "their last\n");
    assert_eq!(body(&format!("current/d/{}", id(0x83))), "their last\n");
    for path in [format!("next/d/{}", id(2)), format!("next/{}", id(3)), "current/bandwidth".into()] {
        assert_eq!(get(directory, &format!("/tor/status-vote/{path}")).0, "404 Not found", "{path}");
    }
    let (_, headers, _) = ask(directory, "GET /tor/status-vote/next/authority HTTP/1.0\r\n\r\n");
    assert!(headers.contains("Content-Length: 5\r\n") && headers.contains("Expires: "), "{headers}");
}

/// The network's documents as an authority would serve them, and the consensus before them.
fn network() -> (Documents, String) {
    let consensus = UnverifiedConsensus::parse(CONSENSUS).unwrap();
    let base = CONSENSUS.replacen("\nvalid-after 2026", "\nvalid-after 2025", 1);
    let diff = consdiff::generate(&base, CONSENSUS).unwrap();
    let ns = StoredConsensus::new(CONSENSUS, consensus.peek(), &Encoding::ALL)
        .unwrap()
        .with_diff(consdiff::signed_sha3(&base), Encoded::new(&diff, &Encoding::ALL).unwrap());
    let certs = AuthCert::parse_all(CERTS).map(|(text, cert)| (blob(text), cert.unwrap()));
    let certs = certs.map(|(text, cert)| {
        ((cert.identity, cert.signing_key_id), StoredCert { text, published: cert.published })
    });
    let served = DirSnapshot {
        ns: Some(Arc::new(ns)),
        certs: Arc::new(certs.collect()),
        authority: Some(consensus.peek().voters[0].identity),
        ..DirSnapshot::default()
    };
    (Documents { served, ..Documents::default() }, base)
}

#[test]
fn a_consensus_with_its_diffs_signers_and_certificates() {
    let authority = authority(None);
    let directory = &authority.directory;
    let (documents, base) = network();
    let (ours, certs) = (documents.served.authority.unwrap(), documents.served.certs.clone());
    let signer = documents.served.ns.as_ref().unwrap().signers[0];
    directory.set_documents(documents);
    let get = |path: &str, header: &str| {
        let request = format!("GET /tor/{path} HTTP/1.0\r\n{header}\r\n");
        ask_at(directory, THEN, request.as_bytes()).unwrap()
    };
    let url = "status-vote/current/consensus";
    assert_eq!(get(url, "").2, CONSENSUS);
    assert_eq!(get(&format!("{url}/{}", &signer.to_string()[..6]), "").2, CONSENSUS);
    assert!(get(&format!("{url}/000000"), "").0.starts_with("404 Consensus not signed by "));
    let has = format!("X-Or-Diff-From-Consensus: {}\r\n", text::hex_upper(&consdiff::signed_sha3(&base)));
    assert_eq!(consdiff::apply(&base, &get(url, &has).2).as_deref(), Ok(CONSENSUS));
    let since = "If-Modified-Since: Sun, 22 Nov 2037 11:00:00 GMT\r\n";
    assert_eq!(get(url, since).0, "304 Not modified");
    assert!(get(&format!("{url}.z"), "").1.contains("Content-Encoding: deflate"));
    let own = certs.iter().find(|((identity, _), _)| *identity == ours).unwrap().1;
    assert_eq!(get("keys/authority", "").2.as_bytes(), &own.text[..]);
    assert_eq!(get("keys/all", "").2.len(), CERTS.len());
    assert!(get("robots.txt", "").2.starts_with("User-agent"));
}

/// Says yes to votes and no to signatures, and what it got.
struct Ear(Mutex<Vec<Vec<u8>>>);

impl Voting for Ear {
    fn take_vote(&self, vote: &[u8], _: Option<IpAddr>, _: Unix) -> Outcome {
        self.0.lock().unwrap().push(vote.to_vec());
        Outcome { status: 200, reason: "Vote stored".into() }
    }

    fn take_signatures(&self, signatures: &[u8], _: Option<IpAddr>, _: Unix) -> Outcome {
        self.0.lock().unwrap().push(signatures.to_vec());
        Outcome { status: 400, reason: "Too late".into() }
    }
}

#[test]
fn votes_go_to_whoever_counts_them() {
    let ear = Arc::new(Ear(Mutex::default()));
    let with = authority(Some(ear.clone()));
    assert_eq!(post(&with.directory, "/tor/post/vote", "a vote").0, "200 Vote stored");
    assert_eq!(post(&with.directory, "/tor/post/consensus-signature", "signed").0, "400 Too late");
    assert_eq!(*ear.0.lock().unwrap(), [&b"a vote"[..], b"signed"]);
    let without = authority(None);
    for path in ["/tor/post/vote", "/tor/post/consensus-signature", "/tor/post/other", "/tor/hs/3/publish"] {
        assert_eq!(post(&without.directory, path, "a vote").0, "404 Not found", "{path}");
    }
}

proptest! {
    #[test]
    fn any_request_is_answered(
        path in "/(tor/)?(status-vote/|current/|next/|consensus|d/|fp/|server/|keys/|extra/|micro/|[A-F0-9]{40}|[+/.z-]|\\PC){0,8}",
        header in "(If-Modified-Since|X-Or-Diff-From-Consensus|Accept-Encoding|X): [ -~]{0,40}",
    ) {
        static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
            let authority = authority(None);
            authority.directory.set_documents(network().0);
            authority
        });
        for method in ["GET", "POST"] {
            let request = format!("{method} {path} HTTP/1.0\r\n{header}\r\n\r\nbody");
            if let Some((status, ..)) = ask_at(&AUTHORITY.directory, THEN, request.as_bytes()) {
                prop_assert!(["200", "304", "400", "404"].contains(&&status[..3]), "{}", status);
            }
        }
    }
}
