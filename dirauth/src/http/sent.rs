//! An answer in hyper's form.

use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::Version;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use hyper::header::{HeaderName, HeaderValue};
use onionring_node::compress::EncodeError;
use onionring_node::directory::spool::{Response, Spool};

use crate::limits::HTTP_PIECE;

/// The body of an answer, made as it is sent.
pub(super) struct Sent(Option<Spool>);

/// The answer with its head. An error says what cannot be sent.
pub(super) fn response(answer: Response) -> Result<hyper::Response<Sent>, String> {
    let mut response = hyper::Response::new(Sent(None));
    // hyper would frame the body in chunks, which C tor does not know, for those who say that they speak HTTP/1.1.
    *response.version_mut() = Version::HTTP_10;
    *response.status_mut() = hyper::StatusCode::from_u16(answer.status).map_err(|error| error.to_string())?;
    let reason = ReasonPhrase::try_from(answer.reason.as_bytes()).map_err(|error| error.to_string())?;
    response.extensions_mut().insert(reason);
    for (name, value) in &answer.headers {
        let value = HeaderValue::from_str(value).map_err(|error| error.to_string())?;
        let name = HeaderName::try_from(*name).map_err(|error| error.to_string())?;
        response.headers_mut().insert(name, value);
    }
    if !answer.body.is_empty() {
        *response.body_mut() = Sent(Some(Spool::of_body(answer).map_err(|error| error.to_string())?));
    }
    Ok(response)
}

impl Body for Sent {
    type Data = Bytes;
    type Error = EncodeError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, EncodeError>>> {
        let Some(spool) = &mut self.0 else { return Poll::Ready(None) };
        let mut piece = vec![0; HTTP_PIECE];
        let filled = spool.fill(&mut piece);
        if spool.is_finished() || filled.is_err() {
            self.0 = None;
        }
        Poll::Ready(Some(filled.map(|filled| {
            piece.truncate(filled);
            Frame::data(piece.into())
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.0.is_none() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}
