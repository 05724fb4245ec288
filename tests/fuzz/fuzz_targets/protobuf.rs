//! Bodies in delimited protobuf, with both sets of name rules.
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
        // The text parser drops an empty HELP and a bound that is NaN, so the two expositions may differ.
        let _ = check_rendered(&families);
    }
});
