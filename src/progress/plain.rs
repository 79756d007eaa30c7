//! Prefixed lines, one after the other: for logs and scripts.

use super::{Event, LayerStatus, Renderer, duration};
use crate::text::printable;

/// The plain renderer.
pub struct Plain {
    /// Only warnings and errors.
    pub quiet: bool,
}

impl Renderer for Plain {
    fn show(&mut self, event: &Event) {
        match event {
            Event::Warning(text) => eprintln!("warning: {}", printable(text)),
            Event::Failed { layer, message } => eprintln!("error: {layer}: {}", printable(message)),
            _ if self.quiet => {}
            Event::Begin { .. } | Event::Stop => {}
            Event::Started { layer, step, reason } if reason.is_empty() => eprintln!("{layer}: {step}"),
            Event::Started { layer, step, reason } => eprintln!("{layer}: {step} ({})", printable(reason)),
            Event::Waiting { layer } => eprintln!("{layer}: another stacker builds it, waiting"),
            Event::Output { layer, line } => eprintln!("{layer}| {}", printable(line)),
            Event::Finished { layer, status: LayerStatus::Built, seconds } => {
                eprintln!("{layer}: built in {}", duration(*seconds));
            }
            Event::Finished { .. } => {}
            Event::End(summary) => {
                eprintln!("{}", summary.line());
                for (name, hit) in &summary.layers {
                    match hit {
                        true => eprintln!("found cached layer {name}"),
                        false => eprintln!("filesystem {name} built successfully"),
                    }
                }
            }
        }
    }
}
