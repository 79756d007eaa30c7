//! Scripts in real sandboxes: user namespaces, overlay mounts, busybox as the base. Needs root and busybox-static.
//!
//! Not libtest, which runs threads: a worker is single-threaded and forks. Each case starts this program again as a
//! worker, which enters a user namespace as the holder does and calls `sandbox::run`.

#[path = "sandbox/cases.rs"]
mod cases;
#[path = "sandbox/site.rs"]
mod site;
#[path = "sandbox/worker.rs"]
mod worker;

use std::panic::catch_unwind;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, job] = arguments.as_slice()
        && role == worker::ROLE
    {
        return worker::main(job);
    }
    if !nix::unistd::geteuid().is_root() {
        // Files are given to ids that only root can give away. The tests of whole builds run sandboxes as a user.
        eprintln!("SKIPPED: the sandbox's own tests need root");
        println!("0 passed, 0 failed");
        return ExitCode::SUCCESS;
    }
    let wanted = arguments.iter().find(|argument| !argument.starts_with('-'));
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in cases::ALL {
        if wanted.is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        std::panic::set_hook(Box::new(|_| {}));
        match catch_unwind(case) {
            Ok(()) => {
                passed += 1;
                println!("ok {name}");
            }
            Err(panic) => {
                failed += 1;
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panicked");
                println!("FAILED {name}: {text}");
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
