use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;

use glommio::LocalExecutorBuilder;

use super::*;
use crate::dir::client::DirPorts;
use crate::dir::testdata::NOW;
use crate::dir::testrelay::TestRelay;

/// How an authority deals with uploads.
#[derive(Clone, Copy, PartialEq)]
enum Temper {
    /// Takes them and gives them back.
    Honest,
    /// Takes them; gives them back only when they have come twice.
    Forgetful,
    /// Refuses them.
    Strict,
}

/// An authority; it ends with the process.
fn authority(temper: Temper) -> DirServer {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let dir = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut posted = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (head, body) = read_request(&mut stream);
            let answer = match (head.starts_with("POST /tor/ HTTP/1.0\r\n"), temper) {
                (true, Temper::Strict) => "HTTP/1.0 400 Fingerprint is marked rejected\r\n\r\n".to_owned(),
                (true, _) => {
                    posted.push(body);
                    "HTTP/1.0 200 [None]\r\n\r\n".to_owned()
                }
                (false, Temper::Forgetful) if posted.len() < 2 => {
                    "HTTP/1.0 404 Servers unavailable\r\n\r\n".to_owned()
                }
                (false, _) => {
                    assert!(head.starts_with("GET /tor/server/fp/"), "{head}");
                    let posted = posted.last().unwrap();
                    let descriptor = split_documents(posted).next().unwrap();
                    format!("HTTP/1.0 200 OK\r\nContent-Encoding: identity\r\n\r\n{descriptor}")
                }
            };
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    server(dir)
}

fn server(dir: SocketAddr) -> DirServer {
    DirServer { name: dir.to_string(), rsa_id: Fingerprint([0; 20]), v3_ident: None, dir, or: None }
}

fn read_request(stream: &mut std::net::TcpStream) -> (String, String) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "cut off");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.map_or(0, |n| n.parse().unwrap())];
    stream.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

/// Publishes until `enough`, and gives how it went.
fn publish_until(
    servers: Vec<DirServer>,
    enough: impl Fn(&PublishState) -> bool,
) -> (PublishState, Arc<Directory>) {
    LocalExecutorBuilder::default().io_memory(0).make().unwrap().run(async move {
        let directory = Arc::new(Directory::new(None));
        let relay = TestRelay::new("127.0.0.9:9001".parse().unwrap());
        let clock = Clock::starting_at(NOW);
        let publisher =
            DirPublisher::new(DirPorts::default(), servers, true, directory.clone(), relay, clock);
        let state = publisher.state();
        let enough = async {
            while !enough(&state.borrow()) {
                glommio::timer::sleep(Duration::from_millis(5)).await;
            }
        };
        futures_lite::future::or(publisher.run(), enough).await;
        let state = state.borrow().clone();
        (state, directory)
    })
}

fn all(state: &PublishState, upload: &UploadState) -> bool {
    state.authorities.iter().all(|a| a.upload == *upload)
}

#[test]
fn every_authority_gets_the_documents_and_is_asked_for_them() {
    let servers = (0..3).map(|_| authority(Temper::Honest)).collect();
    let (state, directory) = publish_until(servers, |state| all(state, &UploadState::Confirmed));
    assert_eq!((state.uploads, state.failures.values().sum::<u64>()), (3, 0));
    let current = state.current.unwrap();
    assert_eq!((current.published >= NOW, current.reason), (true, Reason::Started));
    let own = directory.documents().own.clone().unwrap();
    let text = std::str::from_utf8(&own.descriptor.text).unwrap();
    assert_eq!(RouterDesc::parse(text).unwrap().digest, current.digest);
}

#[test]
fn what_an_authority_lost_is_sent_again() {
    let servers = vec![authority(Temper::Forgetful)];
    let (state, _) = publish_until(servers, |state| all(state, &UploadState::Confirmed));
    assert_eq!((state.uploads, state.failures.values().sum::<u64>()), (2, 1));
}

#[test]
fn refusals_and_absences_are_told_apart() {
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let servers = vec![authority(Temper::Strict), server(gone), authority(Temper::Honest)];
    let label = |state: &PublishState, n: usize| state.authorities[n].upload.label();
    let (state, _) = publish_until(servers, |state| {
        (label(state, 0), label(state, 1), label(state, 2)) == ("refused", "unreachable", "confirmed")
    });
    let refused = UploadState::Refused { status: 400, reason: "Fingerprint is marked rejected".into() };
    assert_eq!(state.authorities[0].upload, refused);
}

#[test]
fn an_older_descriptor_will_do_where_ours_is_called_not_new() {
    let mut relay = TestRelay::new("127.0.0.9:9001".parse().unwrap());
    let mut make = |published| {
        relay.descriptor.published = published;
        let contents = relay.contents(published).unwrap();
        relay.sign(&contents).unwrap().descriptor
    };
    let (old, ours) = (make(NOW), make(NOW + Duration::from_secs(60)));
    let answer = |status, text: &str| Answer {
        status,
        reason: String::new(),
        date: None,
        not_new: false,
        your_address: None,
        body: text.into(),
    };
    assert!(has_ours(&answer(200, &ours.text), &ours.parsed, false));
    assert!(has_ours(&answer(200, &ours.text), &old.parsed, false));
    assert!(!has_ours(&answer(200, &old.text), &ours.parsed, false));
    assert!(has_ours(&answer(200, &old.text), &ours.parsed, true));
    assert!(!has_ours(&answer(404, &ours.text), &ours.parsed, true));
    assert!(!has_ours(&answer(200, "junk"), &ours.parsed, true));
}
