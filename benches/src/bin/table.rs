//! Makes a table of what the criterion benchmarks measured last.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::Value;

/// A table of the last measurements, in Markdown.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where criterion keeps them
    #[arg(default_value = "target/criterion")]
    measurements: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut rows = Vec::new();
    collect(&Arguments::parse().measurements, &mut rows)?;
    rows.sort();
    println!("| benchmark | ns | from | to | per second |\n|---|---:|---:|---:|---:|");
    rows.iter().for_each(|row| println!("{row}"));
    Ok(())
}

/// Adds the rows of all measurements below a folder.
fn collect(folder: &Path, rows: &mut Vec<String>) -> Result<(), Box<dyn Error>> {
    let latest = folder.join("new");
    if latest.join("estimates.json").exists() {
        rows.push(row(&latest)?);
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, rows)?;
        }
    }
    Ok(())
}

/// Nanoseconds of one unit of the benchmark's throughput, with the confidence interval of the median.
fn row(folder: &Path) -> Result<String, Box<dyn Error>> {
    let read = |name| -> Result<Value, Box<dyn Error>> {
        Ok(serde_json::from_str(&fs::read_to_string(folder.join(name))?)?)
    };
    let (benchmark, estimates) = (read("benchmark.json")?, read("estimates.json")?);
    let units = benchmark["throughput"]["Elements"].as_f64().unwrap_or(1.0);
    let name = benchmark["full_id"].as_str().unwrap_or("?");
    let median = &estimates["median"];
    let of = |value: &Value| value.as_f64().unwrap_or(f64::NAN) / units;
    let ns = of(&median["point_estimate"]);
    let interval = &median["confidence_interval"];
    let (from, to) = (of(&interval["lower_bound"]), of(&interval["upper_bound"]));
    Ok(format!("| {name} | {ns:.1} | {from:.1} | {to:.1} | {:.0} |", 1e9 / ns))
}
