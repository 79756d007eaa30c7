//! The cases.

use crate::site::Site;

pub const ALL: &[(&str, fn())] = &[("exit_codes", exit_codes)];

fn exit_codes() {
    let mut site = Site::new();
    let ran = site.run("echo hello; id; exit 7");
    assert_eq!(ran.code(), 7, "{}", ran.log);
}
