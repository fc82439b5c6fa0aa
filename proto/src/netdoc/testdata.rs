//! Documents captured from a private network of C tor 0.4.9.11: three authorities (a0, a1, a2) and four relays, one
//! of them an exit with an IPv6 policy (r0), one with a family (r1), one with an IPv6 ORPort (r2).

use std::sync::LazyLock;

use crate::netdoc::authcert::{AuthCert, CertStore};
use crate::netdoc::text::Fingerprint;
use crate::time::Unix;

pub mod votes;

pub const CONSENSUS_NS: &str = include_str!("testdata/consensus.txt");
pub const CONSENSUS_MICRODESC: &str = include_str!("testdata/consensus_microdesc.txt");
pub const CERTS: &str = include_str!("testdata/certs.txt");
pub const DESCRIPTORS: &str = include_str!("testdata/descriptors.txt");
pub const EXTRA_INFOS: &str = include_str!("testdata/extrainfos.txt");
pub const MICRODESCS: &str = include_str!("testdata/microdescs.txt");

/// A moment at which all of it was current.
pub const NOW: Unix = Unix(1_795_344_950);

pub fn authorities() -> Vec<Fingerprint> {
    certs().iter().map(|c| c.identity).collect()
}

pub fn certs() -> &'static CertStore {
    static STORE: LazyLock<CertStore> = LazyLock::new(|| {
        let mut store = CertStore::default();
        for (_, cert) in AuthCert::parse_all(CERTS) {
            store.insert(cert.unwrap());
        }
        store
    });
    &STORE
}

/// `text` with its lines edited: each line is given with its number, and replaced by what comes back.
pub fn edit_lines(text: &str, edit: impl Fn(usize, &str) -> String) -> String {
    text.split_inclusive('\n').enumerate().map(|(n, line)| edit(n, line)).collect()
}
