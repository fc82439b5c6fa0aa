use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use tempfile::TempDir;
use tokio::net::UnixStream;

use super::*;

/// A directory with this mode, and the path of a socket file in it.
fn directory(mode: u32) -> (TempDir, String) {
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
    let path = directory.path().join("socks").to_str().unwrap().to_owned();
    (directory, path)
}

#[tokio::test]
async fn a_socket_file_serves_as_an_address_does() {
    let (_directory, path) = directory(0o700);
    let mut bench = Bench::new(&format!("SocksPort unix:{path}"));
    assert_eq!(bench.places, [(ClientKind::Socks, Place::File(path.clone().into()))]);
    let mut app = UnixStream::connect(&path).await.unwrap();
    app.write_all(b"\x05\x01\x00\x05\x01\x00\x03\x09a.example\x00\x50").await.unwrap();
    assert_eq!(take(&mut app, 12).await[3], 0);
    let mut opened = bench.opened().await;
    assert_eq!(opened.destination.token.client, None);
    assert_eq!(opened.destination.token.isolate, Isolate::AUTH | Isolate::SESSION);
    app.write_all(b"question").await.unwrap();
    app.shutdown().await.unwrap();
    assert_eq!(take(&mut opened.far, 8).await, b"question");
    opened.far.write_all(b"answer").await.unwrap();
    drop(opened.far);
    let mut rest = Vec::new();
    app.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"answer");
    assert!(fs::exists(&path).unwrap());
    drop(bench);
    // The file goes with the port.
    until(|| !fs::exists(&path).unwrap()).await;
}

#[test]
fn socket_files_are_open_to_whom_the_flags_say() {
    for (flags, directory_mode, mode) in [
        ("", 0o700, 0o600),
        ("GroupWritable", 0o750, 0o660),
        ("RelaxDirModeCheck", 0o755, 0o600),
        ("GroupWritable RelaxDirModeCheck", 0o755, 0o660),
        ("WorldWritable", 0o777, 0o666),
    ] {
        let (_directory, path) = directory(directory_mode);
        let _bound = bind(&config(&format!("SocksPort unix:{path} {flags}"))).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, mode, "{flags}");
    }
    for (flags, directory_mode) in [
        ("", 0o750),
        ("", 0o701),
        ("GroupWritable", 0o755),
        ("GroupWritable", 0o770),
        ("RelaxDirModeCheck", 0o775),
    ] {
        let (_directory, path) = directory(directory_mode);
        let error = bind(&config(&format!("SocksPort unix:{path} {flags}"))).unwrap_err();
        assert!(matches!(error, BindError::Directory { .. }), "{flags} {directory_mode:o}: {error}");
        assert!(error.to_string().contains(&format!("{directory_mode:03o}")), "{error}");
    }
}

#[test]
fn what_lies_where_the_socket_file_should_be() {
    let (_directory, path) = directory(0o700);
    let config = config(&format!("SocksPort unix:{path}"));
    fs::write(&path, "precious").unwrap();
    let error = bind(&config).unwrap_err();
    assert!(matches!(error, BindError::NotASocket(_)), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();

    // The listener is gone, its file is not.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let bound = bind(&config).unwrap();
    let error = bind(&config).unwrap_err();
    assert!(matches!(error, BindError::InUse(_)), "{error}");
    drop(bound);
    bind(&config).unwrap();
}

#[test]
fn a_port_in_use_is_named() {
    let first = bind(&config("SocksPort auto")).unwrap();
    let (_, place) = first.places().next().unwrap();
    let error = bind(&config(&format!("SocksPort {place}"))).unwrap_err();
    assert!(error.to_string().contains(&format!("SocksPort {place}")), "{error}");
}

#[test]
fn ports_of_all_kinds_are_opened() {
    let bound = bind(&config("SocksPort auto\nHTTPTunnelPort auto\nDNSPort auto\nTransPort auto")).unwrap();
    let places: Vec<_> = bound.places().collect();
    assert_eq!(places.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), ClientKind::ALL);
    for (_, place) in places {
        assert!(
            matches!(place, Place::Address(address) if address.port() != 0 && address.ip().is_loopback())
        );
    }
}
