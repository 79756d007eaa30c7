//! The order of cells within their columns: each near the middle of those that it has lines to, as long as that crosses
//! fewer lines.

use super::Cells;

/// How often all columns are gone through, to and fro.
const SWEEPS: usize = 12;

/// For each column its cells from top to bottom.
pub(super) fn order(cells: &Cells) -> Vec<Vec<usize>> {
    let mut order = vec![Vec::new(); cells.columns];
    for (number, cell) in cells.cells.iter().enumerate() {
        order[cell.column].push(number);
    }
    let mut places = vec![0; cells.cells.len()];
    note(&order, &mut places);
    let mut best = (crossings(cells, &order, &places), order.clone());
    for sweep in 0..SWEEPS {
        if best.0 == 0 {
            break;
        }
        let forth = sweep % 2 == 0;
        for step in 1..cells.columns {
            let column = if forth { step } else { cells.columns - 1 - step };
            sort(cells, &mut order[column], &places, forth);
            for (place, cell) in order[column].iter().enumerate() {
                places[*cell] = place;
            }
        }
        let found = crossings(cells, &order, &places);
        if found < best.0 {
            best = (found, order.clone());
        }
    }
    best.1
}

fn note(order: &[Vec<usize>], places: &mut [usize]) {
    for column in order {
        for (place, cell) in column.iter().enumerate() {
            places[*cell] = place;
        }
    }
}

/// By the mean place of the cells on one side; who has none there stays about where it is.
fn sort(cells: &Cells, column: &mut [usize], places: &[usize], by_left: bool) {
    let mean = |cell: &usize| {
        let near = if by_left { &cells.cells[*cell].left } else { &cells.cells[*cell].right };
        match near.is_empty() {
            true => places[*cell] as f64,
            false => near.iter().map(|other| places[*other] as f64).sum::<f64>() / near.len() as f64,
        }
    };
    // Stable: equals stay as they are, which is the order of the build.
    column.sort_by(|one, other| mean(one).total_cmp(&mean(other)));
}

/// How many pairs of lines cross: inversions, counted by a tree of partial sums (Fenwick 1994).
fn crossings(cells: &Cells, order: &[Vec<usize>], places: &[usize]) -> u64 {
    let mut crossings = 0;
    for (at, column) in order.iter().enumerate() {
        let behind = order.get(at + 1).map_or(0, Vec::len);
        let mut sums = vec![0_u64; behind + 1];
        let mut seen = 0;
        for cell in column {
            let mut ends: Vec<usize> = cells.cells[*cell].right.iter().map(|other| places[*other]).collect();
            ends.sort_unstable();
            for end in &ends {
                crossings += seen - up_to(&sums, end + 1);
            }
            for end in &ends {
                add(&mut sums, end + 1);
            }
            seen += ends.len() as u64;
        }
    }
    crossings
}

fn up_to(sums: &[u64], mut at: usize) -> u64 {
    let mut sum = 0;
    while at > 0 {
        sum += sums[at];
        at -= at & at.wrapping_neg();
    }
    sum
}

fn add(sums: &mut [u64], mut at: usize) {
    while at < sums.len() {
        sums[at] += 1;
        at += at & at.wrapping_neg();
    }
}
