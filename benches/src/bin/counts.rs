//! Counts the instructions of kernels under callgrind, where noise of the machine does not show, and holds them against
//! a baseline.
//!
//! The figures depend on the compiler, so the baseline names the one it was made with, and is not held against another.
//! The C library chooses among its copying routines by what the processor can do; it is told to take the plain ones.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::{Parser, Subcommand};
use onionring_benches::kernels::{KERNELS, Kernel};

/// Growth that is a regression.
const TOLERANCE: f64 = 0.05;

/// Calls that are counted.
const CALLS: u32 = 20;

/// What makes copying the same everywhere.
const PLAIN_LIBC: (&str, &str) =
    ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-AVX512F,-AVX512VL,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM");

/// Instructions of the relay's small pieces of work.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Count, and fail if any piece needs over 5 % more than the baseline says
    Check {
        /// The baseline
        baseline: PathBuf,
    },
    /// Count, and make that the baseline
    Update {
        /// The baseline
        baseline: PathBuf,
    },
    /// Do one piece of work, for callgrind to count
    Run {
        /// Its name
        kernel: String,
    },
}

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<ExitCode> {
    match Arguments::parse().command {
        Action::Run { kernel } => run(&kernel)?,
        Action::Update { baseline } => fs::write(baseline, render(&compiler()?, &count_all()?))?,
        Action::Check { baseline } => return check(&baseline),
    }
    Ok(ExitCode::SUCCESS)
}

fn run(name: &str) -> Outcome<()> {
    let kernel = KERNELS.iter().find(|kernel| kernel.name == name).ok_or("no such kernel")?;
    let mut work = (kernel.prepare)();
    // Tables and buffers grow in the first calls.
    for _ in 0..3 {
        work();
    }
    counted(&mut work);
    Ok(())
}

/// What callgrind counts: it knows this function by its name.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    for _ in 0..CALLS {
        work();
    }
}

/// Instructions per unit, of every kernel.
fn count_all() -> Outcome<BTreeMap<String, f64>> {
    KERNELS.iter().map(|kernel| Ok((kernel.name.to_owned(), count(kernel)?))).collect()
}

fn count(kernel: &Kernel) -> Outcome<f64> {
    let out = std::env::temp_dir().join(format!("onionring-counts-{}", std::process::id()));
    let status = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", "--toggle-collect=*counts*counted*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["run", kernel.name])
        .env(PLAIN_LIBC.0, PLAIN_LIBC.1)
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("valgrind does not start ({error}): scripts/setup installs it"))?;
    let profile = fs::read_to_string(&out);
    let _ = fs::remove_file(&out);
    if !status.success() {
        return Err(format!("{} under valgrind: {status}", kernel.name).into());
    }
    let total = profile?.lines().find_map(|line| line.strip_prefix("summary: ")?.trim().parse::<f64>().ok());
    match total {
        Some(total) if total > 0.0 => Ok(total / f64::from(CALLS) / f64::from(kernel.units)),
        _ => Err(format!("callgrind counted nothing of {}", kernel.name).into()),
    }
}

/// The compiler that cargo runs here.
fn compiler() -> Outcome<String> {
    let output = Command::new("rustc").arg("--version").output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The baseline as a file.
fn render(compiler: &str, counts: &BTreeMap<String, f64>) -> String {
    let mut text = String::from(
        "# Instructions per unit of each kernel (benches/src/kernels.rs). `make baseline` writes this file; a rise of over\n\
         # 5 % fails `make test`. Commit a new one together with the change that is worth it, and say why.\n",
    );
    text += &format!("rustc = \"{compiler}\"\n\n[instructions]\n");
    for (name, count) in counts {
        text += &format!("{name} = {count:.1}\n");
    }
    text
}

/// The file as compiler and counts. It has nothing of TOML but what `render` writes.
fn parse(text: &str) -> Outcome<(String, BTreeMap<String, f64>)> {
    let mut pairs =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(" = "));
    let compiler = match pairs.next() {
        Some(("rustc", compiler)) => compiler.trim_matches('"').to_owned(),
        _ => return Err("the baseline names no compiler".into()),
    };
    let counts =
        pairs.map(|(name, count)| Ok((name.to_owned(), count.parse::<f64>()?))).collect::<Outcome<_>>()?;
    Ok((compiler, counts))
}

fn check(path: &Path) -> Outcome<ExitCode> {
    let (made_with, baseline) = parse(&fs::read_to_string(path)?)?;
    let compiler = compiler()?;
    let counts = count_all()?;
    let comparable = compiler == made_with;
    let mut worse = Vec::new();
    println!("{:16} {:>10} {:>10} {:>8}", "INSTRUCTIONS", "baseline", "now", "change");
    for kernel in KERNELS {
        let now = counts[kernel.name];
        let Some(&old) = baseline.get(kernel.name) else {
            println!("{:16} {:>10} {now:10.1}          per {}", kernel.name, "-", kernel.unit);
            worse.push(format!("{} has no baseline", kernel.name));
            continue;
        };
        let change = now / old - 1.0;
        println!("{:16} {old:10.1} {now:10.1} {:+7.1}% per {}", kernel.name, 100.0 * change, kernel.unit);
        if change > TOLERANCE {
            worse
                .push(format!("{}: {now:.1} instructions per {}, {old:.1} before", kernel.name, kernel.unit));
        }
    }
    if !comparable {
        println!(
            "NOT COMPARED: the baseline is of {made_with}, this is {compiler}; `make baseline` makes one for it"
        );
        return Ok(ExitCode::SUCCESS);
    }
    if worse.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("\nover 5 % more instructions than {} says:", path.display());
    worse.iter().for_each(|line| eprintln!("  {line}"));
    eprintln!("if the change is worth it: `make baseline`, and commit the file with the change");
    Ok(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_baseline_reads_as_it_was_written() {
        let counts = BTreeMap::from([("frame_in".to_owned(), 12.5), ("ring".to_owned(), 80.0)]);
        assert_eq!(parse(&render("rustc 1.2.3", &counts)).unwrap(), ("rustc 1.2.3".to_owned(), counts));
        assert!(parse("ring = 1\n").is_err());
    }
}
