//! The results as a table that can go into a document as it is.

use crate::measure::{Sample, mean, median, standard_deviation};

/// One thing that was timed.
pub struct Series {
    pub name: String,
    pub samples: Vec<Sample>,
}

/// A row: a series, and what it is compared with.
pub struct Row<'a> {
    pub series: &'a Series,
    /// Its name and its median.
    pub yardstick: Option<(String, f64)>,
}

impl Series {
    pub fn new(name: impl Into<String>) -> Series {
        Series { name: name.into(), samples: Vec::new() }
    }

    pub fn milliseconds(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.milliseconds).collect()
    }

    pub fn median(&self) -> f64 {
        median(&self.milliseconds())
    }

    /// As a yardstick for another.
    pub fn yardstick(&self) -> Option<(String, f64)> {
        Some((self.name.clone(), self.median()))
    }
}

pub fn print(rows: &[Row]) {
    println!("| what | times | mean (sd), ms | median, ms | beside | ratio of medians | peak memory, MiB |");
    println!("|---|--:|--:|--:|---|--:|--:|");
    for Row { series, yardstick } in rows {
        let times = series.milliseconds();
        let (beside, ratio) = match yardstick {
            Some((name, other)) => (name.as_str(), format!("{:.2}", series.median() / other)),
            None => ("", String::new()),
        };
        let peak = series.samples.iter().map(|sample| sample.peak_kib).max().unwrap_or(0) as f64 / 1024.0;
        println!(
            "| {} | {} | {:.1} ({:.1}) | {:.1} | {beside} | {ratio} | {peak:.1} |",
            series.name,
            times.len(),
            mean(&times),
            standard_deviation(&times),
            series.median()
        );
    }
}
