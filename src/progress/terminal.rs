//! Live lines: one for each running layer, and a total.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{Event, LayerStatus, Renderer, duration, titled};
use crate::text::printable;

/// The terminal renderer.
pub struct Terminal {
    bars: MultiProgress,
    total: ProgressBar,
    running: BTreeMap<String, ProgressBar>,
    downloads: BTreeMap<String, ProgressBar>,
    layers: usize,
    hits: usize,
    built: usize,
    failed: usize,
}

impl Default for Terminal {
    fn default() -> Self {
        Terminal::new()
    }
}

impl Terminal {
    /// Draws on stderr.
    pub fn new() -> Terminal {
        let bars = MultiProgress::new();
        let total = bars.add(ProgressBar::new_spinner());
        total.set_style(style("{spinner} {elapsed} {msg}"));
        Terminal {
            bars,
            total,
            running: BTreeMap::new(),
            downloads: BTreeMap::new(),
            layers: 0,
            hits: 0,
            built: 0,
            failed: 0,
        }
    }

    fn line(&mut self, layer: &str) -> &ProgressBar {
        let (bars, total) = (&self.bars, &self.total);
        self.running.entry(layer.to_owned()).or_insert_with(|| {
            let bar = bars.insert_before(total, ProgressBar::new_spinner());
            bar.set_style(style("{spinner} {elapsed:>4} {prefix:.bold} {wide_msg}"));
            bar.set_prefix(layer.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        })
    }

    fn begin_download(&mut self, what: &str, bytes: Option<u64>) {
        let bar = match bytes {
            Some(bytes) => ProgressBar::new(bytes),
            None => ProgressBar::new_spinner(),
        };
        let bar = self.bars.insert_before(&self.total, bar);
        let form = match bytes {
            Some(_) => "{spinner} {elapsed:>4} {prefix} {bytes} of {total_bytes} ({bytes_per_sec})",
            None => "{spinner} {elapsed:>4} {prefix} {bytes} ({bytes_per_sec})",
        };
        bar.set_style(style(form));
        bar.set_prefix(printable(what).into_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        self.downloads.insert(what.to_owned(), bar);
    }

    fn show_total(&self) {
        // Files come from servers before it is known what is to be built.
        if self.layers == 0 {
            return;
        }
        let left = self.layers.saturating_sub(self.hits + self.built + self.failed);
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        self.total.set_message(format!("{} hits, {} built{failed}, {left} left", self.hits, self.built));
    }

    fn clear(&self) {
        for bar in self.running.values().chain(self.downloads.values()) {
            bar.finish_and_clear();
        }
        self.total.finish_and_clear();
    }

    fn print(&self, text: &str) {
        // Not MultiProgress::println, which prints nothing where stderr is no terminal.
        self.bars.suspend(|| eprintln!("{}", printable(text)));
    }
}

impl Renderer for Terminal {
    fn show(&mut self, event: &Event) {
        match event {
            Event::Begin { layers } => self.layers = *layers,
            Event::Started { layer, step, reason } => {
                let text = if reason.is_empty() { (*step).to_owned() } else { format!("{step}: {reason}") };
                self.line(layer).set_message(printable(&text).into_owned());
            }
            Event::Waiting { layer } => self.line(layer).set_message("another stacker builds it, waiting"),
            Event::DownloadStarted { what, bytes } => self.begin_download(what, *bytes),
            Event::DownloadWaits { what } => self.print(&format!("{what}: another stacker downloads it, waiting")),
            Event::DownloadGoesOn { what, bytes } => {
                if let Some(bar) = self.downloads.get(what) {
                    bar.set_position(*bytes);
                }
            }
            Event::DownloadEnded { what, .. } => {
                if let Some(bar) = self.downloads.remove(what) {
                    bar.finish_and_clear();
                }
            }
            Event::Output { layer, line } => self.line(layer).set_message(printable(line).into_owned()),
            Event::Finished { layer, status, seconds } => {
                if let Some(bar) = self.running.remove(layer) {
                    bar.finish_and_clear();
                }
                match status {
                    LayerStatus::Hit => self.hits += 1,
                    LayerStatus::Built => {
                        self.built += 1;
                        self.print(&format!("built {layer} in {}", duration(*seconds)));
                    }
                    LayerStatus::Failed | LayerStatus::Skipped => self.failed += 1,
                }
            }
            Event::Failed { layer, message } => self.print(&format!("error: {layer}: {message}")),
            Event::Warning(text) => self.print(&titled(text)),
            Event::End(summary) => {
                self.clear();
                self.print(&summary.line());
                return;
            }
            Event::Stop => return self.clear(),
        }
        self.show_total();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
