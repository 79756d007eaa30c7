//! Where columns begin, and how high each cell lies.

use super::{Boxes, COLUMN_GAP, Cells, GAP, height};

/// How often heights are settled from left to right and back.
const ROUNDS: usize = 8;

/// The left side and the width of each column.
pub(super) fn columns(cells: &Cells, boxes: &Boxes) -> (Vec<f64>, Vec<f64>) {
    let mut widths = vec![0.0_f64; cells.columns];
    for cell in cells.cells.iter().filter(|cell| !cell.passes) {
        widths[cell.column] = widths[cell.column].max(boxes.widths[cell.of]);
    }
    let mut left = 0.0;
    let lefts = widths
        .iter()
        .map(|width| {
            let at = left;
            left += width + COLUMN_GAP;
            at
        })
        .collect();
    (lefts, widths)
}

/// The middle of each cell. Each is pulled to the mean of those that it has lines to, first on one side, then on the
/// other, at last on both.
pub(super) fn heights(cells: &Cells, order: &[Vec<usize>], of_boxes: f64) -> Vec<f64> {
    let mut ys = vec![0.0; cells.cells.len()];
    let offsets: Vec<Vec<f64>> = order.iter().map(|column| offsets(cells, column, of_boxes)).collect();
    for (column, offsets) in order.iter().zip(&offsets) {
        for (cell, offset) in column.iter().zip(offsets) {
            ys[*cell] = *offset;
        }
    }
    for round in 0..=ROUNDS {
        let (left, right) = (round % 2 == 0 || round == ROUNDS, round % 2 == 1 || round == ROUNDS);
        for step in 0..cells.columns {
            let at = if left { step } else { cells.columns - 1 - step };
            let wished: Vec<f64> = order[at].iter().map(|cell| wish(cells, *cell, &ys, left, right)).collect();
            for (cell, y) in order[at].iter().zip(settle(&wished, &offsets[at])) {
                ys[*cell] = y;
            }
        }
    }
    ys
}

/// How far beneath the first cell of a column each lies at least.
fn offsets(cells: &Cells, column: &[usize], of_boxes: f64) -> Vec<f64> {
    let mut offsets = Vec::with_capacity(column.len());
    let mut before: Option<(f64, f64)> = None;
    for cell in column {
        let high = height(&cells.cells[*cell], of_boxes);
        let offset = before.map_or(0.0, |(offset, above)| offset + (above + high) / 2.0 + GAP);
        offsets.push(offset);
        before = Some((offset, high));
    }
    offsets
}

fn wish(cells: &Cells, cell: usize, ys: &[f64], left: bool, right: bool) -> f64 {
    let sides = [(left, &cells.cells[cell].left), (right, &cells.cells[cell].right)];
    let near: Vec<f64> =
        sides.iter().filter(|(wanted, _)| *wanted).flat_map(|(_, near)| near.iter().map(|other| ys[*other])).collect();
    match near.is_empty() {
        true => ys[cell],
        false => near.iter().sum::<f64>() / near.len() as f64,
    }
}

/// The places nearest to those wished for (least squares) that are as far apart as `offsets` are: isotonic regression
/// by pooling adjacent violators.
fn settle(wished: &[f64], offsets: &[f64]) -> Vec<f64> {
    // Each pool: the sum of its wishes, and how many cells lie in it.
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (wish, offset) in wished.iter().zip(offsets) {
        let mut pool = (wish - offset, 1);
        while let Some(&(sum, count)) = pools.last() {
            if sum / count as f64 <= pool.0 / pool.1 as f64 {
                break;
            }
            pool = (pool.0 + sum, pool.1 + count);
            pools.pop();
        }
        pools.push(pool);
    }
    let settled = pools.iter().flat_map(|&(sum, count)| std::iter::repeat_n(sum / count as f64, count));
    settled.zip(offsets).map(|(at, offset)| at + offset).collect()
}
