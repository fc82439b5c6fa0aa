use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rand::rngs::SysRng;
use rand_core::UnwrapErr;
use tempfile::TempDir;

use super::*;

const NOW: Unix = Unix(1_790_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn rng() -> impl CryptoRng {
    UnwrapErr(SysRng)
}

struct Fixture {
    directory: TempDir,
    store: KeyStore,
}

/// An empty key directory.
fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let store = KeyStore::open(&directory.path().join("keys"), KeyOptions::default()).unwrap();
    Fixture { directory, store }
}

impl Fixture {
    fn load(&self, now: Unix) -> Result<RelayKeys, KeyError> {
        self.store.load_or_create(now, &mut rng())
    }

    fn offline(&self) -> KeyStore {
        let options = KeyOptions { offline_master: true, ..KeyOptions::default() };
        KeyStore::open(&self.store.directory, options).unwrap()
    }

    /// All files with their content.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let entries = fs::read_dir(&self.store.directory).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
        files.sort();
        files
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.store.path(name)).unwrap();
    }
}

fn rsa_id(keys: &RelayKeys) -> [u8; 20] {
    keys.rsa_identity.public().rsa_id()
}

fn same(one: &RelayKeys, other: &RelayKeys) -> bool {
    one.rsa_identity.public().rsa_id() == other.rsa_identity.public().rsa_id()
        && one.ed_identity == other.ed_identity
        && one.signing.public() == other.signing.public()
        && one.signing_cert == other.signing_cert
        && one.onion.public() == other.onion.public()
        && one.tap.public().rsa_id() == other.tap.public().rsa_id()
}

#[test]
fn keys_are_made_once() {
    let fixture = fixture();
    let first = fixture.load(NOW).unwrap();
    let files = fixture.files();
    assert!(same(&first, &fixture.load(NOW).unwrap()));
    let identities = PeerIdentity { rsa_id: rsa_id(&first), ed_id: first.ed_identity };
    assert_eq!(fixture.store.identities().unwrap(), Some(identities));
    assert_eq!(files, fixture.files());
    let names: Vec<_> = files.iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(
        names,
        [MASTER_PUBLIC, MASTER_SECRET, SIGNING_CERT, SIGNING_SECRET, RSA_IDENTITY, TAP, ONION,]
    );
    for (path, _) in files {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn damaged_files_are_errors_and_stay_as_they_are() {
    let fixture = fixture();
    fixture.load(NOW).unwrap();
    for name in [MASTER_PUBLIC, MASTER_SECRET, SIGNING_CERT, SIGNING_SECRET, RSA_IDENTITY, TAP, ONION] {
        let path = fixture.store.path(name);
        let good = fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 0x55;
        for bad in [&[][..], &good[..good.len() - 40], &good[..20], b"junk", &[0; 96], &flipped] {
            fs::write(&path, bad).unwrap();
            let before = fixture.files();
            // A changed byte in a secret key is another secret key, which shows only beside its public half.
            let unnoticed = bad == flipped && name == SIGNING_SECRET;
            assert_eq!(fixture.load(NOW).is_err(), !unnoticed, "{name}, {} bytes", bad.len());
            assert!(unnoticed || before == fixture.files(), "{name}");
            fs::write(&path, &good).unwrap();
        }
        fs::write(&path, vec![b'='; KEY_FILE_BYTES as usize + 1]).unwrap();
        assert!(fixture.load(NOW).is_err());
        fs::write(&path, &good).unwrap();
        fixture.remove(name);
        fs::create_dir(&path).unwrap();
        assert!(matches!(fixture.load(NOW), Err(KeyError::Read { .. })), "{name}");
        fs::remove_dir(&path).unwrap();
        fs::write(&path, &good).unwrap();
    }
    fs::write(fixture.store.path(ONION), "").unwrap();
    let message = fixture.load(NOW).err().unwrap().to_string();
    assert!(message.contains("secret_onion_key_ntor is empty; restore it"), "{message}");
}

#[test]
fn the_keys_of_two_relays_are_told_apart() {
    let (ours, theirs) = (fixture(), fixture());
    ours.load(NOW).unwrap();
    theirs.load(NOW).unwrap();
    let files = ours.files();
    for names in [&[MASTER_PUBLIC][..], &[MASTER_SECRET], &[SIGNING_CERT], &[SIGNING_CERT, SIGNING_SECRET]] {
        for name in names {
            fs::copy(theirs.store.path(name), ours.store.path(name)).unwrap();
        }
        let before = ours.files();
        assert!(matches!(ours.load(NOW), Err(KeyError::Mismatch { .. })), "{names:?}");
        assert_eq!(before, ours.files());
        for (path, content) in &files {
            fs::write(path, content).unwrap();
        }
    }
}

/// The key store of `fixture`, guarded by fingerprint files beside it.
fn guarded(fixture: &Fixture) -> KeyStore {
    let store = KeyStore::open(&fixture.store.directory, KeyOptions::default()).unwrap();
    store.guarded_by(fixture.directory.path())
}

#[test]
fn the_fingerprint_files_keep_the_two_identities_together() {
    let (ours, theirs) = (fixture(), fixture());
    let data = ours.directory.path();
    let keys = ours.load(NOW).unwrap();
    theirs.load(NOW).unwrap();
    assert_eq!(known_identity(data), None);
    // Nobody knows yet which two belong together.
    guarded(&ours).load_or_create(NOW, &mut rng()).unwrap();
    write_fingerprints(data, "relay", &keys).unwrap();
    assert_eq!(known_identity(data), Some(PeerIdentity { rsa_id: rsa_id(&keys), ed_id: keys.ed_identity }));
    guarded(&ours).load_or_create(NOW, &mut rng()).unwrap();
    let files = ours.files();
    let ed_files = [MASTER_PUBLIC, MASTER_SECRET, SIGNING_CERT, SIGNING_SECRET];
    let check = |wanted: fn(&KeyError) -> bool, named: &str| {
        let before = ours.files();
        let error = guarded(&ours).load_or_create(NOW, &mut rng()).err().unwrap();
        assert!(wanted(&error) && error.to_string().contains(named), "{error}");
        assert_eq!(before, ours.files());
        for (path, content) in &files {
            fs::write(path, content).unwrap();
        }
    };
    let copy = |name: &str| fs::copy(theirs.store.path(name), ours.store.path(name)).unwrap();

    ed_files.iter().for_each(|name| _ = copy(name));
    check(|error| matches!(error, KeyError::OtherEd25519 { .. }), "ed25519_master_id_public_key");
    ed_files.iter().for_each(|name| ours.remove(name));
    check(|error| matches!(error, KeyError::OtherEd25519 { .. }), "fingerprint-ed25519");
    copy(RSA_IDENTITY);
    check(|error| matches!(error, KeyError::OtherRsa { .. }), "secret_id_key");

    // All of another relay is a move, and none at all is a new relay.
    ed_files.iter().chain([&RSA_IDENTITY]).for_each(|name| _ = copy(name));
    guarded(&ours).load_or_create(NOW, &mut rng()).unwrap();
    ours.files().iter().for_each(|(path, _)| fs::remove_file(path).unwrap());
    let new = guarded(&ours).load_or_create(NOW, &mut rng()).unwrap();
    assert_ne!(new.ed_identity, keys.ed_identity);
}

#[test]
fn half_an_identity_is_not_completed() {
    let fixture = fixture();
    fixture.load(NOW).unwrap();
    fixture.remove(RSA_IDENTITY);
    assert!(matches!(fixture.load(NOW), Err(KeyError::HalfIdentity(_))));
    assert!(!fixture.store.exists(RSA_IDENTITY));
}

#[test]
fn the_public_master_key_is_put_back() {
    let fixture = fixture();
    let first = fixture.load(NOW).unwrap();
    let good = fs::read(fixture.store.path(MASTER_PUBLIC)).unwrap();
    fixture.remove(MASTER_PUBLIC);
    assert!(same(&first, &fixture.load(NOW).unwrap()));
    assert_eq!(fs::read(fixture.store.path(MASTER_PUBLIC)).unwrap(), good);
    // Also when only the certificate knows it.
    fixture.remove(MASTER_PUBLIC);
    fixture.remove(MASTER_SECRET);
    assert!(same(&first, &fixture.load(NOW).unwrap()));
    assert_eq!(fs::read(fixture.store.path(MASTER_PUBLIC)).unwrap(), good);
}

#[test]
fn signing_keys_are_renewed_before_they_expire() {
    let fixture = fixture();
    let first = fixture.load(NOW).unwrap();
    let second = fixture.load(NOW + 28 * DAY).unwrap();
    assert!(same(&first, &second));
    let third = fixture.load(NOW + 29 * DAY + Duration::from_secs(3600)).unwrap();
    assert_ne!(third.signing.public(), first.signing.public());
    assert_eq!(third.ed_identity, first.ed_identity);
    assert!(third.signing_expires > NOW + 58 * DAY);
    // Long after the end, or with a half-finished renewal, too.
    let fourth = fixture.load(NOW + 500 * DAY).unwrap();
    assert_ne!(fourth.signing.public(), third.signing.public());
    let file = format::SIGNING_SECRET.encode(third.signing.expanded());
    fs::write(fixture.store.path(SIGNING_SECRET), &file).unwrap();
    let fifth = fixture.load(NOW + 500 * DAY).unwrap();
    assert_ne!(fifth.signing.public(), third.signing.public());
    assert_eq!(fifth.ed_identity, first.ed_identity);
}

#[test]
fn an_offline_master_key_is_not_needed_until_the_signing_key_expires() {
    let fixture = fixture();
    let first = fixture.load(NOW).unwrap();
    let master = fixture.store.path(MASTER_SECRET);
    let elsewhere = fixture.directory.path().join("master");
    fs::rename(&master, &elsewhere).unwrap();
    for store in [&fixture.store, &fixture.offline()] {
        let keys = store.load_or_create(NOW + 29 * DAY + DAY / 2, &mut rng()).unwrap();
        assert!(same(&first, &keys));
        assert!(store.signing_is_due(&keys, NOW + 30 * DAY));
        let error = store.load_or_create(NOW + 31 * DAY, &mut rng()).err().unwrap();
        assert!(matches!(error, KeyError::MasterNeeded { .. }), "{error}");
    }
    fs::write(fixture.store.path(MASTER_ENCRYPTED), "== Boxed Ed25519 key: master ==").unwrap();
    let error = fixture.load(NOW + 31 * DAY).err().unwrap().to_string();
    assert!(error.contains("encrypted with a passphrase"), "{error}");
    fs::rename(&elsewhere, &master).unwrap();
    assert!(matches!(
        fixture.offline().load_or_create(NOW + 31 * DAY, &mut rng()),
        Err(KeyError::MasterNeeded { .. })
    ));
    assert_eq!(fixture.load(NOW + 31 * DAY).unwrap().ed_identity, first.ed_identity);
}

#[test]
fn a_signing_key_that_the_operator_brings_is_taken() {
    let fixture = fixture();
    let mut keys = fixture.load(NOW).unwrap();
    let offline = fixture.offline();
    let due = NOW + 29 * DAY + DAY / 2;
    let error = offline.renew_signing(&mut keys, due, &mut rng()).err().unwrap();
    assert!(matches!(error, KeyError::MasterNeeded { .. }), "{error}");

    // What the machine with the master key makes, file by file.
    let elsewhere = fixture.load(due).unwrap();
    let key = fs::read(fixture.store.path(SIGNING_SECRET)).unwrap();
    fs::write(fixture.store.path(SIGNING_SECRET), format::SIGNING_SECRET.encode(keys.signing.expanded()))
        .unwrap();
    assert!(offline.renew_signing(&mut keys, due, &mut rng()).is_err(), "half of it has arrived");
    fs::write(fixture.store.path(SIGNING_SECRET), key).unwrap();
    let before = fixture.files();
    offline.renew_signing(&mut keys, due, &mut rng()).unwrap();
    assert!(same(&keys, &elsewhere));
    assert_eq!(keys.signing_expires, elsewhere.signing_expires);
    assert!(!offline.signing_is_due(&keys, due));
    assert_eq!(before, fixture.files());
}

#[test]
fn without_any_key_an_offline_master_is_asked_for() {
    let fixture = fixture();
    let error = fixture.offline().load_or_create(NOW, &mut rng()).err().unwrap();
    assert!(matches!(error, KeyError::MasterNeeded { master: MasterAway::Offline, .. }));
}

#[test]
fn onion_keys_rotate_and_are_forgotten() {
    let fixture = fixture();
    let mut keys = fixture.load(NOW).unwrap();
    let first = *keys.onion.public();
    fixture.store.rotate_onion(&mut keys, NOW + 28 * DAY, &mut rng()).unwrap();
    assert_eq!(*keys.previous_onion.as_ref().unwrap().public(), first);
    assert_ne!(*keys.onion.public(), first);
    let loaded = fixture.load(NOW).unwrap();
    assert!(same(&keys, &loaded));
    assert_eq!(*loaded.previous_onion.unwrap().public(), first);
    assert!(fixture.store.exists(TAP_OLD));
    fixture.store.forget_previous_onion(&mut keys).unwrap();
    fixture.store.forget_previous_onion(&mut keys).unwrap();
    assert!(fixture.load(NOW).unwrap().previous_onion.is_none());
    assert!(!fixture.store.exists(TAP_OLD));
}

#[test]
fn a_directory_that_takes_no_files_loses_none() {
    let fixture = fixture();
    let mut keys = fixture.load(NOW).unwrap();
    let first = *keys.onion.public();
    let before = fixture.files();
    // Tests may run as root, who may write anywhere: a directory that is gone stands in for a full disk.
    let directory = fixture.directory.path().join("gone");
    let store = KeyStore { directory, options: KeyOptions::default(), known: None };
    assert!(matches!(store.rotate_onion(&mut keys, NOW, &mut rng()), Err(KeyError::Write { .. })));
    assert_eq!(*keys.onion.public(), first);
    assert!(keys.previous_onion.is_none());
    assert_eq!(before, fixture.files());
}

/// What `tor --list-fingerprint` prints of a data directory; `None` without an installed tor.
fn tor_fingerprint(data: &Path, which: &str) -> Option<String> {
    let data = data.to_str().unwrap();
    let authority = "DirAuthority a orport=1 v3ident=0000000000000000000000000000000000000001 127.0.0.1:1 \
                     0000000000000000000000000000000000000001\nORPort 9001\nNickname relay\n";
    let torrc = Path::new(data).with_extension("torrc");
    fs::write(&torrc, authority).unwrap();
    let torrc = torrc.to_str().unwrap();
    let args = ["-f", torrc, "--defaults-torrc", "/dev/null", "--DataDirectory", data, "--quiet"];
    let output = match Command::new("tor").args(args).args(["--list-fingerprint", which]).output() {
        Ok(output) => output,
        Err(_) => {
            eprintln!("no tor is installed: nothing to compare with");
            return None;
        }
    };
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

/// Directories of real tor must come from today, or their signing key would be renewed.
fn today() -> Unix {
    Unix(UNIX_EPOCH.elapsed().unwrap().as_secs())
}

#[test]
fn a_data_directory_of_tor_keeps_its_keys_with_us() {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("data");
    let (Some(rsa), Some(ed)) = (tor_fingerprint(&data, "rsa"), tor_fingerprint(&data, "ed25519")) else {
        return;
    };
    let store = KeyStore::open(&data.join("keys"), KeyOptions::default()).unwrap();
    let fixture = Fixture { directory: parent, store };
    let before = fixture.files();
    let keys = fixture.load(today()).unwrap();
    assert_eq!(format!("relay {}", rsa_fingerprint(&rsa_id(&keys))), rsa);
    assert_eq!(format!("relay {}", ed25519_fingerprint(&keys.ed_identity)), ed);
    assert_eq!(before, fixture.files());
    // The files beside the keys are the same, too, so they are not written again.
    let modified = || fs::metadata(data.join("fingerprint")).unwrap().modified().unwrap();
    let written = modified();
    write_fingerprints(&data, "relay", &keys).unwrap();
    assert_eq!(modified(), written);
}

#[test]
fn tor_takes_over_the_keys_we_made() {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("data");
    private_dir::ensure(&data, false).unwrap();
    let store = KeyStore::open(&data.join("keys"), KeyOptions::default()).unwrap();
    let fixture = Fixture { directory: parent, store };
    let mut keys = fixture.load(today()).unwrap();
    fixture.store.rotate_onion(&mut keys, today(), &mut rng()).unwrap();
    fixture.store.renew_signing(&mut keys, today(), &mut rng()).unwrap();
    write_fingerprints(&data, "relay", &keys).unwrap();
    let read = |name: &str| fs::read_to_string(data.join(name)).unwrap();
    let ours = (read("fingerprint"), read("fingerprint-ed25519"), fixture.files());
    let Some(rsa) = tor_fingerprint(&data, "rsa") else { return };
    assert_eq!(rsa, format!("relay {}", rsa_fingerprint(&rsa_id(&keys))));
    assert_eq!(
        tor_fingerprint(&data, "ed25519").unwrap(),
        format!("relay {}", ed25519_fingerprint(&keys.ed_identity))
    );
    assert_eq!(ours, (read("fingerprint"), read("fingerprint-ed25519"), fixture.files()));
}
