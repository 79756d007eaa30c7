//! A key has one builder at a time, and whoever waits goes on when the builder is done, or dead.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use stacker::claim::{Attempt, Claim, Claims, Waiter};
use stacker::digest::Key;
use stacker::place::StackerDir;

const HOLD: &str = "STACKER_TEST_HOLD_A_CLAIM_IN";

/// Far more than anything here takes; who waits this long waits for ever.
const LONG: Duration = Duration::from_secs(60);

/// Enough for a thread that does not wait to be done.
const MOMENT: Duration = Duration::from_millis(50);

fn directory() -> (tempfile::TempDir, StackerDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let dir = StackerDir(directory.path().to_path_buf());
    std::fs::create_dir(dir.0.join("claims")).expect("a directory");
    (directory, dir)
}

fn got(attempt: Attempt) -> Claim {
    match attempt {
        Attempt::Got(claim) => claim,
        Attempt::Busy(waiter) => panic!("the claim should be free: {waiter:?}"),
    }
}

fn busy(attempt: Attempt) -> Waiter {
    match attempt {
        Attempt::Busy(waiter) => waiter,
        Attempt::Got(claim) => panic!("the claim should be taken: {claim:?}"),
    }
}

fn attempt(dir: &StackerDir, key: Key) -> Attempt {
    Claims::new(dir).try_claim(&key).expect("an attempt")
}

/// Waits in a thread of its own; the receiver hears when the claim is held.
fn wait(waiter: Waiter) -> mpsc::Receiver<Claim> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(waiter.wait().expect("the claim")));
    receiver
}

/// The child's part: it holds a claim until it is killed. Without the variable there is nothing to do.
#[test]
fn held_by_a_child() {
    let Some(dir) = std::env::var_os(HOLD) else { return };
    let _claim = got(attempt(&StackerDir(dir.into()), Key([1; 32])));
    println!("\nheld");
    std::thread::sleep(LONG);
}

fn child(dir: &StackerDir) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "held_by_a_child", "--nocapture"]).env(HOLD, &dir.0).stdout(Stdio::piped());
    let mut child = command.spawn().expect("a child");
    let output = BufReader::new(child.stdout.take().expect("its output"));
    assert!(output.lines().map_while(Result::ok).any(|line| line == "held"), "the child holds the claim");
    child
}

#[test]
fn a_claim_is_exclusive_and_for_one_key() {
    let (_directory, dir) = directory();
    let claim = got(attempt(&dir, Key([1; 32])));
    busy(attempt(&dir, Key([1; 32])));
    got(attempt(&dir, Key([2; 32])));
    drop(claim);
    assert!(!dir.claim(&Key([1; 32])).exists(), "nothing is left behind");
    got(attempt(&dir, Key([1; 32])));
}

#[test]
fn who_waits_goes_on_when_the_owner_is_done() {
    let (_directory, dir) = directory();
    let claim = got(attempt(&dir, Key([1; 32])));
    let waiting = wait(busy(attempt(&dir, Key([1; 32]))));
    assert!(waiting.recv_timeout(MOMENT).is_err(), "the owner is not done yet");
    drop(claim);
    let claim = waiting.recv_timeout(LONG).expect("the waiter holds the claim");
    // Its file was unlinked by the first owner; the waiter's claim must count for others all the same.
    busy(attempt(&dir, Key([1; 32])));
    drop(claim);
    got(attempt(&dir, Key([1; 32])));
}

#[test]
fn who_waits_goes_on_when_the_owner_dies() {
    let (_directory, dir) = directory();
    let mut child = child(&dir);
    let waiting = wait(busy(attempt(&dir, Key([1; 32]))));
    assert!(waiting.recv_timeout(MOMENT).is_err(), "the owner lives");
    child.kill().expect("the child is killed");
    child.wait().expect("the child is gone");
    let _claim = waiting.recv_timeout(LONG).expect("the waiter holds the claim");
    busy(attempt(&dir, Key([1; 32])));
}

#[test]
fn the_file_of_a_dead_owner_is_in_nobodys_way() {
    let (_directory, dir) = directory();
    let mut child = child(&dir);
    child.kill().expect("the child is killed");
    child.wait().expect("the child is gone");
    assert!(dir.claim(&Key([1; 32])).exists());
    drop(got(attempt(&dir, Key([1; 32]))));
    assert!(!dir.claim(&Key([1; 32])).exists());
}

#[test]
fn of_many_at_the_same_time_one_holds_the_claim() {
    let (_directory, dir) = directory();
    let (inside, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let _claim = match attempt(&dir, Key([1; 32])) {
                        Attempt::Got(claim) => claim,
                        Attempt::Busy(waiter) => waiter.wait().expect("the claim"),
                    };
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "somebody else is inside");
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(done.into_inner(), 400);
}
