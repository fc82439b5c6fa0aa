//! TLS as links use it: the one module behind which rustls lives (tor-spec 2).
//!
//! A link's TLS session hides the traffic and nothing more; who the peer is follows from the CERTS cell inside it,
//! which names the digest of the TLS certificate. So certificate chains are not judged here, but the signature on
//! the handshake is: without it that digest would prove nothing. Sessions are never resumed, for the same reason.
//!
//! [`Acceptor`] and [`Connector`] are the configurations of the two sides, [`TlsStream`] is one session without its
//! socket: ciphertext goes in through [`TlsStream::open`], plaintext through [`TlsStream::seal`], and what the
//! session has to send is taken with [`TlsStream::transmit`].

use std::io::{self, BufRead as _, Write as _};
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
    ClientConfig, ClientConnection, Connection, DigitallySignedStruct, ServerConfig, ServerConnection,
    SignatureScheme, SupportedProtocolVersion,
};
use thiserror::Error;

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
        config.ignore_client_order = true;
        Ok(Acceptor { config: Arc::new(config), certificate })
    }

    /// The DER of the leaf that sessions of this acceptor present.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The responder's side of a new session.
    pub fn accept(&self) -> Result<TlsStream, TlsError> {
        let conn = ServerConnection::new(self.config.clone()).map_err(TlsError::Setup)?;
        Ok(TlsStream::new(conn.into()))
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
        Ok(Connector { config: Arc::new(config) })
    }

    /// The initiator's side of a new session, with an invented server name as C tor has it.
    pub fn connect(&self, rng: &mut impl CryptoRng) -> Result<TlsStream, TlsError> {
        let name =
            ServerName::try_from(random_host_name("com", rng)).expect("a random host name is a DNS name");
        let conn = ClientConnection::new(self.config.clone(), name).map_err(TlsError::Setup)?;
        Ok(TlsStream::new(conn.into()))
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
/// After an error the session is dead: [`transmit`](Self::transmit) what is left (an alert) and close the connection.
pub struct TlsStream {
    conn: Connection,
    peer_has_closed: bool,
}

impl TlsStream {
    fn new(mut conn: Connection) -> TlsStream {
        // Callers seal only what they want sent now, so a limit here would only cut plaintext short.
        conn.set_buffer_limit(None);
        TlsStream { conn, peer_has_closed: false }
    }

    /// Whether the handshake is still under way, so that no application data can flow.
    pub fn is_handshaking(&self) -> bool {
        self.conn.is_handshaking()
    }

    /// Whether the peer has closed the session in order; nothing more will come.
    pub fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    /// The DER of the leaf certificate that the peer presented; `None` on a responder's side, and before it came.
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.conn.peer_certificates()?.first().map(|leaf| leaf.as_ref())
    }

    /// Takes `ciphertext` as it came from the socket, in pieces of any size, and appends what it holds of application
    /// data to `plaintext`.
    ///
    /// An error leaves the plaintext of the records before the bad one in `plaintext`.
    pub fn open(&mut self, mut ciphertext: &[u8], plaintext: &mut Vec<u8>) -> Result<(), TlsError> {
        while !ciphertext.is_empty() && !self.peer_has_closed {
            // Copies at most one record into the session's own buffer, where it is opened.
            self.conn.read_tls(&mut ciphertext).map_err(TlsError::Unreadable)?;
            let result = self.conn.process_new_packets();
            let mut reader = self.conn.reader();
            while let Ok(record) = reader.fill_buf()
                && !record.is_empty()
            {
                let len = record.len();
                plaintext.extend_from_slice(record);
                reader.consume(len);
            }
            self.peer_has_closed = result.map_err(TlsError::Peer)?.peer_has_closed();
        }
        Ok(())
    }

    /// Seals application data into records of up to 16 KiB for [`transmit`](Self::transmit).
    ///
    /// To choose late what goes out, call this when [`wants_transmit`](Self::wants_transmit) says no.
    pub fn seal(&mut self, plaintext: &[u8]) -> Result<(), TlsError> {
        self.conn.writer().write_all(plaintext).map_err(TlsError::Unreadable)
    }

    /// Queues the notice that nothing more will be sent.
    pub fn close(&mut self) {
        self.conn.send_close_notify();
    }

    /// Whether there is ciphertext to send.
    pub fn wants_transmit(&self) -> bool {
        self.conn.wants_write()
    }

    /// Hands ciphertext to `out`, record by record, without a copy; returns how many bytes it took in this call.
    ///
    /// What `out` does not take stays for the next call, also when it fails with `WouldBlock`.
    pub fn transmit(&mut self, out: &mut dyn io::Write) -> io::Result<usize> {
        self.conn.write_tls(out)
    }

    /// Fills `out` with keying material of this session (RFC 5705), the same on both sides.
    pub fn export_keying_material(
        &self,
        label: &[u8],
        context: &[u8],
        out: &mut [u8],
    ) -> Result<(), TlsError> {
        self.conn.export_keying_material(out, label, Some(context)).map(drop).map_err(TlsError::Export)
    }
}

impl TlsExporter for TlsStream {
    fn export(&self, label: &[u8], context: &[u8], out: &mut [u8; 32]) -> Result<(), ExportError> {
        self.export_keying_material(label, context, out).map_err(|_| ExportError)
    }
}
