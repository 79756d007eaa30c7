//! Timing one command in a small process of its own, and what a series of such times says.
//!
//! The process between is there for the peak memory: the kernel tells it of all children of a process together, so each
//! command gets a parent that has no other.

use std::ffi::OsStr;
use std::io;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};

/// What one execution took.
#[derive(Clone, Copy)]
pub struct Sample {
    pub milliseconds: f64,
    pub peak_kib: u64,
}

/// The switch that turns this program into the process between.
pub const TIME: &str = "--time-one";

/// Executes a command by way of this program's own binary. A command that fails is an error.
pub fn time<S: AsRef<OsStr>>(command: &[S]) -> io::Result<Sample> {
    let output = Command::new(std::env::current_exe()?).arg(TIME).args(command).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut words = text.split_whitespace();
    let sample =
        (|| Some(Sample { milliseconds: words.next()?.parse().ok()?, peak_kib: words.next()?.parse().ok()? }))();
    sample.filter(|_| output.status.success()).ok_or_else(|| {
        let words: Vec<_> = command.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        io::Error::other(format!("this failed: {}", words.join(" ")))
    })
}

/// The process between: executes, and prints milliseconds and peak memory.
pub fn between(command: impl IntoIterator<Item = String>) -> io::Result<bool> {
    let mut words = command.into_iter();
    let program = words.next().ok_or_else(|| io::Error::other("no command"))?;
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
    let begun = Instant::now();
    let status = command.status()?;
    let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
    println!("{milliseconds} {}", getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss());
    Ok(status.success())
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Of a sample; 0 for a single value.
pub fn standard_deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len().max(2) - 1) as f64).sqrt()
}

pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}
