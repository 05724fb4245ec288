//! Bodies in delimited protobuf, by both rules for names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate::exposition::names::NameRules;
use sluicegate::exposition::protobuf::parse;
use sluicegate_fuzz::check_rendered;

fuzz_target!(|body: &[u8]| {
    let legacy = parse(body, NameRules::Legacy);
    let utf8 = parse(body, NameRules::Utf8);
    assert!(utf8.is_ok() || legacy.is_err());
    if let Ok(families) = legacy {
        // An empty HELP and a bound that is no number are shown, but text that has them is read without them.
        let _ = check_rendered(&families);
    }
});
