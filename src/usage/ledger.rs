//! What would be free if some things went, worked out without removing any.

use super::meter::Group;

/// What things hold, of which some go one after the other.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    groups: Vec<Group>,
    /// For each group, how many of its owners are left.
    left: Vec<u32>,
    /// For each thing, its groups.
    of: Vec<Vec<u32>>,
    gone: Vec<bool>,
    /// Bytes of all groups that are left and that nothing outside holds.
    data: u64,
    /// Bytes of the file system's own for each of these.
    overhead: f64,
}

impl Ledger {
    /// Of `count` things, which are named by their numbers. `metadata`: what the file system has of its own for all.
    pub fn new(count: usize, groups: Vec<Group>, metadata: u64) -> Ledger {
        let mut of = vec![Vec::new(); count];
        for (number, group) in groups.iter().enumerate() {
            for owner in &group.owners {
                of[*owner as usize].push(number as u32);
            }
        }
        let left = groups.iter().map(|group| group.owners.len() as u32).collect();
        let data: u64 = groups.iter().filter(|group| !group.outside).map(|group| group.bytes).sum();
        let overhead = if data == 0 { 0.0 } else { metadata as f64 / data as f64 };
        Ledger { groups, left, of, gone: vec![false; count], data, overhead }
    }

    /// What would be free if all went.
    pub fn total(&self) -> u64 {
        self.with_overhead(self.data)
    }

    /// The part of it that is the file system's own.
    pub fn metadata(&self) -> u64 {
        self.total() - self.data
    }

    /// What would not be free, since something outside holds it too.
    pub fn outside(&self) -> u64 {
        self.groups.iter().filter(|group| group.outside).map(|group| group.bytes).sum()
    }

    /// What would be free if these went and nothing else.
    pub fn exclusive(&self, things: &[u32]) -> u64 {
        let freed =
            self.touched(things).filter(|(group, ours)| *ours == self.left[*group] && !self.groups[*group].outside);
        self.with_overhead(freed.map(|(group, _)| self.groups[group].bytes).sum())
    }

    /// All that these hold, whoever else does.
    pub fn held(&self, things: &[u32]) -> u64 {
        self.with_overhead(self.touched(things).map(|(group, _)| self.groups[group].bytes).sum())
    }

    /// What these would be asked to pay if all who hold a byte shared it.
    pub fn share(&self, things: &[u32]) -> u64 {
        let inside = self.touched(things).filter(|(group, _)| !self.groups[*group].outside);
        let share = |(group, ours): (usize, u32)| {
            self.groups[group].bytes as f64 * f64::from(ours) / f64::from(self.left[group])
        };
        self.with_overhead(inside.map(share).sum::<f64>() as u64)
    }

    /// These go; gives back what that frees. Who has gone goes no second time.
    pub fn remove(&mut self, things: &[u32]) -> u64 {
        let mut freed = 0;
        for thing in things {
            if std::mem::replace(&mut self.gone[*thing as usize], true) {
                continue;
            }
            for group in &self.of[*thing as usize] {
                let group = *group as usize;
                self.left[group] -= 1;
                if self.left[group] == 0 && !self.groups[group].outside {
                    freed += self.groups[group].bytes;
                }
            }
        }
        self.data -= freed;
        self.with_overhead(freed)
    }

    /// For each thing, the bytes that it holds as the first of those that are left.
    pub fn attributed(&self) -> Vec<u64> {
        self.attributed_data().into_iter().map(|bytes| self.with_overhead(bytes)).collect()
    }

    /// The same without the file system's own.
    pub fn attributed_data(&self) -> Vec<u64> {
        let mut bytes = vec![0; self.of.len()];
        for group in self.groups.iter().filter(|group| !group.outside) {
            if let Some(first) = group.owners.iter().find(|owner| !self.gone[**owner as usize]) {
                bytes[*first as usize] += group.bytes;
            }
        }
        bytes
    }

    /// Whether a thing has gone.
    pub fn has_gone(&self, thing: u32) -> bool {
        self.gone[thing as usize]
    }

    /// The groups that are left and that have one of these things, with how many of them.
    fn touched(&self, things: &[u32]) -> impl Iterator<Item = (usize, u32)> + '_ {
        let mut counts = std::collections::HashMap::new();
        for thing in things.iter().filter(|thing| !self.gone[**thing as usize]) {
            for group in &self.of[*thing as usize] {
                *counts.entry(*group as usize).or_insert(0) += 1;
            }
        }
        counts.into_iter()
    }

    fn with_overhead(&self, data: u64) -> u64 {
        data + (data as f64 * self.overhead) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(metadata: u64) -> Ledger {
        let group = |bytes, owners: &[u32], outside| Group { bytes, owners: owners.to_vec(), outside };
        Ledger::new(
            3,
            vec![group(100, &[0], false), group(40, &[0, 1], false), group(7, &[1], true), group(20, &[2], false)],
            metadata,
        )
    }

    #[test]
    fn what_two_hold_is_free_when_both_have_gone() {
        let mut ledger = ledger(0);
        assert_eq!((ledger.total(), ledger.exclusive(&[0]), ledger.exclusive(&[0, 1])), (160, 100, 140));
        assert_eq!((ledger.held(&[1]), ledger.share(&[1]), ledger.exclusive(&[1])), (47, 20, 0));
        assert_eq!((ledger.remove(&[1]), ledger.exclusive(&[0])), (0, 140));
        assert_eq!((ledger.remove(&[0, 1]), ledger.total()), (140, 20));
        assert_eq!((ledger.has_gone(1), ledger.has_gone(2), ledger.exclusive(&[1])), (true, false, 0));
    }

    #[test]
    fn metadata_goes_with_the_data() {
        let mut ledger = ledger(16);
        assert_eq!((ledger.total(), ledger.metadata(), ledger.exclusive(&[2])), (176, 16, 22));
        assert_eq!((ledger.remove(&[0, 1, 2]), ledger.total()), (176, 0));
    }
}
