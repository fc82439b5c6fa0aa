//! TLS as links use it: the one module behind which rustls lives (tor-spec 2).
//!
//! A link's TLS session hides the traffic and nothing more; who the peer is follows from the CERTS cell inside it,
//! which names the digest of the TLS certificate. So certificate chains are not judged here, but the signature on
//! the handshake is: without it that digest would prove nothing. Sessions are never resumed, for the same reason.
//!
//! [`Acceptor`] and [`Connector`] are the configurations of the two sides, [`TlsStream`] is one session without its
//! socket: ciphertext goes in through [`TlsStream::open`], plaintext through [`TlsStream::seal`], and what the
//! session has to send is taken with [`TlsStream::transmit`]. The handshake is rustls'; what follows it in TLS 1.3 is
//! in `records`.

use std::io::{self, BufRead as _, Write as _};
use std::mem;
use std::sync::Arc;

use onionring_proto::link::x509::{TlsLeaf, random_host_name};
use onionring_proto::link::{ExportError, TlsExporter};
use rand_core::CryptoRng;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::cipher_suite::{
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, ring, verify_tls12_signature,
    verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::{
    ClientConfig, ClientConnection, Connection, ContentType, DigitallySignedStruct, ProtocolVersion,
    ServerConfig, ServerConnection, SignatureScheme, SupportedProtocolVersion,
};
use thiserror::Error;

use records::{HEADER_LEN, MAX_PLAINTEXT, Progress, Records, Side};
use secrets::Capture;

mod records;
mod secrets;
#[cfg(test)]
mod tests;

/// Why a TLS session or its configuration failed.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The certificate or key of our own side does not fit TLS.
    #[error("the TLS link certificate or key cannot be used: {0}")]
    OwnCertificate(rustls::Error),
    /// The session could not be set up.
    #[error("TLS session not set up: {0}")]
    Setup(rustls::Error),
    /// The peer broke the protocol, or could not agree with us on a version, suite or group.
    #[error("TLS with the peer failed: {0}")]
    Peer(rustls::Error),
    /// The peer sent ciphertext after it had closed the session, or a record of an impossible size.
    #[error("the peer sent TLS data that cannot be read: {0}")]
    Unreadable(io::Error),
    /// The library that made the handshake and our own record layer do not agree on the keys.
    #[error("the TLS session's secrets are not those of its keys: please report this")]
    Secrets,
    /// Keying material was asked for before the handshake was complete.
    #[error("no TLS keying material before the handshake is complete: {0}")]
    Export(rustls::Error),
}

/// Which versions of TLS a side speaks. Programs use both; tests restrict to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersions {
    /// 1.3, and 1.2 for peers without it.
    #[default]
    Both,
    /// Only 1.2.
    Tls12,
    /// Only 1.3.
    Tls13,
}

impl TlsVersions {
    fn supported(self) -> Vec<&'static SupportedProtocolVersion> {
        match self {
            TlsVersions::Both => vec![&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersions::Tls12 => vec![&rustls::version::TLS12],
            TlsVersions::Tls13 => vec![&rustls::version::TLS13],
        }
    }
}

/// The cryptography of all sessions: ring's, whose AES-GCM is the faster, plus the post-quantum key exchange that ring
/// lacks.
///
/// X25519 and P-256 must both be there: C tor brings a TLS 1.3 key share for P-256 only, arti's client for X25519
/// only, and a missing one costs a round trip. As initiator we send shares for X25519MLKEM768 and X25519 at once.
pub fn crypto_provider() -> CryptoProvider {
    CryptoProvider {
        // AES-128 first: two thirds of the cost of AES-256 per record, and relay cells are AES-128 anyway.
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
            TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
            TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
            aws_lc_rs::kx_group::SECP256R1,
        ],
        key_provider: aws_lc_rs::default_provider().key_provider,
        ..ring::default_provider()
    }
}

/// The responder's configuration: our link certificate. Cheap to clone; replaced whole when the certificate rotates.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    certificate: CertificateDer<'static>,
}

impl Acceptor {
    /// Shows the certificate of `leaf` in every session.
    pub fn new(leaf: &TlsLeaf, versions: TlsVersions) -> Result<Acceptor, TlsError> {
        let certificate = CertificateDer::from(leaf.certificate.clone());
        let key = PrivatePkcs8KeyDer::from(leaf.key.as_slice()).clone_key();
        let mut config = ServerConfig::builder_with_provider(Arc::new(crypto_provider()))
            .with_protocol_versions(&versions.supported())
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .map_err(TlsError::OwnCertificate)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.enable_secret_extraction = true;
        config.ignore_client_order = true;
        Ok(Acceptor { config: Arc::new(config), certificate })
    }

    /// The DER of the leaf that sessions of this acceptor present.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The responder's side of a new session.
    pub fn accept(&self) -> Result<TlsStream, TlsError> {
        let capture = Capture::default();
        let mut config = ServerConfig::clone(&self.config);
        config.key_log = Arc::new(capture.clone());
        let conn = ServerConnection::new(config.into()).map_err(TlsError::Setup)?;
        Ok(TlsStream::new(conn.into(), Some(capture)))
    }
}

/// The initiator's configuration. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
}

impl Connector {
    /// A configuration without certificate: initiators that are relays authenticate inside TLS.
    pub fn new(versions: TlsVersions) -> Result<Connector, TlsError> {
        let provider = crypto_provider();
        let verifier = AnyChain(provider.signature_verification_algorithms);
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&versions.supported())
            .map_err(TlsError::Setup)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.enable_secret_extraction = true;
        Ok(Connector { config: Arc::new(config) })
    }

    /// The initiator's side of a new session, with an invented server name as C tor has it.
    pub fn connect(&self, rng: &mut impl CryptoRng) -> Result<TlsStream, TlsError> {
        let name =
            ServerName::try_from(random_host_name("com", rng)).expect("a random host name is a DNS name");
        let capture = Capture::default();
        let mut config = ClientConfig::clone(&self.config);
        config.key_log = Arc::new(capture.clone());
        let conn = ClientConnection::new(config.into(), name).map_err(TlsError::Setup)?;
        Ok(TlsStream::new(conn.into(), Some(capture)))
    }
}

/// Accepts every certificate, and checks that the handshake was signed with its key.
#[derive(Debug)]
struct AnyChain(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyChain {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// One TLS session without its socket.
///
/// rustls makes the handshake. After that, records of our own are opened and sealed where they lie, unless it is TLS 1.2.
///
/// After an error the session is dead: [`transmit`](Self::transmit) what is left (an alert) and close the connection.
pub struct TlsStream {
    session: Session,
    /// The beginning of a record whose end has not come yet.
    partial: Vec<u8>,
    /// Records to be sent, the first `sent` bytes of which have been. Empty while rustls has the session.
    outgoing: Vec<u8>,
    sent: usize,
    peer_has_closed: bool,
    peer_certificate: Option<CertificateDer<'static>>,
}

enum Session {
    /// And what it tells of its secrets; with none, it keeps the session.
    Rustls(Box<Connection>, Option<Capture>),
    Records(Box<Records>),
    /// The one could not be made into the other, or something came that is wrong.
    Dead,
}

impl TlsStream {
    fn new(mut conn: Connection, capture: Option<Capture>) -> TlsStream {
        // Callers seal only what they want sent now, so a limit here would only cut plaintext short.
        conn.set_buffer_limit(None);
        TlsStream {
            session: Session::Rustls(Box::new(conn), capture),
            partial: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
            peer_has_closed: false,
            peer_certificate: None,
        }
    }

    /// Whether the handshake is still under way, so that no application data can flow.
    pub fn is_handshaking(&self) -> bool {
        matches!(&self.session, Session::Rustls(conn, _) if conn.is_handshaking())
    }

    /// Whether the peer has closed the session in order; nothing more will come.
    pub fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    /// The DER of the leaf certificate that the peer presented; `None` on a responder's side, and before it came.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        match &self.session {
            Session::Rustls(conn, _) => conn.peer_certificates()?.first(),
            Session::Records(_) | Session::Dead => self.peer_certificate.as_ref(),
        }
        .map(|leaf| leaf.as_ref())
    }

    /// Takes `ciphertext` as it came from the socket, in pieces of any size, and appends what it holds of application
    /// data to `plaintext`.
    ///
    /// An error leaves the plaintext of the records before the bad one in `plaintext`.
    pub fn open(&mut self, ciphertext: &[u8], plaintext: &mut Vec<u8>) -> Result<(), TlsError> {
        let start = plaintext.len();
        plaintext.extend_from_slice(&self.partial);
        plaintext.extend_from_slice(ciphertext);
        let (len, result) = self.open_in_place(&mut plaintext[start..]);
        plaintext.truncate(start + len);
        result
    }

    /// The beginning of a record, for [`open_in_place`](Self::open_in_place) to be called with what comes next after it.
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// Opens `buf`: what [`partial`](Self::partial) said, and what came from the socket since. What that holds of
    /// application data is moved to the front of `buf`; returns how many bytes that is, also when a later record is bad.
    pub fn open_in_place(&mut self, buf: &mut [u8]) -> (usize, Result<(), TlsError>) {
        let mut progress = Progress::default();
        let mut result = Ok(true);
        while let Ok(true) = result
            && !self.peer_has_closed
        {
            result = match &mut self.session {
                Session::Rustls(conn, _) => {
                    let result = open_by_rustls(conn, buf, &mut progress, &mut self.peer_has_closed);
                    result.and_then(|goes_on| self.leave_rustls().map(|()| goes_on))
                }
                Session::Records(records) => {
                    let result = records.open(buf, &mut progress, &mut self.outgoing);
                    self.peer_has_closed = records.peer_has_closed();
                    result.map(|()| false).map_err(TlsError::Peer)
                }
                Session::Dead => Ok(false),
            };
        }
        if result.is_err()
            && let Session::Records(_) = self.session
        {
            // The alert is in `outgoing`, and nothing may follow it.
            self.session = Session::Dead;
        }
        let rest = &buf[progress.used..];
        if rest.is_empty() || result.is_err() || self.peer_has_closed || matches!(self.session, Session::Dead)
        {
            self.partial = Vec::new();
        } else {
            self.partial.clear();
            self.partial.reserve_exact(rest.len());
            self.partial.extend_from_slice(rest);
        }
        (progress.plaintext, result.map(drop))
    }

    /// Parts with rustls when it has done all that only it can do.
    fn leave_rustls(&mut self) -> Result<(), TlsError> {
        let Session::Rustls(conn, Some(capture)) = &mut self.session else { return Ok(()) };
        let has_more_to_do = conn.is_handshaking()
            || self.peer_has_closed
            || conn.protocol_version() != Some(ProtocolVersion::TLSv1_3);
        if has_more_to_do {
            return Ok(());
        }
        // The end of the handshake, if it is still to be sent: rustls must not see what may come meanwhile.
        while conn.wants_write() {
            conn.write_tls(&mut self.outgoing).map_err(TlsError::Unreadable)?;
        }
        let secrets = capture.take();
        let Session::Rustls(conn, _) = mem::replace(&mut self.session, Session::Dead) else { return Ok(()) };
        self.peer_certificate = conn.peer_certificates().and_then(|chain| chain.first().cloned());
        let suite = conn.negotiated_cipher_suite().map(|suite| suite.suite());
        let side = match *conn {
            Connection::Client(_) => Side::Client,
            Connection::Server(_) => Side::Server,
        };
        let extracted = conn.dangerous_extract_secrets().map_err(TlsError::Setup)?;
        let records = suite.and_then(|suite| Records::new(side, suite, secrets, &extracted));
        self.session = Session::Records(Box::new(records.ok_or(TlsError::Secrets)?));
        Ok(())
    }

    /// Seals application data into records of up to 16 KiB for [`transmit`](Self::transmit).
    ///
    /// To choose late what goes out, call this when [`wants_transmit`](Self::wants_transmit) says no.
    pub fn seal(&mut self, plaintext: &[u8]) -> Result<(), TlsError> {
        match &mut self.session {
            Session::Rustls(conn, _) => conn.writer().write_all(plaintext).map_err(TlsError::Unreadable)?,
            Session::Records(records) => {
                for piece in plaintext.chunks(MAX_PLAINTEXT) {
                    records.seal(&mut self.outgoing, |out| out.extend_from_slice(piece));
                }
            }
            Session::Dead => {}
        }
        Ok(())
    }

    /// Seals what `make` appends to its argument, where it lies; returns how many bytes that was.
    pub fn seal_with(&mut self, make: impl FnOnce(&mut Vec<u8>)) -> Result<usize, TlsError> {
        match &mut self.session {
            Session::Rustls(conn, _) => {
                make(&mut self.outgoing);
                let written = conn.writer().write_all(&self.outgoing);
                let len = self.outgoing.len();
                self.outgoing.clear();
                written.map_err(TlsError::Unreadable)?;
                Ok(len)
            }
            Session::Records(records) => Ok(records.seal(&mut self.outgoing, make)),
            Session::Dead => Ok(0),
        }
    }

    /// Swaps `buffer` with the session's own for what it has to send, unless there is something in that. So sessions that
    /// have nothing to send need no buffer: lend them one before they seal, and [reclaim](Self::reclaim) it afterwards.
    pub fn lend(&mut self, buffer: &mut Vec<u8>) {
        if self.outgoing.is_empty() {
            buffer.clear();
            mem::swap(&mut self.outgoing, buffer);
        }
    }

    /// Takes back what was lent. What is not sent moves to a buffer of the session's own, no larger than that.
    pub fn reclaim(&mut self, buffer: &mut Vec<u8>) {
        if self.outgoing.capacity() > buffer.capacity() {
            let rest = self.outgoing[self.sent..].to_vec();
            *buffer = mem::replace(&mut self.outgoing, rest);
            buffer.clear();
            self.sent = 0;
        }
    }

    /// Queues the notice that nothing more will be sent.
    pub fn close(&mut self) {
        match &mut self.session {
            Session::Rustls(conn, _) => conn.send_close_notify(),
            Session::Records(records) => records.close(&mut self.outgoing),
            Session::Dead => {}
        }
    }

    /// Whether there is ciphertext to send.
    pub fn wants_transmit(&self) -> bool {
        match &self.session {
            Session::Rustls(conn, _) => conn.wants_write(),
            Session::Records(_) | Session::Dead => !self.outgoing.is_empty(),
        }
    }

    /// Hands ciphertext to `out` without a copy; returns how many bytes it took in this call.
    ///
    /// What `out` does not take stays for the next call, also when it fails with `WouldBlock`.
    pub fn transmit(&mut self, out: &mut dyn io::Write) -> io::Result<usize> {
        if let Session::Rustls(conn, _) = &mut self.session {
            let len = conn.write_tls(out)?;
            self.leave_rustls().map_err(io::Error::other)?;
            return Ok(len);
        }
        let len = out.write(&self.outgoing[self.sent..])?;
        self.sent += len;
        if self.sent == self.outgoing.len() {
            self.outgoing.clear();
            self.sent = 0;
        }
        Ok(len)
    }

    /// Fills `out` with keying material of this session (RFC 5705), the same on both sides.
    pub fn export_keying_material(
        &self,
        label: &[u8],
        context: &[u8],
        out: &mut [u8],
    ) -> Result<(), TlsError> {
        match &self.session {
            Session::Rustls(conn, _) => {
                conn.export_keying_material(out, label, Some(context)).map(drop).map_err(TlsError::Export)
            }
            Session::Records(records) => {
                records.export(label, context, out).map_err(|_| TlsError::Export(too_much_to_export()))
            }
            Session::Dead => Err(TlsError::Export(rustls::Error::HandshakeNotComplete)),
        }
    }
}

fn too_much_to_export() -> rustls::Error {
    rustls::Error::General("longer than the hash can make it".into())
}

/// Hands the next whole record of `buf` to rustls, and puts its plaintext behind that which `progress` knows. `false` if
/// there is no whole record.
fn open_by_rustls(
    conn: &mut Connection,
    buf: &mut [u8],
    progress: &mut Progress,
    peer_has_closed: &mut bool,
) -> Result<bool, TlsError> {
    let Some(len) = handshake_record_len(&buf[progress.used..]) else { return Ok(false) };
    let end = progress.used + len;
    while progress.used < end && !*peer_has_closed {
        progress.used += conn.read_tls(&mut &buf[progress.used..end]).map_err(TlsError::Unreadable)?;
        let result = conn.process_new_packets();
        let mut reader = conn.reader();
        while let Ok(record) = reader.fill_buf()
            && !record.is_empty()
        {
            // It was in a record as long as that, and more.
            let len = record.len();
            buf[progress.plaintext..progress.plaintext + len].copy_from_slice(record);
            progress.plaintext += len;
            reader.consume(len);
        }
        *peer_has_closed = result.map_err(TlsError::Peer)?.peer_has_closed();
    }
    Ok(true)
}

/// The length of the record that `buf` begins with, if it is all there. What is no record is all rustls', to say so.
fn handshake_record_len(buf: &[u8]) -> Option<usize> {
    /// What TLS 1.2 allows.
    const MAX_CIPHERTEXT: usize = MAX_PLAINTEXT + 2048;
    let &first = buf.first()?;
    if matches!(ContentType::from(first), ContentType::Unknown(_)) {
        return Some(buf.len());
    }
    let &[_, _, _, hi, lo, ..] = buf else { return None };
    let len = usize::from(u16::from_be_bytes([hi, lo]));
    if len > MAX_CIPHERTEXT {
        return Some(buf.len());
    }
    (buf.len() >= HEADER_LEN + len).then_some(HEADER_LEN + len)
}

impl TlsExporter for TlsStream {
    fn export(&self, label: &[u8], context: &[u8], out: &mut [u8; 32]) -> Result<(), ExportError> {
        self.export_keying_material(label, context, out).map_err(|_| ExportError)
    }
}
