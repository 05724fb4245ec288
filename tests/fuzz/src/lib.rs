//! What must hold of every body that is taken, whichever way it was written.

use sluicegate::exposition::model::Families;
use sluicegate::exposition::names::NameRules;
use sluicegate::exposition::render::{Rendered, render, write_header};
use sluicegate::exposition::text;

/// Room for the lines of one input: far above what a short one needs, far below the memory of a small machine.
const LINES_BYTES_MAX: usize = 16 << 20;

/// Renders families for a group as a push does, if they are consistent. What comes out must be an exposition that our own
/// strict parser reads, else a push that was taken could break a scrape. Gives back what a scrape shows, and what it would
/// show if just that were pushed: it must have come to rest there.
pub fn check_rendered(families: &Families<'_>) -> Option<(String, String)> {
    let grouping = [("job".to_owned(), "a\"b\\c\n".to_owned()), ("zone".to_owned(), String::new())];
    let shown = page(&render(families, &grouping, NameRules::Legacy, LINES_BYTES_MAX).ok()?);
    let push = |shown: &str| {
        let families = text::parse(shown.as_bytes(), NameRules::Legacy)
            .unwrap_or_else(|problem| panic!("a scrape breaks: {problem}\n{shown}"));
        let rendered = render(&families, &grouping, NameRules::Legacy, LINES_BYTES_MAX)
            .unwrap_or_else(|problem| panic!("shown, but not consistent: {problem}\n{shown}"));
        page(&rendered)
    };
    let again = push(&shown);
    assert_eq!(again, push(&again), "what was read from lines gives these lines");
    Some((shown, again))
}

/// The families as a scrape shows them; those without lines are not shown.
fn page(rendered: &Rendered) -> String {
    let mut page = Vec::new();
    for family in rendered.families().iter().filter(|family| !rendered.text(family).is_empty()) {
        write_header(&mut page, rendered.name(family), family.kind, rendered.help(family));
        page.extend_from_slice(rendered.text(family));
    }
    String::from_utf8(page).expect("an exposition is UTF-8")
}
