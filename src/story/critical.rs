//! The critical path: the steps that a build cannot be shorter than, however many jobs it has.

use super::Story;

/// Steps that wait for each other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Critical {
    /// Their places in [`Story::steps`], the first one first.
    pub steps: Vec<usize>,
    /// How long they take together.
    pub seconds: f64,
}

/// The longest chain of steps that need each other. A layer's steps follow each other, after those of the layers that
/// it needs; the compression of a layer follows its steps, and nothing waits for it.
pub fn critical(story: &Story) -> Critical {
    let mut of_layer: Vec<Vec<usize>> = vec![Vec::new(); story.layers.len()];
    for (number, step) in story.steps.iter().enumerate() {
        if let Some(layer) = step.layer {
            of_layer[layer].push(number);
        }
    }
    let mut before: Vec<Option<usize>> = vec![None; story.steps.len()];
    // For each layer, the last step of the longest chain to its end, and how long that is.
    let mut ends: Vec<(f64, Option<usize>)> = Vec::with_capacity(story.layers.len());
    let mut longest: (f64, Option<usize>) = (0.0, None);
    for (layer, steps) in story.layers.iter().zip(&of_layer) {
        let needed = layer.needs.iter().filter_map(|(place, _)| ends.get(*place).copied());
        let mut end = needed.fold((0.0, None), |most, other| if other.0 > most.0 { other } else { most });
        let (compressions, own): (Vec<usize>, Vec<usize>) =
            steps.iter().partition(|step| story.steps[**step].kind == "compress");
        for step in own {
            before[step] = end.1;
            end = (end.0 + story.steps[step].seconds.unwrap_or_default(), Some(step));
        }
        let mut last = end;
        for step in compressions {
            let done = end.0 + story.steps[step].seconds.unwrap_or_default();
            before[step] = end.1;
            if done > last.0 {
                last = (done, Some(step));
            }
        }
        if last.0 > longest.0 {
            longest = last;
        }
        ends.push(end);
    }
    let mut steps: Vec<usize> = std::iter::successors(longest.1, |step| before[*step]).collect();
    steps.reverse();
    Critical { steps, seconds: longest.0 }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::{Layer, Step};
    use super::*;
    use crate::export::metadata::Status;
    use crate::graph::Need;

    /// Layers by what they need, and steps: layer, kind, seconds.
    fn story(needs: &[&[usize]], steps: &[(usize, &str, f64)]) -> Story {
        let layer = |needs: &&[usize]| Layer {
            name: String::new(),
            scope: PathBuf::new(),
            needs: needs.iter().map(|place| (*place, Need::Base)).collect(),
            keys: Vec::new(),
            status: Status::Built,
            reason: None,
            why: Vec::new(),
            seconds: 0.0,
            bytes: None,
        };
        let step = |&(layer, kind, seconds): &(usize, &str, f64)| Step {
            layer: Some(layer),
            name: String::new(),
            kind: kind.to_owned(),
            key: None,
            reason: None,
            begun: 0.0,
            seconds: Some(seconds),
            slot: 0,
            outcome: None,
        };
        Story { layers: needs.iter().map(layer).collect(), steps: steps.iter().map(step).collect(), ..Story::default() }
    }

    #[test]
    fn it_is_the_longest_chain_of_what_waits() {
        let none: &[usize] = &[];
        for (needs, steps, path, seconds) in [
            (vec![], vec![], vec![], 0.0),
            // The longer of two ways to the same layer, then its own steps one after the other.
            (
                vec![none, none, &[0, 1][..]],
                vec![(0, "run", 1.0), (1, "run", 3.0), (2, "import", 1.0), (2, "run", 2.0)],
                vec![1, 2, 3],
                6.0,
            ),
            // Nothing waits for a compression, but the end of the build does.
            (vec![none, &[0][..]], vec![(0, "run", 1.0), (0, "compress", 9.0), (1, "run", 5.0)], vec![0, 1], 10.0),
            (vec![none, &[0][..]], vec![(0, "run", 1.0), (0, "compress", 3.0), (1, "run", 5.0)], vec![0, 2], 6.0),
            // Through a layer of which nothing ran.
            (vec![none, &[0][..], &[1][..]], vec![(0, "run", 1.0), (2, "run", 2.0)], vec![0, 1], 3.0),
        ] {
            assert_eq!(critical(&story(&needs, &steps)), Critical { steps: path, seconds });
        }
    }
}
