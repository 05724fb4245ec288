//! Invariants of accepted bodies, in either format.

use sluicegate::exposition::model::Families;
use sluicegate::exposition::names::NameRules;
use sluicegate::exposition::render::{Rendered, render, write_header};
use sluicegate::exposition::text;

/// Limit on the rendered lines of one input: more than a short input needs, less than the memory of a small machine.
const LINES_BYTES_MAX: usize = 16 << 20;

/// Renders families for a group, as a push does, if they are consistent. The result must be an exposition that the strict
/// parser accepts, because otherwise an accepted push could break a scrape. Returns that exposition, and the exposition after
/// pushing it; pushing the second must not change it.
pub fn check_rendered(families: &Families<'_>) -> Option<(String, String)> {
    let grouping = [("job".to_owned(), "a\"b\\c\n".to_owned()), ("zone".to_owned(), String::new())];
    let shown = page(&render(families, &grouping, NameRules::Legacy, LINES_BYTES_MAX).ok()?);
    let push = |shown: &str| {
        let families = text::parse(shown.as_bytes(), NameRules::Legacy)
            .unwrap_or_else(|problem| panic!("a scrape has an invalid exposition: {problem}\n{shown}"));
        let rendered = render(&families, &grouping, NameRules::Legacy, LINES_BYTES_MAX)
            .unwrap_or_else(|problem| panic!("a scrape has an inconsistent exposition: {problem}\n{shown}"));
        page(&rendered)
    };
    let again = push(&shown);
    assert_eq!(again, push(&again), "pushing an exposition changes it");
    Some((shown, again))
}

/// The exposition of the families, without those that have no lines.
fn page(rendered: &Rendered) -> String {
    let mut page = Vec::new();
    for family in rendered.families().iter().filter(|family| !rendered.text(family).is_empty()) {
        write_header(&mut page, rendered.name(family), family.kind, rendered.help(family));
        page.extend_from_slice(rendered.text(family));
    }
    String::from_utf8(page).expect("an exposition is UTF-8")
}
