#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stacker_fuzz::dockerfile(bytes));
