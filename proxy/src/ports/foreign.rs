//! What applications send, taken from the bytes alone: for tests that hand over any bytes at all.

use super::{dns, http};

/// Reads the head of an HTTP request: its length, if it asks for a tunnel and is all there; otherwise what to answer, which
/// may be nothing.
pub fn read_connect(read: &[u8]) -> Result<Option<usize>, Vec<u8>> {
    Ok(http::judge(read)?.map(|(len, _)| len))
}

/// Reads a question to a DNSPort; otherwise what to answer, if anything.
pub fn read_question(datagram: &[u8]) -> Result<(), Option<Vec<u8>>> {
    match dns::read(datagram) {
        Ok(_) => Ok(()),
        Err(refusal) => Err(refusal.map(|refusal| refusal.to_vec().unwrap_or_default())),
    }
}
