#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mcp_drawbridge::auth::grant::callback::fuzz_callback(data));
