//! How long steps take together: as many at a time as there are jobs, in the order of a serial build, as builds do it.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// One step.
#[derive(Clone, Debug)]
pub struct Task {
    /// How long it takes.
    pub seconds: f64,
    /// The steps before it that must be done, by their places in the list.
    pub needs: BTreeSet<usize>,
}

/// Seconds until all are done with so many jobs. Tasks come after those that they need.
pub fn elapsed(tasks: &[Task], jobs: usize) -> f64 {
    let mut open: Vec<usize> = tasks.iter().map(|task| task.needs.len()).collect();
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); tasks.len()];
    for (at, task) in tasks.iter().enumerate() {
        task.needs.iter().for_each(|needed| dependents[*needed].push(at));
    }
    let mut ready: BTreeSet<usize> = (0..tasks.len()).filter(|at| open[*at] == 0).collect();
    // When each ends that runs, the next one first.
    let mut running: BinaryHeap<Reverse<(Seconds, usize)>> = BinaryHeap::new();
    let mut now = 0.0;
    loop {
        while running.len() < jobs.max(1)
            && let Some(next) = ready.pop_first()
        {
            running.push(Reverse((Seconds(now + tasks[next].seconds), next)));
        }
        let Some(Reverse((Seconds(end), done))) = running.pop() else { return now };
        now = end;
        for &dependent in &dependents[done] {
            open[dependent] -= 1;
            if open[dependent] == 0 {
                ready.insert(dependent);
            }
        }
    }
}

/// The longest chain of steps that need each other, and how long it takes.
pub fn critical(tasks: &[Task]) -> (Vec<usize>, f64) {
    let mut ends: Vec<(f64, Option<usize>)> = Vec::with_capacity(tasks.len());
    let later = |a: &usize, b: &usize, ends: &[(f64, Option<usize>)]| ends[*a].0.total_cmp(&ends[*b].0);
    for task in tasks {
        let last = task.needs.iter().copied().max_by(|a, b| later(a, b, &ends));
        ends.push((last.map_or(0.0, |last| ends[last].0) + task.seconds, last));
    }
    let mut at = (0..tasks.len()).max_by(|a, b| later(a, b, &ends).then(b.cmp(a)));
    let seconds = at.map_or(0.0, |at| ends[at].0);
    let mut path = Vec::new();
    while let Some(step) = at {
        path.push(step);
        at = ends[step].1;
    }
    path.reverse();
    (path, seconds)
}

/// Finite seconds, in their order.
#[derive(PartialEq)]
struct Seconds(f64);

impl Eq for Seconds {}

impl PartialOrd for Seconds {
    fn partial_cmp(&self, other: &Seconds) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Seconds {
    fn cmp(&self, other: &Seconds) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tasks(of: &[(f64, &[usize])]) -> Vec<Task> {
        of.iter().map(|(seconds, needs)| Task { seconds: *seconds, needs: needs.iter().copied().collect() }).collect()
    }

    #[test]
    fn steps_wait_for_what_they_need_and_for_a_job() {
        let tasks = tasks(&[(4.0, &[]), (1.0, &[]), (2.0, &[1]), (1.0, &[0, 2]), (3.0, &[])]);
        assert_eq!(elapsed(&tasks, 1), 11.0);
        // 0 and 1; then 2, at 3 the last one, at 4 the one that needs two.
        assert_eq!(elapsed(&tasks, 2), 6.0);
        assert_eq!(elapsed(&tasks, 3), 5.0);
        assert_eq!(critical(&tasks), (vec![0, 3], 5.0));
        assert_eq!((elapsed(&[], 2), critical(&[])), (0.0, (vec![], 0.0)));
    }
}
