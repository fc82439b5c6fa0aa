//! The vector that C tor and Arti share (`test_ntor_v3.c`, `ntor_v3.rs`), which uses messages and a verification
//! string that circuits never have.

use super::super::tests::{Canned, unhex};
use super::*;

const VERIFICATION: &[u8] = b"xyzzy";
const REQUEST: &[u8] = b"hello world";
const ANSWER: &[u8] = b"Hola Mundo";

#[test]
fn vector_of_c_tor_and_arti() {
    let b = OnionKey::from_secret(&unhex("4051daa5921cfa2a1c27b08451324919538e79e788a81b38cbed097a5dff454a"));
    assert_eq!(*b.public(), unhex("f8307a2bc1870b00b828bb74dbb8fd88e632a6375ab3bcd1ae706aaa8b6cdd1d"));
    let ed_id = unhex("9fad2af287ef942632833d21f946c6260c33fae6172b60006e86e4a6911753a2");
    let x: [u8; 32] = unhex("b825a3719147bcbe5fb1d0b0fcb9c09e51948048e2e3283d2ab7b45b5ef38b49");
    let y: [u8; 32] = unhex("4865a5b7689dafd978f529291c7171bc159be076b92186405d13220b80e2a053");

    let (client, message) = start(&mut Canned(&x), &ed_id, b.public(), REQUEST, VERIFICATION);
    assert_eq!(
        hex::encode(&message),
        "9fad2af287ef942632833d21f946c6260c33fae6172b60006e86e4a6911753a2f8307a2bc1870b00b828bb74dbb8fd88e632a6375ab3bc\
         d1ae706aaa8b6cdd1d252fe9ae91264c91d4ecb8501f79d0387e34ad8ca0f7c995184f7d11d5da4f463bebd9151fd3b47c180abc9e044d\
         53565f04d82bbb3bebed3d06cea65db8be9c72b68cd461942088502f67"
    );

    let ring = OnionKeyRing::new(b, None, &mut Canned(&[1; 32]));
    let (request, opened) = open(&ed_id, &ring, &message, VERIFICATION).unwrap();
    assert_eq!(request, REQUEST);
    let (reply, mut server_stream) = opened.reply(&mut Canned(&y), ANSWER, VERIFICATION).unwrap();
    assert_eq!(
        hex::encode(&reply),
        "4bf4814326fdab45ad5184f5518bd7fae25dc59374062698201a50a22954246d2fc5f8773ca824542bc6cf6f57c7c29bbf4e5476461ab1\
         30c5b18ab0a91276651202c3e1e87c0d32054c"
    );

    let (mut client_stream, answer) = client.finish(&reply, VERIFICATION).unwrap();
    assert_eq!(answer, ANSWER);
    let mut keys = [[0; 256]; 2];
    client_stream.read(&mut keys[0]);
    server_stream.read(&mut keys[1]);
    for keys in keys {
        assert_eq!(
            hex::encode(keys),
            "9c19b631fd94ed86a817e01f6c80b0743a43f5faebd39cfaa8b00fa8bcc65c3bfeaa403d91acbd68a821bf6ee8504602b094a25439\
             2a07737d5662768c7a9fb1b2814bb34780eaee6e867c773e28c212ead563e98a1cd5d5b4576f5ee61c59bde025ff2851bb19b72142\
             1694f263818e3531e43a9e4e3e2c661e2ad547d8984caa28ebecd3e4525452299be26b9185a20a90ce1eac20a91f2832d731b54502\
             b09749b5a2a2949292f8cfcbeffb790c7790ed935a9d251e7e336148ea83b063a5618fcff674a44581585fd22077ca0e52c59a2434\
             7a38d1a1ceebddbf238541f226b8f88d0fb9c07a1bcd2ea764bbbb5dacdaf5312a14c0b9e4f06309b0333b4a"
        );
    }
}

#[test]
fn another_verification_string_does_not_authenticate() {
    let b = OnionKey::from_secret(&[5; 32]);
    let ring = OnionKeyRing::new(b.clone(), None, &mut Canned(&[1; 32]));
    let (client, message) = start(&mut Canned(&[2; 32]), &[9; 32], b.public(), REQUEST, VERIFICATION);
    assert_eq!(open(&[9; 32], &ring, &message, CIRCUIT_EXTEND).err(), Some(HandshakeError::Authentication));
    let (_, opened) = open(&[9; 32], &ring, &message, VERIFICATION).unwrap();
    let (reply, _) = opened.reply(&mut Canned(&[3; 32]), ANSWER, CIRCUIT_EXTEND).unwrap();
    assert_eq!(client.finish(&reply, VERIFICATION).err(), Some(HandshakeError::Authentication));
}
