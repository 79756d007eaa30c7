//! Which names of an upper directory are a change: the others were copied up and not altered.

use std::collections::HashMap;

use super::walk::{Node, inode, linked};
use crate::listing::{Kind, scratch_root};

/// For each node whether it is listed. Nothing at all is listed when nothing changed.
///
/// The names of one inode are listed or left out together, else one name would show the file of the layers beneath and
/// another its copy. A directory that leads to a change is listed though it is none itself.
pub(super) fn kept(nodes: &[Node]) -> Vec<bool> {
    let mut kept: Vec<bool> = nodes.iter().map(changed).collect();
    for group in groups(nodes).values() {
        let origin = |index: &usize| nodes[*index].lower.as_ref().map(|lower| (lower.layer, &lower.first));
        let one_origin = group.windows(2).all(|pair| origin(&pair[0]) == origin(&pair[1]));
        let keep = !one_origin || group.iter().any(|&index| kept[index]);
        group.iter().for_each(|&index| kept[index] = keep);
    }
    for index in (1..nodes.len()).rev() {
        if kept[index] {
            kept[nodes[index].parent] = true;
        }
    }
    kept
}

fn groups(nodes: &[Node]) -> HashMap<Option<(u64, u64)>, Vec<usize>> {
    let mut groups: HashMap<_, Vec<usize>> = HashMap::new();
    for (index, node) in nodes.iter().enumerate().filter(|(_, node)| linked(node)) {
        groups.entry(inode(node)).or_default().push(index);
    }
    groups
}

/// Whether a node differs from what the layers beneath show at its place. Times are compared as they are, before any
/// clamp: what was copied up unaltered has the very time of its original.
fn changed(node: &Node) -> bool {
    let lower = node.lower.as_ref().map(|lower| &lower.entry);
    match (&node.entry.kind, lower) {
        (Kind::Whiteout, lower) => lower.is_some(),
        (_, Some(lower)) => node.entry != *lower,
        // The root of an image that has no layers yet is no change either.
        (_, None) => !node.entry.path.is_empty() || node.entry != scratch_root(),
    }
}
