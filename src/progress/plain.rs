//! Prefixed lines, one after the other: for logs and scripts.

use bytesize::ByteSize;

use super::{Event, LayerStatus, Renderer, duration, log, titled};
use crate::text::printable;

macro_rules! line {
    ($($text:tt)*) => { log::line(&format!($($text)*)) };
}

/// The plain renderer.
pub struct Plain {
    /// Only warnings and errors.
    pub quiet: bool,
}

impl Renderer for Plain {
    fn show(&mut self, event: &Event) {
        match event {
            Event::Warning(text) => line!("{}", printable(&titled(text))),
            Event::Failed { layer, message } => line!("error: {layer}: {}", printable(message)),
            _ if self.quiet => {}
            Event::Begin { .. } | Event::Stop => {}
            Event::Started { layer, step, reason } if reason.is_empty() => line!("{layer}: {step}"),
            Event::Started { layer, step, reason } => line!("{layer}: {step} ({})", printable(reason)),
            Event::Waiting { layer } => line!("{layer}: another stacker builds it, waiting"),
            Event::DownloadStarted { what, bytes: None } => line!("{}: downloading", printable(what)),
            Event::DownloadStarted { what, bytes: Some(bytes) } => {
                line!("{}: downloading {}", printable(what), ByteSize::b(*bytes));
            }
            Event::DownloadWaits { what } => line!("{}: another stacker downloads it, waiting", printable(what)),
            Event::DownloadGoesOn { .. } | Event::DownloadEnded { seconds: None, .. } => {}
            Event::DownloadEnded { what, seconds: Some(seconds) } => {
                line!("{}: downloaded in {}", printable(what), duration(*seconds));
            }
            Event::Output { layer, line } => line!("{layer}| {}", printable(line)),
            Event::Finished { layer, status: LayerStatus::Built, seconds } => {
                line!("{layer}: built in {}", duration(*seconds));
            }
            Event::Finished { .. } => {}
            Event::End(summary) => {
                line!("{}", summary.line());
                for (name, hit) in &summary.layers {
                    match hit {
                        true => line!("found cached layer {name}"),
                        false => line!("filesystem {name} built successfully"),
                    }
                }
            }
        }
    }
}
