//! Where boxes and lines of a graph are drawn: in columns, what is needed to the left of who needs it.
//!
//! The usual steps of layered drawings (Sugiyama, Tagawa and Toda 1981): columns, an order within each that crosses few
//! lines, then heights. Lines to farther columns pass through cells of their own; those from one box share them, which
//! keeps a base that everybody uses from covering the drawing.

mod order;
mod place;

/// How the boxes are to be drawn. Lengths are in units of the drawing.
#[derive(Clone, Debug)]
pub(super) struct Boxes {
    /// The width of each.
    pub widths: Vec<f64>,
    /// The height of all.
    pub height: f64,
    /// (needed, needing): the first is drawn to the left, and has the smaller number.
    pub edges: Vec<(usize, usize)>,
}

/// Where everything is.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    /// Of the drawing.
    pub width: f64,
    /// Of the drawing.
    pub height: f64,
    /// The upper left corner of each box.
    pub boxes: Vec<(f64, f64)>,
    /// For each edge the points that it goes through, two for each column: where it enters and where it leaves.
    pub lines: Vec<Vec<(f64, f64)>>,
}

/// Between columns.
const COLUMN_GAP: f64 = 56.0;
/// Between boxes of a column.
const GAP: f64 = 12.0;
/// What a line that passes through takes of a column.
const LINE: f64 = 4.0;

/// A box in its column, or the place where lines of a box pass through one.
#[derive(Clone, Debug)]
struct Cell {
    column: usize,
    /// The box that it is, or whose lines pass.
    of: usize,
    passes: bool,
    /// Cells of the column before and of that behind that it has lines to.
    left: Vec<usize>,
    right: Vec<usize>,
}

struct Cells {
    /// The boxes first.
    cells: Vec<Cell>,
    /// For each edge the cells that it goes through.
    ways: Vec<Vec<usize>>,
    columns: usize,
}

/// Places boxes and lines.
pub(super) fn layout(boxes: &Boxes) -> Layout {
    if boxes.widths.is_empty() {
        return Layout::default();
    }
    let cells = cells(boxes);
    let order = order::order(&cells);
    let heights = place::heights(&cells, &order, boxes.height);
    let (lefts, widths) = place::columns(&cells, boxes);
    let top = heights.iter().zip(&cells.cells).map(|(y, cell)| y - height(cell, boxes.height) / 2.0);
    let top = top.fold(f64::INFINITY, f64::min);
    let bottom = heights.iter().zip(&cells.cells).map(|(y, cell)| y + height(cell, boxes.height) / 2.0);
    let bottom = bottom.fold(f64::NEG_INFINITY, f64::max);
    let corner = |number: usize| (lefts[cells.cells[number].column], heights[number] - boxes.height / 2.0 - top);
    let line = |way: &Vec<usize>| {
        let mut points = Vec::with_capacity(way.len() * 2);
        for (at, &cell) in way.iter().enumerate() {
            let (column, y) = (cells.cells[cell].column, heights[cell] - top);
            let width = if cells.cells[cell].passes { widths[column] } else { boxes.widths[cells.cells[cell].of] };
            if at > 0 {
                points.push((lefts[column], y));
            }
            if at + 1 < way.len() {
                points.push((lefts[column] + width, y));
            }
        }
        points
    };
    Layout {
        width: lefts.last().zip(widths.last()).map_or(0.0, |(left, width)| left + width),
        height: bottom - top,
        boxes: (0..boxes.widths.len()).map(corner).collect(),
        lines: cells.ways.iter().map(line).collect(),
    }
}

fn height(cell: &Cell, of_boxes: f64) -> f64 {
    if cell.passes { LINE } else { of_boxes }
}

/// The column of each box: behind all that it needs. Who needs little and is needed by many moves to these.
fn columns(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut needs = vec![Vec::new(); count];
    let mut needed = vec![Vec::new(); count];
    for &(from, to) in edges {
        needs[to].push(from);
        needed[from].push(to);
    }
    let mut columns = vec![0; count];
    for number in 0..count {
        columns[number] = needs[number].iter().map(|from| columns[*from] + 1).max().unwrap_or(0);
    }
    for number in (0..count).rev() {
        if needed[number].len() > needs[number].len() {
            let nearest = needed[number].iter().map(|to| columns[*to]).min().unwrap_or(1);
            columns[number] = columns[number].max(nearest - 1);
        }
    }
    columns
}

fn cells(boxes: &Boxes) -> Cells {
    let count = boxes.widths.len();
    let mut edges = boxes.edges.clone();
    edges.sort_unstable();
    let columns = columns(count, &edges);
    let cell = |of: usize, column, passes| Cell { column, of, passes, left: Vec::new(), right: Vec::new() };
    let mut cells: Vec<Cell> = (0..count).map(|number| cell(number, columns[number], false)).collect();
    // For each box the cells through which its lines pass so far, by column.
    let mut passed: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut way = |(from, to): (usize, usize)| {
        let mut way = vec![from];
        for column in columns[from] + 1..columns[to] {
            let at = column - columns[from] - 1;
            if passed[from].len() == at {
                passed[from].push(cells.len());
                cells.push(cell(from, column, true));
            }
            way.push(passed[from][at]);
        }
        way.push(to);
        for pair in way.windows(2) {
            if !cells[pair[0]].right.contains(&pair[1]) {
                cells[pair[0]].right.push(pair[1]);
                cells[pair[1]].left.push(pair[0]);
            }
        }
        way
    };
    let ways = boxes.edges.iter().map(|edge| way(*edge)).collect();
    Cells { columns: columns.iter().max().map_or(0, |most| most + 1), cells, ways }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(count: usize, edges: &[(usize, usize)]) -> Layout {
        layout(&Boxes { widths: vec![100.0; count], height: 20.0, edges: edges.to_vec() })
    }

    #[test]
    fn what_is_needed_is_to_the_left_and_boxes_do_not_touch() {
        // A tree, a diamond, lines over several columns, layers that nobody needs.
        let edges = [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 5), (4, 6), (0, 6), (5, 6), (0, 7)];
        let layout = drawn(9, &edges);
        for &(from, to) in &edges {
            assert!(layout.boxes[from].0 + 100.0 < layout.boxes[to].0, "{from} {to}: {layout:?}");
        }
        for (number, (x, y)) in layout.boxes.iter().enumerate() {
            assert!(*x >= 0.0 && x + 100.0 <= layout.width && *y >= 0.0 && y + 20.0 <= layout.height + 0.01);
            for (other_x, other_y) in &layout.boxes[..number] {
                assert!(x != other_x || (y - other_y).abs() >= 20.0 + GAP - 0.01, "{number}: {layout:?}");
            }
        }
        for (line, (from, to)) in layout.lines.iter().zip(edges) {
            let middle = |number: usize| layout.boxes[number].1 + 10.0;
            assert_eq!(line.first(), Some(&(layout.boxes[from].0 + 100.0, middle(from))));
            assert_eq!(line.last(), Some(&(layout.boxes[to].0, middle(to))));
            assert!(line.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{line:?}");
        }
    }

    #[test]
    fn lines_do_not_cross_where_they_need_not() {
        // Two columns that cross in the order in which they are named.
        let edges = [(0, 7), (1, 6), (2, 5), (3, 4)];
        let layout = drawn(8, &edges);
        let mut pairs: Vec<(f64, f64)> =
            edges.iter().map(|(from, to)| (layout.boxes[*from].1, layout.boxes[*to].1)).collect();
        pairs.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(pairs.windows(2).all(|pair| pair[0].1 < pair[1].1), "{pairs:?}");
        // Each is straight then.
        assert!(pairs.iter().all(|(from, to)| (from - to).abs() < 0.01), "{pairs:?}");
    }

    #[test]
    fn chains_and_crowds_end() {
        let chain: Vec<_> = (1..2000).map(|number| (number - 1, number)).collect();
        assert!(drawn(2000, &chain).height < 21.0);
        let crowd: Vec<_> = (1..2000).map(|number| (0, number)).collect();
        assert_eq!(drawn(2000, &crowd).width, 200.0 + COLUMN_GAP);
        assert_eq!(drawn(0, &[]).boxes, []);
    }
}
