//! For a sandbox with one id: system calls that give a file, or the process, to somebody else do nothing and succeed.
//!
//! Package managers and the like insist on them. The kernel would refuse, since nobody else exists in the sandbox.
//! A process stays root then, and a file root's; who looks can see that.

use nix::libc::{self, sock_filter};

/// apt looks whether it has become somebody else, and gives up where it has not; this file tells it not to try.
pub const APT_CONFIGURATION: &[u8] = b"APT::Sandbox::User \"root\";\n";
/// Where that lies in `/stacker`.
pub const APT_FILE: &str = ".apt.conf";
/// Leads apt there; a value that the stackerfile sets stays.
pub const APT_VARIABLE: &str = "APT_CONFIG";

/// A way into the kernel: its mark in the filter's data, and the numbers that the calls have there.
struct Table {
    audit: u32,
    numbers: &'static [u32],
}

// The order of names in all of them: chown, fchown, lchown, fchownat; setuid, setgid, setreuid, setregid, setgroups,
// setresuid, setresgid, setfsuid, setfsgid. (linux/audit.h, and the kernel's tables of system calls.)
#[cfg(target_arch = "x86_64")]
const TABLES: &[Table] = &[
    Table { audit: 0xc000_003e, numbers: &[92, 93, 94, 260, 105, 106, 113, 114, 116, 117, 119, 122, 123] },
    // i386: first the calls with ids of 16 bits, then those of 32.
    Table {
        audit: 0x4000_0003,
        numbers: &[
            182, 95, 16, 298, 23, 46, 70, 71, 81, 164, 170, 138, 139, 212, 207, 198, 213, 214, 203, 204, 206, 208, 210,
            215, 216,
        ],
    },
];
#[cfg(target_arch = "aarch64")]
const TABLES: &[Table] = &[
    // There is no chown and lchown.
    Table { audit: 0xc000_00b7, numbers: &[55, 54, 146, 144, 145, 143, 159, 147, 149, 151, 152] },
    // 32-bit Arm.
    Table {
        audit: 0x4000_0028,
        numbers: &[
            182, 95, 16, 325, 23, 46, 70, 71, 81, 164, 170, 138, 139, 212, 207, 198, 213, 214, 203, 204, 206, 208, 210,
            215, 216,
        ],
    },
];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const TABLES: &[Table] = &[];

/// The bit by which x32 calls differ from those of x86-64; these have the same numbers in both.
const X32: u32 = 0x4000_0000;

/// The filter. All calls but these go through untouched.
pub fn filter() -> Vec<sock_filter> {
    let load = |offset| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0);
    let equal = |value, yes, no| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, yes, no);
    let answer = |value| instruction(libc::BPF_RET | libc::BPF_K, value, 0, 0);
    // struct seccomp_data: the number, then the architecture.
    let mut program = Vec::new();
    for Table { audit, numbers } in TABLES {
        program.push(load(4));
        // Load, mask, one comparison each, two answers.
        let length = numbers.len() as u8 + 4;
        program.push(equal(*audit, 0, length));
        program.push(load(0));
        program.push(instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, !X32, 0, 0));
        for (index, number) in numbers.iter().enumerate() {
            program.push(equal(*number, (numbers.len() - index) as u8, 0));
        }
        program.push(answer(libc::SECCOMP_RET_ALLOW));
        program.push(answer(libc::SECCOMP_RET_ERRNO));
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}
