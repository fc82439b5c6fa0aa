//! Loadgen as the next relay: identities under which the relay under test finds us when it is told to extend.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use onionring_node::tls::{Acceptor, TlsVersions};
use onionring_proto::crypto::ed25519::Ed25519Pair;
use onionring_proto::crypto::rsa::RsaPrivate;
use onionring_proto::link::cert::{self, CertType, Certified};
use onionring_proto::link::x509::{self, TlsLeaf};
use onionring_proto::link::{LinkIdentity, PeerIdentity};
use onionring_proto::time::Unix;

use super::error::{LoadError, own};

/// How long the certificate of a signing key is valid; no measurement takes longer.
const SIGNING_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

/// One identity of ours.
pub(super) struct Hop {
    /// As the relay under test is told it.
    pub(super) id: PeerIdentity,
    /// What a link handshake needs.
    pub(super) identity: Arc<LinkIdentity>,
}

/// The civil time now.
pub(super) fn unix() -> Unix {
    Unix(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// The TLS certificate that all our identities show, made once: finding its key takes a good part of a second.
fn leaf() -> Result<&'static TlsLeaf, LoadError> {
    static LEAF: OnceLock<Result<TlsLeaf, x509::X509Error>> = OnceLock::new();
    let leaf = LEAF.get_or_init(|| TlsLeaf::generate(unix(), &mut rand::rng()));
    leaf.as_ref().map_err(|e| own("making a TLS certificate")(e.to_string()))
}

/// The TLS side of our listeners.
pub(super) fn acceptor() -> Result<Acceptor, LoadError> {
    Acceptor::new(leaf()?, TlsVersions::Both).map_err(own("using a TLS certificate"))
}

/// `count` different identities. They are made on two threads and kept for the next measurement.
pub(super) fn identities(count: usize) -> Result<Vec<Arc<Hop>>, LoadError> {
    static MADE: Mutex<Vec<Arc<Hop>>> = Mutex::new(Vec::new());
    leaf()?;
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let missing = count.saturating_sub(made.len());
    let make = |count: usize| (0..count).map(|_| identity()).collect::<Result<Vec<_>, _>>();
    let halves = [missing / 2, missing - missing / 2];
    let new: Vec<Result<Vec<Hop>, LoadError>> = thread::scope(|scope| {
        let threads = halves.map(|half| scope.spawn(move || make(half)));
        let join =
            |t: thread::ScopedJoinHandle<'_, _>| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p));
        threads.map(join).into()
    });
    for half in new {
        made.extend(half?.into_iter().map(Arc::new));
    }
    Ok(made[..count].to_vec())
}

fn identity() -> Result<Hop, LoadError> {
    let rng = &mut rand::rng();
    let rsa = RsaPrivate::generate(x509::IDENTITY_BITS, rng).map_err(own("making an RSA key"))?;
    let (ed, signing) = (Ed25519Pair::generate(rng), Ed25519Pair::generate(rng));
    let certified = Certified::Ed25519(signing.public());
    let signing_cert = cert::build(CertType::IDENTITY_V_SIGNING, certified, unix() + SIGNING_LIFETIME, &ed);
    let identity = LinkIdentity::new(&rsa, &signing_cert, &signing, &leaf()?.certificate, unix(), rng)
        .map_err(own("making an identity"))?;
    let id = PeerIdentity { rsa_id: rsa.public().rsa_id(), ed_id: ed.public() };
    Ok(Hop { id, identity: Arc::new(identity) })
}
