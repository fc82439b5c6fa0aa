//! An answer in hyper's form.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use hyper::Version;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use hyper::header::{HeaderName, HeaderValue};
use onionring_node::compress::EncodeError;
use onionring_node::directory::spool::{Response, Spool};

use crate::limits::{HTTP_PIECE, HTTP_PIECE_SOURCE};

/// The body of an answer, made as it is sent.
pub(super) struct Sent(Option<Making>);

struct Making {
    spool: Spool,
    /// What of the next piece there is.
    piece: Vec<u8>,
    /// Where bytes are counted that leave.
    meter: Arc<AtomicU64>,
}

/// The answer with its head; the bytes of its body are added to `meter` as they leave. An error says what cannot be sent.
pub(super) fn response(answer: Response, meter: Arc<AtomicU64>) -> Result<hyper::Response<Sent>, String> {
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
        let spool = Spool::of_body(answer).map_err(|error| error.to_string())?;
        *response.body_mut() = Sent(Some(Making { spool, piece: Vec::new(), meter }));
    }
    Ok(response)
}

impl Body for Sent {
    type Data = Bytes;
    type Error = EncodeError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, EncodeError>>> {
        let Some(Making { spool, piece, meter }) = &mut self.0 else { return Poll::Ready(None) };
        let begin = piece.len();
        piece.resize(HTTP_PIECE, 0);
        let filled = spool.fill_from(HTTP_PIECE_SOURCE, &mut piece[begin..]);
        piece.truncate(begin + filled.as_ref().map_or(0, |filled| *filled));
        if filled.is_ok() && piece.len() < HTTP_PIECE && !spool.is_finished() {
            // It goes on after others.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = std::mem::take(piece);
        meter.fetch_add(piece.len() as u64, Ordering::Relaxed);
        if spool.is_finished() || filled.is_err() {
            self.0 = None;
        }
        Poll::Ready(Some(filled.map(|_| Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.0.is_none() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use onionring_node::compress::{Encoding, decompress};
    use onionring_node::directory::spool::Blob;

    use super::*;

    #[test]
    fn what_compresses_to_nothing_lets_others_go_first() {
        let document: Blob = vec![b'x'; 2 << 20].into();
        let answer = Response {
            status: 200,
            reason: "OK".into(),
            headers: Vec::new(),
            body: [document.clone()].into(),
            encoding: Encoding::Zstd,
        };
        let meter = Arc::new(AtomicU64::new(0));
        let mut sent = response(answer, meter.clone()).unwrap().into_body();
        let (mut all, mut waits) = (Vec::new(), 0);
        loop {
            match Pin::new(&mut sent).poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => waits += 1,
                Poll::Ready(Some(frame)) => all.extend(frame.unwrap().into_data().unwrap()),
                Poll::Ready(None) => break,
            }
        }
        assert!(waits > 4, "{waits}");
        assert_eq!(meter.load(Ordering::Relaxed), all.len() as u64);
        assert_eq!(decompress(Encoding::Zstd, &all, 4 << 20).unwrap(), document[..]);
    }
}
