//! Bodies in the text format, with both sets of name rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sluicegate::exposition::names::NameRules;
use sluicegate::exposition::text::parse;
use sluicegate_fuzz::check_rendered;

fuzz_target!(|body: &[u8]| {
    let legacy = parse(body, NameRules::Legacy);
    let utf8 = parse(body, NameRules::Utf8);
    // The UTF-8 rules accept everything that the legacy rules accept.
    assert!(utf8.is_ok() || legacy.is_err());
    if let Ok(families) = legacy
        && let Some((shown, again)) = check_rendered(&families)
    {
        assert_eq!(shown, again);
    }
});
