//! The metrics endpoint as a function from request bytes to response bytes; sockets are the caller's.

use super::Exporter;
use onionring_proto::policy::{Action, ExitPolicy};
use std::net::IpAddr;

/// Longest request head that is read; a longer one is refused.
pub const REQUEST_LEN: usize = 8 * 1024;

const HEADERS: usize = 64;

/// The pages. A trait so that whoever serves them need not have a recorder.
pub trait Pages {
    /// `/metrics`.
    fn own(&self) -> String;
    /// `/metrics/tor`, in programs that have what C tor's names are for.
    fn ctor(&self) -> Option<String> {
        None
    }
    /// `/`, for people: an HTML document that needs nothing else.
    fn front(&self) -> String {
        INDEX.to_owned()
    }
}

impl Pages for Exporter {
    fn own(&self) -> String {
        self.render()
    }

    fn ctor(&self) -> Option<String> {
        Some(self.render_ctor())
    }
}

/// Whether `MetricsPortPolicy` lets `peer` in: the first rule for its address decides, whatever ports the rule names, and
/// where no rule decides the answer is no.
pub fn is_allowed(policy: &ExitPolicy, peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    let decisive = policy.rules().iter().find(|rule| rule.network.contains(peer));
    decisive.is_some_and(|rule| rule.action == Action::Accept)
}

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Browsers are to load nothing that the page may name, and to run nothing.
const SELF_CONTAINED: &str = "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\nX-Content-Type-Options: nosniff\r\n";

const INDEX: &str = "<!doctype html>\n<title>onionring metrics</title>\n<ul>\n\
    <li><a href=\"/metrics\">/metrics</a>: this program's metrics\n</ul>\n";

/// Answers the request whose first bytes are `request`: `None` while its head is incomplete, then the whole response,
/// after which the connection is to be closed.
pub fn respond(request: &[u8], pages: &impl Pages) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(request) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if request.len() < REQUEST_LEN => return None,
        Ok(httparse::Status::Partial) => {
            return Some(response(
                "431 Request Header Fields Too Large",
                TEXT,
                "",
                "request too long\n",
                true,
            ));
        }
        Err(_) => return Some(response("400 Bad Request", TEXT, "", "not an HTTP request\n", true)),
    }
    let with_body = match head.method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => {
            return Some(response(
                "405 Method Not Allowed",
                TEXT,
                "Allow: GET, HEAD\r\n",
                "only GET and HEAD\n",
                true,
            ));
        }
    };
    let path = head.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let not_found = || response("404 Not Found", TEXT, "", "see /metrics\n", with_body);
    Some(match path {
        "/" => response("200 OK", HTML, SELF_CONTAINED, &pages.front(), with_body),
        "/metrics" => response("200 OK", TEXT, "", &pages.own(), with_body),
        "/metrics/tor" => {
            pages.ctor().map_or_else(not_found, |page| response("200 OK", TEXT, "", &page, with_body))
        }
        _ => not_found(),
    })
}

fn response(status: &str, content_type: &str, extra: &str, body: &str, with_body: bool) -> Vec<u8> {
    let mut out = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{extra}Connection: close\r\n\r\n",
        body.len()
    );
    if with_body {
        out.push_str(body);
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Pages for Fixed {
        fn own(&self) -> String {
            "onionring_x 1\n".into()
        }

        fn ctor(&self) -> Option<String> {
            Some("tor_relay_x 1\n".into())
        }
    }

    /// A program that is no relay.
    struct NoRelay;

    impl Pages for NoRelay {
        fn own(&self) -> String {
            "onionring_y 1\n".into()
        }
    }

    fn ask(request: &str) -> String {
        String::from_utf8(respond(request.as_bytes(), &Fixed).expect("an answer")).unwrap()
    }

    #[test]
    fn serves_both_sets_and_links_them() {
        let own = ask("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(own.starts_with("HTTP/1.1 200 OK\r\n") && own.ends_with("\r\n\r\nonionring_x 1\n"), "{own}");
        assert!(own.contains("Content-Length: 14\r\n"));
        assert!(ask("GET /metrics/tor?x=1 HTTP/1.0\r\n\r\n").ends_with("tor_relay_x 1\n"));
        assert!(ask("GET / HTTP/1.1\r\n\r\n").contains("href=\"/metrics\""));
    }

    #[test]
    fn who_is_no_relay_has_no_page_under_the_names_of_c_tor() {
        let ask = |request: &str| String::from_utf8(respond(request.as_bytes(), &NoRelay).unwrap()).unwrap();
        assert!(ask("GET /metrics/tor HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(!ask("GET / HTTP/1.1\r\n\r\n").contains("/metrics/tor"));
    }

    #[test]
    fn head_has_the_length_and_no_body() {
        let head = ask("HEAD /metrics HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Length: 14\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[test]
    fn refuses_everything_else() {
        assert!(ask("POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
        assert!(ask("GET /secrets HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(ask("\x16\x03\x01\x02\x00\r\n\r\n").starts_with("HTTP/1.1 400 "));
        let many: String = (0..100).map(|i| format!("h{i}: x\r\n")).collect();
        assert!(ask(&format!("GET / HTTP/1.1\r\n{many}\r\n")).starts_with("HTTP/1.1 400 "));
        assert!(ask(&format!("GET /{}", "x".repeat(REQUEST_LEN))).starts_with("HTTP/1.1 431 "));
    }

    #[test]
    fn nobody_is_let_in_unless_the_policy_says_so() {
        let allowed = |lines: &[&str], peer: &str| {
            let (policy, _) = ExitPolicy::from_torrc(lines.iter().copied()).unwrap();
            is_allowed(&policy, peer.parse().unwrap())
        };
        assert!(!allowed(&[], "127.0.0.1"));
        assert!(allowed(&["accept 127.0.0.1"], "127.0.0.1"));
        assert!(allowed(&["accept 127.0.0.1"], "::ffff:127.0.0.1"));
        assert!(!allowed(&["accept 127.0.0.1"], "127.0.0.2"));
        assert!(!allowed(&["reject 10.1.0.0/16,accept 10.0.0.0/8"], "10.1.2.3"));
        assert!(
            allowed(&["reject 10.1.0.0/16", "accept 10.0.0.0/8:9035"], "10.2.2.3"),
            "ports do not matter"
        );
    }

    #[test]
    fn waits_for_the_whole_head() {
        assert_eq!(respond(b"GET /metrics HTTP/1.1\r\nHost:", &Fixed), None);
        assert_eq!(respond(b"", &Fixed), None);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(request in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            respond(&request, &Fixed);
        }
    }
}
