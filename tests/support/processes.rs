//! The processes of a running program.

use std::collections::HashMap;
use std::process::Command;

/// The processes beneath one, with what `ps` calls them.
pub fn beneath(pid: u32) -> Vec<(i32, String)> {
    let output = Command::new("ps").args(["-eo", "pid=,ppid=,comm="]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut children: HashMap<u32, Vec<(u32, String)>> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(pid), Some(parent)) = (words.next(), words.next()) else { continue };
        let name = words.collect::<Vec<_>>().join(" ");
        children.entry(parent.parse().unwrap()).or_default().push((pid.parse().unwrap(), name));
    }
    let (mut found, mut open) = (Vec::new(), vec![pid]);
    while let Some(pid) = open.pop() {
        for (child, name) in children.get(&pid).into_iter().flatten() {
            open.push(*child);
            found.push((*child as i32, name.clone()));
        }
    }
    found
}
