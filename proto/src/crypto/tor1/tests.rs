use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::Sha256;
use shake::{ExtendableOutput, Shake256, Update, XofReader};

use super::*;
use crate::cell::BODY_LEN;

fn keys(hop: u8) -> KeyMaterial {
    KeyMaterial::from_kh_last(&std::array::from_fn(|at| hop.wrapping_mul(92).wrapping_add(at as u8)))
}

/// A client and the relays of its circuit.
fn circuit(hops: u8) -> (ClientOnion, Vec<RelayLayer>) {
    let mut client = ClientOnion::new();
    let relays = (0..hops)
        .map(|hop| {
            client.push_hop(&keys(hop));
            RelayLayer::new(&keys(hop))
        })
        .collect();
    (client, relays)
}

/// A plaintext cell with everything random but the two fields that the layers own.
fn plaintext(rng: &mut impl Rng) -> Body {
    let mut body = [0; BODY_LEN];
    rng.fill_bytes(&mut body);
    body[RECOGNIZED].fill(0);
    body[DIGEST].fill(0);
    body
}

/// Everything but the digest field, which the receiver leaves filled in.
fn message(body: &Body) -> (&[u8], &[u8]) {
    (&body[..DIGEST.start], &body[DIGEST.end..])
}

/// Cells that C tor made (Arti's `cell_crypt.rs`, a run of `test_relaycrypt.c`), here by their SHA-256.
#[test]
fn three_hops_of_c_tor() {
    let material: [&[u8; 92]; 3] = [
        b"    'My public key is in this signed x509 object', said Tom assertively.      (N-PREG-VIRYL)",
        b"'Let's chart the pedal phlanges in the tomb', said Tom cryptographically.  (PELCG-GBR-TENCU)",
        b"     'Segmentation fault bugs don't _just happen_', said Tom seethingly.        (P-GUVAT-YL)",
    ];
    let mut client = ClientOnion::new();
    material.iter().for_each(|bytes| client.push_hop(&KeyMaterial::from_kh_last(bytes)));
    let mut data = Shake256::default();
    data.update(
        b"'You mean to tell me that there's a version of Sha-3 with no limit on the output length?', said Tom shakily.",
    );
    let mut data = data.finalize_xof();

    let expected = [
        (0, "f3cc9a1db3b472b95a5344d4bd9756bf8a1b827b4b65770f4bea3e2486e37ad6"),
        (1, "d531b194233f70e76d72e4d5b656099328ae95634401bbb26ae71904b26b65a6"),
        (2, "7b3ad754d16c2e10b790fc5ffd51dd4d80df776bd47d1db6ad76fc1b17f1c971"),
        (10, "afcc7f1a9728fe1c23a221aafca03d0d1cf351036d3c95b01ed3f724d0c69e25"),
        (20, "0828e919c87184df3558c66fb747960dfbd08a504174ee3ff2145aa17743a775"),
        (30, "d9eb99e28ee8358ea8cc1b59fe324e4f50706389be5d0672e2e7da800c11cc45"),
        (40, "4690cad7853f177cb199da6cc9a8e57c58b441208bde486022df2d4bc16a5951"),
        (50, "0ceaabe1dd9fd32184163dcf130543ec24c58f4aa5c3a718a782e01cfa2305fb"),
    ];
    let mut seen = 0;
    for cell in 0..=50 {
        let mut body = [0; BODY_LEN];
        body[..11].copy_from_slice(&[2, 0, 0, 0, 1, 0, 0, 0, 0, 1, 242]); // DATA, stream 1, 498 bytes
        data.read(&mut body[11..]);
        client.encrypt_outbound(2, &mut body);
        if let Some((_, sha256)) = expected.iter().find(|(at, _)| *at == cell) {
            assert_eq!(hex::encode(Sha256::digest(body)), *sha256, "cell {cell}");
            seen += 1;
        }
    }
    assert_eq!(seen, expected.len());
}

#[test]
fn every_hop_can_be_addressed_and_can_answer() {
    let (mut client, mut relays) = circuit(3);
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for _ in 0..200 {
        let hop = rng.next_u32() as usize % 3;
        let original = plaintext(&mut rng);
        let mut body = original;
        let sent = client.encrypt_outbound(hop, &mut body);
        for relay in &mut relays[..hop] {
            assert_eq!(relay.decrypt_outbound(&mut body), None);
        }
        assert_eq!(relays[hop].decrypt_outbound(&mut body), Some(sent));
        assert_eq!(message(&body), message(&original));
        assert_eq!(body[DIGEST], sent.0[..4]);

        let hop = rng.next_u32() as usize % 3;
        let original = plaintext(&mut rng);
        let mut body = original;
        let sent = relays[hop].originate_inbound(&mut body);
        for relay in relays[..hop].iter_mut().rev() {
            relay.encrypt_inbound(&mut body);
        }
        assert_eq!(client.decrypt_inbound(&mut body), Some((hop, sent)));
        assert_eq!(message(&body), message(&original));
    }
}

/// A cell whose recognized field is zero by chance or by malice, with a wrong digest.
#[test]
fn recognized_zero_alone_neither_disturbs_nor_changes_the_cell() {
    let (mut client, mut relays) = circuit(2);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..50 {
        let mut stray = plaintext(&mut rng);
        rng.fill_bytes(&mut stray[DIGEST]);
        let mut body = stray;
        client.hops[0].outbound.keystream.apply(&mut body);
        assert_eq!(relays[0].decrypt_outbound(&mut body), None);
        assert_eq!(body, stray, "passed on as it was, digest field included");
        let mut body = plaintext(&mut rng);
        let sent = client.encrypt_outbound(0, &mut body);
        assert_eq!(relays[0].decrypt_outbound(&mut body), Some(sent));

        let mut stray = plaintext(&mut rng);
        rng.fill_bytes(&mut stray[DIGEST]);
        for relay in relays.iter_mut().rev() {
            relay.encrypt_inbound(&mut stray);
        }
        assert_eq!(client.decrypt_inbound(&mut stray), None);
        let mut body = plaintext(&mut rng);
        let sent = relays[1].originate_inbound(&mut body);
        relays[0].encrypt_inbound(&mut body);
        assert_eq!(client.decrypt_inbound(&mut body), Some((1, sent)));
    }
}

#[test]
fn a_replayed_or_lost_cell_is_not_recognised() {
    let (mut client, mut relays) = circuit(1);
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut body = plaintext(&mut rng);
    client.encrypt_outbound(0, &mut body);
    let mut replay = body;
    assert!(relays[0].decrypt_outbound(&mut body).is_some());
    assert_eq!(relays[0].decrypt_outbound(&mut replay), None);
    let (mut client, mut relays) = circuit(1);
    client.encrypt_outbound(0, &mut plaintext(&mut rng));
    let mut body = plaintext(&mut rng);
    client.encrypt_outbound(0, &mut body);
    assert_eq!(relays[0].decrypt_outbound(&mut body), None);
}

#[test]
fn a_truncated_circuit_can_be_extended_again() {
    let (mut client, mut relays) = circuit(3);
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    client.truncate_hops(1);
    assert_eq!(client.hops(), 1);
    client.push_hop(&keys(9));
    relays[1] = RelayLayer::new(&keys(9));
    let mut body = plaintext(&mut rng);
    let sent = client.encrypt_outbound(1, &mut body);
    assert_eq!(relays[0].decrypt_outbound(&mut body), None);
    assert_eq!(relays[1].decrypt_outbound(&mut body), Some(sent));
}

proptest! {
    /// Any change of any byte on the way keeps the cell from being recognised.
    #[test]
    fn a_changed_cell_is_not_recognised(at in 0..BODY_LEN, change in 1u8.., seed in any::<u64>()) {
        let (mut client, mut relays) = circuit(1);
        let mut body = plaintext(&mut ChaCha8Rng::seed_from_u64(seed));
        client.encrypt_outbound(0, &mut body);
        body[at] ^= change;
        prop_assert_eq!(relays[0].decrypt_outbound(&mut body), None);
    }

    /// Junk at any hop is never recognised and never stops what follows.
    #[test]
    fn junk_passes_through(junk in proptest::collection::vec(any::<u8>(), BODY_LEN)) {
        let (mut client, mut relays) = circuit(1);
        let mut body: Body = junk.try_into().unwrap();
        prop_assert_eq!(relays[0].decrypt_outbound(&mut body), None);
        client.hops[0].outbound.keystream.apply(&mut body);
        let mut body = plaintext(&mut ChaCha8Rng::seed_from_u64(6));
        let sent = client.encrypt_outbound(0, &mut body);
        prop_assert_eq!(relays[0].decrypt_outbound(&mut body), Some(sent));
    }
}
