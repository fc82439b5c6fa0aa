//! Child processes that never outlive us.
//!
//! Two mechanisms, one for each way to end. When a [`Process`] is dropped it is killed and waited for. When this
//! program dies without running destructors (SIGKILL, abort), the kernel kills the child: `setpriv --pdeathsig` asks
//! for that before it becomes the node. The kernel watches the *thread* that started the child, so one thread that
//! lives as long as the program starts all of them.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::Serialize;

/// How often an ending process is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Exit status of the wrapping shell when our program was gone before the kernel knew to watch it.
const ORPHANED: &str = "86";

/// CPU time and memory of a process, from `/proc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// User and system time of all threads, in seconds.
    pub cpu_seconds: f64,
    /// Memory resident now, in bytes.
    pub rss_bytes: u64,
    /// The most memory that ever was resident, in bytes.
    pub rss_max_bytes: u64,
}

/// A child process in a process group of its own; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `program`, with variables added to its environment and its output appended to the file `log`.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        environment: &[(String, String)],
        log: &Path,
    ) -> io::Result<Process> {
        let out = File::options().create(true).append(true).open(log)?;
        let mut command = tied_to_us(program);
        command
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            // Ctrl-C reaches the whole foreground group: keep the nodes out of it, we end them in order.
            .process_group(0);
        Ok(Process { child: spawn(command)? })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if it has ended.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends a signal; does nothing if the process has ended.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        // A child that is not yet waited for keeps its id, so this cannot hit a stranger.
        if self.child.try_wait()?.is_none() {
            rustix::process::kill_process(Pid::from_child(&self.child), signal)?;
        }
        Ok(())
    }

    /// Asks it to end with SIGTERM and waits; kills it when `patience` is over.
    pub fn stop(&mut self, patience: Duration) -> io::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(POLL);
        }
        self.kill()
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    /// What it has used so far.
    pub fn usage(&self) -> io::Result<Usage> {
        usage(self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails only for a process that is gone already, which is what is wanted.
        let _ = self.kill();
    }
}

/// In words: how a process ended.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// CPU time and memory of any process (or of this one's own children).
pub fn usage(pid: u32) -> io::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses, which may itself hold blanks and parentheses.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |n: usize| after_name.split_whitespace().nth(n - 3).and_then(|f| f.parse::<u64>().ok());
    let ticks = field(14).zip(field(15)).map(|(user, system)| user + system);
    let ticks = ticks.ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not understood")))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|v| v.split_whitespace().next()).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0)
    };
    Ok(Usage {
        cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        rss_bytes: kib("VmRSS:") * 1024,
        rss_max_bytes: kib("VmHWM:") * 1024,
    })
}

/// Whether a process runs. One that has ended but is not yet waited for does not.
pub fn lives(pid: u32) -> bool {
    // Only a running process has memory.
    usage(pid).is_ok_and(|usage| usage.rss_bytes > 0)
}

/// Runs `program` to its end with `input` on its standard input and returns what it printed.
pub fn run(program: &Path, arguments: &[&str], input: &str) -> io::Result<String> {
    use std::io::Write;
    let mut command = tied_to_us(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0);
    let mut child = spawn(command)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input has closed it: what it says about that follows.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said = if stderr.trim().is_empty() { stdout.trim() } else { stderr.trim() };
    Err(io::Error::other(format!(
        "`{} {}` ended with {}: {said}",
        program.display(),
        arguments.join(" "),
        describe(output.status)
    )))
}

/// A command that runs `program` and dies with us. The shell between closes the gap before the kernel watches: it
/// goes on only if we are still its parent.
fn tied_to_us(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "sh", "-c"]);
    command.arg(format!("[ $PPID = $0 ] || exit {ORPHANED}; exec \"$@\""));
    command.arg(std::process::id().to_string()).arg(program);
    command
}

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts `command` from the thread that lives as long as this program.
fn spawn(command: Command) -> io::Result<Child> {
    static STARTER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                // The one who asked may be gone (a panic between); then the child is dropped here, and killed.
                if let Err(mpsc::SendError(Ok(mut child))) = reply.send(command.spawn()) {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        });
        jobs
    });
    let (reply, answer) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts processes has ended");
    starter.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?.map_err(|e| {
        io::Error::new(
            e.kind(),
            format!("cannot run setpriv (package util-linux), which every node starts under: {e}"),
        )
    })
}
