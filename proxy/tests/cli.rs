//! The command line and the program, run as processes.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;

use onionring_proxy::control::Report;
use rustix::process::{Pid, Signal, kill_process};

const AUTHORITY: &str = "DirAuthority a orport=1 v3ident=0000000000000000000000000000000000000001 127.0.0.1:1 \
                         0000000000000000000000000000000000000002\n";

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onionring-proxy"));
    command.args(words);
    command
}

fn proxy(words: &[&str]) -> Output {
    command(words).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// A directory with a torrc for a data directory in it, and the name of that torrc.
fn torrc(lines: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("torrc");
    write_torrc(&directory, lines);
    let path = path.display().to_string();
    (directory, path)
}

fn write_torrc(directory: &tempfile::TempDir, lines: &str) {
    let data = directory.path().join("data");
    let text = format!("{AUTHORITY}SocksPort auto\nDataDirectory {}\n{lines}", data.display());
    fs::write(directory.path().join("torrc"), text).unwrap();
}

/// A proxy that runs, and ends with this.
struct Running {
    child: Child,
    log: BufReader<ChildStdout>,
}

impl Running {
    /// Starts one, and waits until it listens to commands.
    fn start(torrc: &str) -> Running {
        let mut child =
            command(&["-f", torrc]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stdout.take().unwrap());
        let mut running = Running { child, log };
        running.wait_for("starts");
        running
    }

    /// Reads the log up to a line with this in it.
    fn wait_for(&mut self, text: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "the log ends without '{text}'");
            if line.contains(text) {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// The code with which it ends when it is told to.
    fn end(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a running proxy is; it may still be starting.
fn status(torrc: &str) -> Report {
    loop {
        let status = proxy(&["status", "-f", torrc]);
        if status.status.success() {
            return Report::parse(stdout(&status));
        }
        assert!(stderr(&status).contains("no proxy runs"), "{}", stderr(&status));
        thread::yield_now();
    }
}

#[test]
fn answers_that_need_no_configuration() {
    assert!(stdout(&proxy(&["--version"])).starts_with("onionring-proxy 0."));
    for words in [&["-h"][..], &["resolve", "--help"], &["check", "-h"], &["status", "--help"]] {
        let help = proxy(words);
        assert!(help.status.success());
        for word in ["--torrc-file", "--verify-config", "resolve", "check", "new-identity", "exit codes"] {
            assert!(stdout(&help).contains(word), "{word}");
        }
    }
    let options = proxy(&["--list-torrc-options"]);
    for option in ["SocksPort", "LeakyPipe"] {
        assert!(stdout(&options).lines().any(|line| line == option), "{option}");
    }
}

#[test]
fn configurations_are_verified() {
    let (_directory, path) = torrc("");
    let good = proxy(&["-f", &path, "--verify-config"]);
    let said = (good.status.code(), stdout(&good));
    assert_eq!(said, (Some(0), "Configuration was valid\n"), "{}", stderr(&good));
    let bad = proxy(&["-f", &path, "--verify-config", "--ExitNodes", "{de}", "--quiet"]);
    assert_eq!(bad.status.code(), Some(1));
    assert_eq!(
        stderr(&bad),
        "[err] command line: ExitNodes \"{de}\": '{de}' is a country, and this program knows of no countries; name \
         fingerprints or networks instead\n"
    );
    let relay = proxy(&["-f", &path, "--verify-config", "--ORPort", "9001", "--quiet"]);
    assert_eq!(relay.status.code(), Some(1));
    assert!(stderr(&relay).contains("this program is a client only"), "{}", stderr(&relay));
    let nowhere = proxy(&["-f", &path, "--verify-config", "--/DirAuthority", "--quiet"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(stderr(&nowhere).contains("DirAuthority"), "{}", stderr(&nowhere));
}

#[test]
fn dumps_can_be_read_by_tor_and_by_us() {
    let (directory, path) =
        torrc("ExcludeNodes a,192.0.2.0/24\nExcludeNodes b\nMaxCircuitDirtiness 2 hours\n");
    let dump = proxy(&["-f", &path, "--dump-config", "short"]);
    assert!(dump.status.success(), "{}", stderr(&dump));
    for line in ["ExcludeNodes a,192.0.2.0/24", "ExcludeNodes b", "MaxCircuitDirtiness 7200"] {
        assert!(stdout(&dump).lines().any(|found| found == line), "{line} in {}", stdout(&dump));
    }
    let again = directory.path().join("again");
    fs::write(&again, stdout(&dump)).unwrap();
    let second = proxy(&["-f", again.to_str().unwrap(), "--dump-config", "short"]);
    assert_eq!(stdout(&second), stdout(&dump));
    let Ok(tor) = Command::new("tor").args(["-f", again.to_str().unwrap(), "--verify-config"]).output()
    else {
        return eprintln!("no tor is installed: nothing to compare with");
    };
    assert!(tor.status.success(), "{}", stdout(&tor));
}

#[test]
fn commands_need_their_words_and_a_proxy() {
    let (_directory, path) = torrc("");
    for words in [
        &["resolve"][..],
        &["resolve", "a", "b"],
        &["resolve", "-x", "a"],
        &["resolve", "a", "-x", "192.0.2.1"],
        &["resolve", "a", "--socks", "9050"],
        &["check", "now"],
        &["check", "--url", ":0"],
        &["new-identity", "please"],
        &["status", "--NoSuchOption", "1"],
    ] {
        let output = proxy(&[words, &["-f", &path]].concat());
        assert_eq!(output.status.code(), Some(1), "{words:?}: {}", stderr(&output));
    }
    for words in [&["resolve", "a"][..], &["new-identity"], &["status"], &["circuits"]] {
        let output = proxy(&[words, &["-f", &path]].concat());
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("no proxy runs"), "{}", stderr(&output));
    }
    let check = proxy(&["check", "-f", &path]);
    assert_eq!(check.status.code(), Some(3));
    let lines: Vec<_> = stdout(&check).lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].starts_with("works  configuration: ") && lines[1].starts_with("fails  proxy: "),
        "{lines:?}"
    );
    let bad = proxy(&["check", "-f", &path, "--ControlPort", "1"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(stdout(&bad).starts_with("fails  configuration: "), "{}", stdout(&bad));
}

#[test]
fn a_proxy_runs_answers_and_ends() {
    let (directory, path) = torrc("");
    let pid = directory.path().join("pid");
    write_torrc(
        &directory,
        &format!(
            "MetricsPort auto\nMetricsPortPolicy accept 127.0.0.1\nPidFile {}\nNumCPUs 1\n",
            pid.display()
        ),
    );
    let mut running = Running::start(&path);
    let report = status(&path);
    assert_eq!(report.pid, running.child.id());
    assert_eq!(fs::read_to_string(&pid).unwrap(), format!("{}\n", report.pid));
    assert!(!report.is_ready() && report.consensus.is_none());
    let socket = directory.path().join("data/proxy.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);

    let metrics = report.ports_of("MetricsPort").next().unwrap();
    let mut stream = TcpStream::connect(metrics).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    for sample in [
        // Nothing, or that it connects.
        "onionring_proxy_bootstrap_ratio 0",
        "onionring_proxy_circuits_failed_total{reason=\"timeout\"} 0\n",
    ] {
        assert!(page.contains(sample), "{sample} in {page}");
    }

    let identity = proxy(&["new-identity", "-f", &path]);
    assert!(identity.status.success() && stdout(&identity).contains("new circuits"), "{}", stderr(&identity));
    let check = proxy(&["check", "-f", &path]);
    assert_eq!(check.status.code(), Some(3));
    for line in
        [&format!("works  proxy: process {} runs", report.pid), "fails  directory: ", "fails  circuits: "]
    {
        assert!(stdout(&check).contains(line), "{line} in {}", stdout(&check));
    }

    let second = proxy(&["-f", &path]);
    assert_eq!(second.status.code(), Some(2));
    assert!(stderr(&second).contains("another process uses the data directory"), "{}", stderr(&second));
    assert_eq!(running.end(), Some(0));
    assert!(!pid.exists() && !socket.exists());
}

#[test]
fn signals_reload_report_and_log_more() {
    let (directory, path) = torrc("");
    let mut running = Running::start(&path);
    status(&path);
    running.signal(Signal::USR1);
    assert!(running.wait_for("Heartbeat: ").contains("not ready"));
    running.signal(Signal::USR2);
    running.wait_for("everything is logged");
    write_torrc(&directory, "SafeSocks 1\nNumCPUs 3\n");
    running.signal(Signal::HUP);
    running.wait_for("has been read again");
    running.wait_for("NumCPUs has changed; the change takes effect when the proxy is restarted");
    write_torrc(&directory, "SafeSocks maybe\n");
    running.signal(Signal::HUP);
    running.wait_for("SafeSocks \"maybe\"");
    running.wait_for("the one before stays in force");
    assert_eq!(running.end(), Some(0));
}

#[test]
fn names_are_looked_up_through_the_socks_port() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let played = thread::spawn(move || {
        let answers: [&[u8]; 2] = [b"\x05\x00\x00\x01\xc0\x00\x02\x07\0\0", b"\x05\x04\x00\x01\0\0\0\0\0\0"];
        answers.map(|answer| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut hello = [0; 3];
            stream.read_exact(&mut hello).unwrap();
            stream.write_all(b"\x05\x00").unwrap();
            let mut request = [0; 16];
            stream.read_exact(&mut request).unwrap();
            // In pieces, as a network may bring it.
            answer.iter().for_each(|byte| stream.write_all(&[*byte]).unwrap());
            request
        })
    });
    let found = proxy(&["resolve", "a.example", "--socks", &place]);
    assert_eq!((found.status.code(), stdout(&found)), (Some(0), "192.0.2.7\n"), "{}", stderr(&found));
    let missing = proxy(&["resolve", "b.example", "--socks", &place]);
    assert_eq!(missing.status.code(), Some(3));
    assert!(stderr(&missing).contains("the name is not known"), "{}", stderr(&missing));
    let [first, _] = played.join().unwrap();
    assert_eq!(&first, b"\x05\xf0\x00\x03\x09a.example\x00\x00");
    let gone = proxy(&["resolve", "a.example", "--socks", &place]);
    assert_eq!(gone.status.code(), Some(2), "{}", stderr(&gone));
}
