//! The descriptor of a relay in the answer to a directory request.

use onionring_proto::netdoc::DocError;
use onionring_proto::netdoc::routerdesc::RouterDesc;
use thiserror::Error;

/// The request for a relay's own descriptor, which every relay with a directory answers.
pub const REQUEST: &[u8] = b"GET /tor/server/authority HTTP/1.0\r\n\r\n";

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// It is no answer of HTTP.
    #[error("it is no answer of HTTP")]
    NotHttp,
    /// It is no success.
    #[error("its status is {0}")]
    Status(u16),
    /// It is no descriptor.
    #[error("it is no descriptor: {0}")]
    Document(#[from] DocError),
    /// It is of another relay.
    #[error("it is the descriptor of another relay")]
    OtherRelay,
    /// It is one that the relay had published before the one that we have.
    #[error("it is an older descriptor than the one published here")]
    Older,
}

/// Whether the answer is the descriptor that the relay has published here, `uploaded`, or a newer one, which is on its
/// way.
pub fn check(answer: &[u8], uploaded: &RouterDesc) -> Result<(), AnswerError> {
    let served = RouterDesc::parse(body(answer)?)?;
    if (served.identity, served.ed_identity) != (uploaded.identity, uploaded.ed_identity) {
        return Err(AnswerError::OtherRelay);
    }
    if served.digest != uploaded.digest && served.published <= uploaded.published {
        return Err(AnswerError::Older);
    }
    Ok(())
}

/// The body of a successful answer.
fn body(answer: &[u8]) -> Result<&str, AnswerError> {
    let text = std::str::from_utf8(answer).map_err(|_| AnswerError::NotHttp)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(AnswerError::NotHttp)?;
    let rest = head.strip_prefix("HTTP/1.").ok_or(AnswerError::NotHttp)?;
    let status = rest.split([' ', '\r']).nth(1).and_then(|status| status.parse().ok());
    match status.ok_or(AnswerError::NotHttp)? {
        200 => Ok(body),
        status => Err(AnswerError::Status(status)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use onionring_proto::netdoc::routerdesc::split_documents;
    use proptest::prelude::*;

    use super::*;
    use crate::admission::tests::{DESCRIPTORS, NOW, edited};

    fn served(text: &str) -> Vec<u8> {
        format!("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{text}").into_bytes()
    }

    #[test]
    fn what_was_uploaded_or_is_newer_is_right() {
        let text = edited(|_| {});
        let uploaded = RouterDesc::parse(&text).unwrap();
        assert_eq!(check(&served(&text), &uploaded), Ok(()));
        let newer = edited(|new| new.published = NOW + Duration::from_secs(1));
        assert_eq!(check(&served(&newer), &uploaded), Ok(()));
        for older in
            [edited(|new| new.published = NOW - Duration::from_secs(1)), edited(|new| new.uptime += 1)]
        {
            assert_eq!(check(&served(&older), &uploaded), Err(AnswerError::Older));
        }
        let other = split_documents(DESCRIPTORS).next().unwrap();
        assert_eq!(check(&served(other), &uploaded), Err(AnswerError::OtherRelay));
        let damaged = text.replace("uptime", "uptime 1");
        assert!(matches!(check(&served(&damaged), &uploaded), Err(AnswerError::Document(_))));
    }

    #[test]
    fn what_is_no_success() {
        let uploaded = RouterDesc::parse(&edited(|_| {})).unwrap();
        for (answer, error) in [
            ("HTTP/1.0 404 Not found\r\n\r\n", AnswerError::Status(404)),
            ("HTTP/1.0 200 OK\r\n", AnswerError::NotHttp),
            ("HTTP/1.0\r\n\r\n", AnswerError::NotHttp),
            ("HTTP/1.0 OK\r\n\r\n", AnswerError::NotHttp),
            ("", AnswerError::NotHttp),
        ] {
            assert_eq!(check(answer.as_bytes(), &uploaded), Err(error), "{answer:?}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_does_no_harm(head in "(HTTP/1.)?.{0,20}(\r\n){0,2}", rest: Vec<u8>) {
            let _ = body(&[head.as_bytes(), &rest].concat());
        }
    }
}
