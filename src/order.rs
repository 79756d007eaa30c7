//! What is needed comes first: the order of a serial build, for files and for layers, and the cycles that forbid one.

/// An order of the numbers below `count`, and the cycles among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Every number once, each after all that it needs (cycles aside), else as early as its turn comes.
    pub sorted: Vec<usize>,
    /// Each starts with its smallest member, which needs the second, and so on; the last needs the first.
    pub cycles: Vec<Vec<usize>>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Unseen,
    /// On the way from a start to where we are.
    Open,
    Done,
}

/// Takes the numbers in turn, each with what it needs before it. `needs` lists them in the order wanted.
///
/// A walk with its own stack: a chain of layers may be longer than a thread's stack is deep.
pub fn order(count: usize, needs: impl Fn(usize) -> Vec<usize>) -> Order {
    let mut order = Order::default();
    let mut states = vec![State::Unseen; count];
    for start in 0..count {
        if states[start] != State::Unseen {
            continue;
        }
        states[start] = State::Open;
        let mut path = vec![(start, needs(start).into_iter())];
        while let Some((here, left)) = path.last_mut() {
            let Some(next) = left.next() else {
                states[*here] = State::Done;
                order.sorted.push(*here);
                path.pop();
                continue;
            };
            match states[next] {
                State::Done => {}
                State::Open => order.cycles.push(cycle(path.iter().map(|(number, _)| *number), next)),
                State::Unseen => {
                    states[next] = State::Open;
                    path.push((next, needs(next).into_iter()));
                }
            }
        }
    }
    order.cycles.sort();
    order.cycles.dedup();
    order
}

fn cycle(path: impl Iterator<Item = usize>, first: usize) -> Vec<usize> {
    let mut cycle: Vec<usize> = path.skip_while(|number| *number != first).collect();
    if let Some(smallest) = cycle.iter().enumerate().min_by_key(|(_, number)| **number).map(|(at, _)| at) {
        cycle.rotate_left(smallest);
    }
    cycle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first() {
        let table: [(&[&[usize]], &[usize]); 4] = [
            (&[], &[]),
            (&[&[], &[], &[]], &[0, 1, 2]),
            (&[&[2, 1], &[], &[]], &[2, 1, 0]),
            (&[&[1], &[2, 3], &[3], &[]], &[3, 2, 1, 0]),
        ];
        for (needs, expected) in table {
            let order = order(needs.len(), |number| needs[number].to_vec());
            assert_eq!(order, Order { sorted: expected.to_vec(), cycles: vec![] });
        }
    }

    #[test]
    fn cycles_are_found_once_each() {
        let needs: [&[usize]; 6] = [&[1], &[2, 2], &[0], &[3], &[5], &[4]];
        let order = order(needs.len(), |number| needs[number].to_vec());
        assert_eq!(order.cycles, [vec![0, 1, 2], vec![3], vec![4, 5]]);
        assert_eq!(order.sorted.len(), 6);
    }

    #[test]
    fn long_chains_are_no_matter() {
        let order = order(200_000, |number| if number == 0 { vec![] } else { vec![number - 1] });
        assert_eq!(order.sorted.len(), 200_000);
    }
}
