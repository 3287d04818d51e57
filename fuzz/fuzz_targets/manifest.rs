#![no_main]

use fleet_fuzz::entries;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entries::manifest(bytes));
