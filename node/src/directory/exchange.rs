//! One HTTP exchange with a directory, over any connection of tokio's: a DirPort's, or a BEGIN_DIR stream.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::answer::{Answer, AnswerError, AnswerReader};

/// Bytes that are sent and read at a time.
const PIECE: usize = 16 * 1024;

/// How long an exchange may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The longest time in which nothing moves.
    pub stall: Duration,
    /// The whole, so that nobody can occupy us with a byte now and then.
    pub total: Duration,
}

/// Why there is no usable answer.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// The connection broke.
    #[error("the connection failed: {0}")]
    Broken(io::Error),
    /// It takes too long.
    #[error("no {what} within {after:?}")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        after: Duration,
    },
    /// What came back is of no use.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

impl ExchangeError {
    /// A word for it, as a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            ExchangeError::Broken(_) => "broken",
            ExchangeError::TimedOut { .. } => "timeout",
            ExchangeError::Answer(error) => error.label(),
        }
    }
}

/// Sends a request and reads the answer, whose body may have `bytes_max` bytes, decompressed.
pub async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &str,
    bytes_max: usize,
    patience: Patience,
) -> Result<Answer, ExchangeError> {
    let Patience { stall, total } = patience;
    within("whole answer", total, async {
        for piece in request.as_bytes().chunks(PIECE) {
            let send = async { stream.write_all(piece).await.map_err(ExchangeError::Broken) };
            match within("room for the request", stall, send).await {
                // It may have said why before it stopped listening.
                Err(ExchangeError::Broken(_)) => break,
                sent => sent?,
            }
        }
        let mut reader = AnswerReader::new(bytes_max);
        let mut piece = vec![0; PIECE];
        loop {
            let read = async { stream.read(&mut piece).await.map_err(ExchangeError::Broken) };
            let n = within("more of the answer", stall, read).await?;
            if n == 0 || reader.push(piece.get(..n).unwrap_or_default())? {
                return Ok(reader.finish()?);
            }
        }
    })
    .await
}

async fn within<T>(
    what: &'static str,
    after: Duration,
    attempt: impl Future<Output = Result<T, ExchangeError>>,
) -> Result<T, ExchangeError> {
    timeout(after, attempt).await.unwrap_or(Err(ExchangeError::TimedOut { what, after }))
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    const PATIENCE: Patience = Patience { stall: Duration::from_secs(60), total: Duration::from_secs(300) };

    #[tokio::test]
    async fn an_answer_ends_with_the_connection() {
        let (mut ours, mut theirs) = duplex(64);
        let server = tokio::spawn(async move {
            let mut request = [0; 7];
            theirs.read_exact(&mut request).await.unwrap();
            theirs.write_all(b"HTTP/1.0 200 OK\r\n\r\nthe body").await.unwrap();
            request
        });
        let answer = exchange(&mut ours, "request", 100, PATIENCE).await.unwrap();
        assert_eq!((answer.status, &*answer.body), (200, &b"the body"[..]));
        assert_eq!(&server.await.unwrap(), b"request");
    }

    #[tokio::test(start_paused = true)]
    async fn neither_silence_nor_a_trickle_lasts() {
        let (mut ours, _theirs) = duplex(64);
        let error = exchange(&mut ours, "request", 100, PATIENCE).await.unwrap_err();
        assert!(matches!(error, ExchangeError::TimedOut { after, .. } if after == PATIENCE.stall), "{error}");
        let (mut ours, mut theirs) = duplex(64);
        tokio::spawn(async move {
            theirs.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await.unwrap();
            while theirs.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(50)).await;
            }
        });
        let error = exchange(&mut ours, "request", 100, PATIENCE).await.unwrap_err();
        assert!(matches!(error, ExchangeError::TimedOut { after, .. } if after == PATIENCE.total), "{error}");
    }

    #[tokio::test]
    async fn nobody_who_takes_no_request_is_waited_for() {
        let (mut ours, theirs) = duplex(64);
        drop(theirs);
        let error = exchange(&mut ours, "request", 100, PATIENCE).await.unwrap_err();
        assert_eq!(error.label(), "not_http");
    }
}
