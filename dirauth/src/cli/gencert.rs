//! `gencert`: makes the keys and the certificate that an authority votes with, as C tor's `tor-gencert` does.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::{SocketAddr, SocketAddrV4, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

use lexopt::{Arg, ValueExt as _};
use onionring_node::cli::{BAD_CONFIG, BAD_STATE, failed, print};
use onionring_node::{atomic_file, terminal};
use onionring_proto::crypto::rsa::{RsaError, RsaPrivate};
use onionring_proto::netdoc::authcert::{self, CertTerms};
use onionring_proto::netdoc::text::{self, Fingerprint, format_time};
use onionring_proto::time::Unix;
use rand::rngs::SysRng;
use rand_core::UnwrapErr;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::keys::encrypted::{self, EncryptedKeyError};
use crate::keys::{self, AuthorityKeyError, CERTIFICATE, IDENTITY_KEY, SIGNING_KEY};

/// Bits of the two keys, as in C tor.
const IDENTITY_BITS: usize = 3072;
const SIGNING_BITS: usize = 2048;
/// Months that a certificate holds unless the command line says otherwise, and at most.
const MONTHS: u32 = 12;
const MONTHS_MAX: u32 = 24;
/// Bytes of a passphrase, as in C tor.
const PASSPHRASE_MIN: usize = 4;
const PASSPHRASE_MAX: u64 = 1024;

const HELP: &str = "\
Makes the keys and the certificate that a directory authority votes with.

usage: onionring-dirauth gencert [FLAGS]

The identity key is what others know the authority by (v3ident of its DirAuthority line). It is encrypted with a
passphrase, which is asked for at the terminal, and belongs on a machine that is not the authority. The signing key and
the certificate belong into the authority's KeyDirectory; make new ones before the certificate ends, and send SIGHUP.
Files are those of C tor's tor-gencert, and so are the flags.

  --create-identity-key  make an identity key; without it, it must be there
  -i FILE                the identity key (default ./authority_identity_key)
  -s FILE                the signing key (default ./authority_signing_key)
  -c FILE                the certificate (default ./authority_certificate)
  -m MONTHS              how long the certificate holds, 0 to 24 months (default 12)
  -a ADDRESS:PORT        where the authority serves its directory, to stand in the certificate
  -r, --reuse            keep the signing key, and make a certificate only
  --passphrase-fd FD     read the passphrase from this file descriptor, up to a line end
  -v                     say what is done
  -h, --help             print this, and exit

Prints the fingerprint of the identity and when the certificate ends. Exit codes: 0 when all went well, 1 when the command
line is wrong, 2 when keys cannot be read or written.
";

/// Why nothing was made. No file was changed, but perhaps an identity key made.
#[derive(Debug, Error)]
enum GencertError {
    #[error("{} is there already; leave out --create-identity-key to use it, or name another file with -i", .0.display())]
    IdentityExists(PathBuf),
    #[error("there is no identity key {}; name it with -i, or make one with --create-identity-key", .0.display())]
    NoIdentity(PathBuf),
    #[error("cannot use the identity key {}: {source}", path.display())]
    Identity { path: PathBuf, source: EncryptedKeyError },
    #[error(transparent)]
    Keys(#[from] AuthorityKeyError),
    #[error("cannot write {}: {source}; check its directory and the space on the disk", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("the passphrase is shorter than {PASSPHRASE_MIN} bytes; choose a longer one")]
    ShortPassphrase,
    #[error("the two passphrases are not the same; try again")]
    OtherPassphrase,
    #[error("there is no terminal to ask for the passphrase ({0}); give it with --passphrase-fd")]
    NoTerminal(io::Error),
    #[error("cannot read the passphrase from file descriptor {fd}: {source}")]
    PassphraseFd { fd: u32, source: io::Error },
    #[error("an RSA operation failed: {0}")]
    Rsa(#[from] RsaError),
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    create_identity: bool,
    identity: PathBuf,
    signing: PathBuf,
    certificate: PathBuf,
    months: u32,
    address: Option<SocketAddrV4>,
    reuse: bool,
    passphrase_fd: Option<u32>,
    verbose: bool,
}

/// Obeys the words behind `gencert`.
pub fn run(words: &[String]) -> ExitCode {
    match parse(words) {
        Ok(None) => print(HELP),
        Ok(Some(request)) => match make(&request, now()) {
            Ok(text) => print(&text),
            Err(error) => failed(&error, BAD_STATE),
        },
        Err(error) => {
            eprintln!("[err] {error}; see onionring-dirauth gencert --help");
            ExitCode::from(BAD_CONFIG)
        }
    }
}

/// `None` if help is asked for.
fn parse(words: &[String]) -> Result<Option<Request>, lexopt::Error> {
    let mut request = Request {
        create_identity: false,
        identity: IDENTITY_KEY.into(),
        signing: SIGNING_KEY.into(),
        certificate: CERTIFICATE.into(),
        months: MONTHS,
        address: None,
        reuse: false,
        passphrase_fd: None,
        verbose: false,
    };
    let mut words = lexopt::Parser::from_args(words);
    while let Some(word) = words.next()? {
        match word {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Short('i') => request.identity = words.value()?.into(),
            Arg::Short('s') => request.signing = words.value()?.into(),
            Arg::Short('c') => request.certificate = words.value()?.into(),
            Arg::Short('m') => request.months = words.value()?.parse_with(months)?,
            Arg::Short('a') => request.address = Some(words.value()?.parse_with(address)?),
            Arg::Short('r') | Arg::Long("reuse") => request.reuse = true,
            Arg::Short('v') => request.verbose = true,
            Arg::Long("create-identity-key") => request.create_identity = true,
            Arg::Long("passphrase-fd") => request.passphrase_fd = Some(words.value()?.parse()?),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(request))
}

fn months(text: &str) -> Result<u32, String> {
    let months = text.parse().ok().filter(|months| *months <= MONTHS_MAX);
    months.ok_or_else(|| format!("a certificate holds 0 to {MONTHS_MAX} months"))
}

/// An address and a port; a name is looked up.
fn address(text: &str) -> Result<SocketAddrV4, String> {
    let found =
        text.to_socket_addrs().map_err(|error| error.to_string())?.find_map(|address| match address {
            SocketAddr::V4(address) => Some(address),
            SocketAddr::V6(_) => None,
        });
    found.ok_or_else(|| "it has no IPv4 address".to_owned())
}

fn now() -> Unix {
    Unix(UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()))
}

/// Makes what is asked for, and says what it is.
fn make(request: &Request, now: Unix) -> Result<String, GencertError> {
    let say = |text: &str| {
        if request.verbose {
            eprintln!("[notice] {text}");
        }
    };
    let mut rng = UnwrapErr(SysRng);
    let identity = if request.create_identity {
        say(&format!("making an identity key of {IDENTITY_BITS} bits in {}", request.identity.display()));
        create_identity(request)?
    } else {
        say(&format!("reading the identity key {}", request.identity.display()));
        read_identity(request)?
    };
    let signing = if request.reuse {
        say(&format!("keeping the signing key {}", request.signing.display()));
        keys::read_signing_key(&request.signing)?
    } else {
        say(&format!("making a signing key of {SIGNING_BITS} bits in {}", request.signing.display()));
        RsaPrivate::generate(SIGNING_BITS, &mut rng)?
    };
    let expires = months_later(now, request.months);
    let terms = CertTerms { published: now, expires, dir_address: request.address };
    let certificate = authcert::build(&identity, &signing, &terms, &mut rng)?;
    // Everything that can fail for want of space fails before anything changes.
    let pem = signing.to_pem();
    let files = [(&request.signing, pem.as_bytes()), (&request.certificate, certificate.as_bytes())];
    let mut prepared = Vec::new();
    for (path, content) in &files[usize::from(request.reuse)..] {
        prepared.push((path, atomic_file::prepare(path, content, 0o600).map_err(cannot_write(path))?));
    }
    for (path, file) in prepared {
        file.commit().map_err(cannot_write(path))?;
    }
    say(&format!("the certificate is in {}", request.certificate.display()));
    let fingerprint = Fingerprint(identity.public().rsa_id());
    Ok(format!("v3ident={fingerprint} expires {}\n", format_time(expires)))
}

fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> GencertError {
    move |source| GencertError::Write { path: path.to_owned(), source }
}

fn create_identity(request: &Request) -> Result<RsaPrivate, GencertError> {
    let path = &request.identity;
    if path.symlink_metadata().is_ok() {
        return Err(GencertError::IdentityExists(path.clone()));
    }
    let passphrase = match request.passphrase_fd {
        Some(fd) => from_descriptor(fd)?,
        None => {
            let passphrase = ask("passphrase for the new identity key: ")?;
            if passphrase != ask("once more: ")? {
                return Err(GencertError::OtherPassphrase);
            }
            passphrase
        }
    };
    if passphrase.len() < PASSPHRASE_MIN {
        return Err(GencertError::ShortPassphrase);
    }
    let mut rng = UnwrapErr(SysRng);
    let key = RsaPrivate::generate(IDENTITY_BITS, &mut rng)?;
    let pem = encrypted::write(&key, &passphrase, &mut rng)
        .map_err(|source| GencertError::Identity { path: path.clone(), source })?;
    atomic_file::write(path, pem.as_bytes(), 0o400).map_err(cannot_write(path))?;
    Ok(key)
}

fn read_identity(request: &Request) -> Result<RsaPrivate, GencertError> {
    let path = &request.identity;
    let pem = match keys::read(path) {
        Err(AuthorityKeyError::Missing(path)) => return Err(GencertError::NoIdentity(path)),
        pem => pem?,
    };
    let cannot_use = |source| GencertError::Identity { path: path.clone(), source };
    let pem = std::str::from_utf8(&pem).map_err(|_| cannot_use(EncryptedKeyError::NotPem))?;
    let passphrase = match request.passphrase_fd {
        Some(fd) => from_descriptor(fd)?,
        None if encrypted::is_encrypted(pem) => ask("passphrase of the identity key: ")?,
        None => Zeroizing::default(),
    };
    encrypted::read(pem, &passphrase).map_err(cannot_use)
}

fn ask(question: &str) -> Result<Zeroizing<Vec<u8>>, GencertError> {
    let answer = terminal::ask_secret(question).map_err(GencertError::NoTerminal)?;
    Ok(Zeroizing::new(answer.as_bytes().to_vec()))
}

/// What can be read from a file descriptor that we were started with, up to a line end.
fn from_descriptor(fd: u32) -> Result<Zeroizing<Vec<u8>>, GencertError> {
    let mut passphrase = Zeroizing::new(Vec::with_capacity(PASSPHRASE_MAX as usize));
    let file = File::open(format!("/dev/fd/{fd}"));
    let read = file.and_then(|file| file.take(PASSPHRASE_MAX).read_to_end(&mut passphrase));
    read.map_err(|source| GencertError::PassphraseFd { fd, source })?;
    let end = passphrase.iter().position(|&byte| byte == b'\n').unwrap_or(passphrase.len());
    passphrase.truncate(end);
    Ok(passphrase)
}

/// The same day and time so many months later; where that month is too short, so many days into the next, as C tor's
/// `mktime` has it.
fn months_later(now: Unix, months: u32) -> Unix {
    let date = format_time(now);
    let number =
        |range: std::ops::Range<usize>| date.get(range).and_then(|digits| digits.parse::<u64>().ok());
    let later = || {
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let month = month - 1 + u64::from(months);
        let first = format!("{:04}-{:02}-01", year + month / 12, month % 12 + 1);
        Some(text::time(&first, date.get(11..)?)?.0 + (day - 1) * 24 * 60 * 60)
    };
    // Years of four digits: true until 9999.
    later().map_or(now, Unix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Option<Request>, lexopt::Error> {
        parse(&text.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn flags_are_those_of_tor_gencert() {
        let request = words(
            "--create-identity-key -i id -s key -c cert -m 3 -a 127.0.0.1:7000 -r --passphrase-fd 0 -v",
        );
        let expected = Request {
            create_identity: true,
            identity: "id".into(),
            signing: "key".into(),
            certificate: "cert".into(),
            months: 3,
            address: Some("127.0.0.1:7000".parse().unwrap()),
            reuse: true,
            passphrase_fd: Some(0),
            verbose: true,
        };
        assert_eq!(request.unwrap(), Some(expected));
        let least = words("--reuse").unwrap().unwrap();
        assert_eq!((least.months, least.identity.as_os_str()), (12, "authority_identity_key".as_ref()));
        assert_eq!(words("-r -h").unwrap(), None);
        for wrong in ["-m 25", "-m x", "-a [::1]:1", "-a 127.0.0.1", "-x", "file", "-i"] {
            assert!(words(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        let later = |date: &str, months| {
            let (day, clock) = date.split_once(' ').unwrap();
            format_time(months_later(text::time(day, clock).unwrap(), months))
        };
        assert_eq!(later("2026-11-27 20:48:39", 12), "2027-11-27 20:48:39");
        assert_eq!(later("2026-11-27 20:48:39", 0), "2026-11-27 20:48:39");
        assert_eq!(later("2026-12-31 00:00:00", 2), "2027-03-03 00:00:00");
        assert_eq!(later("2027-12-01 00:00:00", 1), "2028-01-01 00:00:00");
        assert_eq!(later("2028-02-29 23:59:59", 24), "2030-03-01 23:59:59");
    }
}
