//! `/`: the web page, a plain list of groups. Every pushed value is escaped.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};

use crate::config::Config;
use crate::exposition::labels::read_labels;
use crate::shard::{FamilyView, GroupView, LargeGroup};

use super::all_groups::{FamilyOrder, GroupReader, Pieces, Writer};
use super::time::rfc3339;
use super::{Error, Handlers, Request};
use crate::http::produced::Aborted;
use crate::http::response::Response;

const ROW_END: &str = "</pre></details></td></tr>\n";
const STYLE: &str = "body{font:16px/1.4 system-ui,sans-serif;margin:1rem;max-width:70rem;color-scheme:light dark}\
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.2rem .6rem .2rem 0;\
border-bottom:1px solid #8886}code{overflow-wrap:anywhere}pre{overflow-x:auto}.failed{color:#c33}";

/// The list of groups. The page is made while the client reads it, so it is never in memory as a whole.
pub(super) async fn status_page(handlers: &Handlers, request: Request<'_>) -> Result<Response, Error> {
    let config = &handlers.gateway.config;
    let (start, end) = (start(config), end(config));
    let mut response =
        handlers.group_list(&request, |reader, writer| write_page(reader, writer, start, end)).await?;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

pub(super) async fn write_page(
    mut reader: GroupReader,
    mut writer: Writer,
    start: Bytes,
    end: Bytes,
) -> Result<(), Aborted> {
    writer.write(&start).await;
    while let Some(slice) = reader.next().await? {
        for view in &slice.groups {
            writer.write(row(view).as_bytes()).await;
        }
        if let Some(large) = slice.large {
            write_large_row(&mut reader, &mut writer, &Arc::new(large)).await?;
        }
    }
    writer.write(&end).await;
    writer.flush().await;
    Ok(())
}

/// Writes the row that [`row`] makes, in parts.
async fn write_large_row(
    reader: &mut GroupReader,
    writer: &mut Writer,
    group: &Arc<LargeGroup>,
) -> Result<(), Aborted> {
    writer.write(row_start(&group.head, group.families).as_bytes()).await;
    let mut order = FamilyOrder::Number(0);
    loop {
        let names = reader.families(group, &mut order).await?;
        if names.is_empty() {
            break;
        }
        let mut names = &names[..];
        while !names.is_empty() {
            let views = reader.copy(group, names).await?;
            names = &names[views.len()..];
            for mut family in views.into_iter().flatten() {
                writer.write(family_header(&family.view).as_bytes()).await;
                // The page shows lines only.
                family.view.exact = None;
                for piece in Pieces::of(family) {
                    writer
                        .write(&reader.convert(piece, |piece| escape_lines(piece.bytes()).into()).await?)
                        .await;
                }
            }
        }
    }
    writer.write(ROW_END.as_bytes()).await;
    reader.end_large()
}

/// 404: the page loads no files.
pub(super) async fn no_such_file(_: &Handlers, _: Request<'_>) -> Result<Response, Error> {
    Err(Error::NotFound)
}

/// The page up to the first group.
fn start(config: &Config) -> Bytes {
    let mut html = String::new();
    let version = escape(config.build.version);
    let _ = write!(
        html,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>sluicegate</title><style>{STYLE}</style></head><body>\n<h1>sluicegate {version}</h1>\n\
         <p><a href=\"{prefix}{telemetry}\">Metrics</a></p>\n<h2>Groups</h2>\n\
         <table><tr><th>Group</th><th>Last push</th><th>Metrics</th></tr>\n",
        prefix = escape(&config.external_prefix),
        telemetry = escape(config.telemetry_path.strip_prefix(&*config.route_prefix).unwrap_or_default()),
    );
    html.into()
}

/// The row of a group.
pub(super) fn row(view: &GroupView) -> String {
    let mut html = row_start(view, view.families.len());
    for family in &view.families {
        html.push_str(&family_header(family));
        family.text.pieces().for_each(|piece| html.push_str(&escape_lines(piece)));
    }
    html.push_str(ROW_END);
    html
}

/// The row up to the first family.
fn row_start(view: &GroupView, families: usize) -> String {
    let mut html = String::with_capacity(512);
    html.push_str("<tr><td>");
    for (name, value) in read_labels(&view.key) {
        let _ = write!(html, "<code>{}=\"{}\"</code> ", escape(&name), escape(&value));
    }
    html.push_str("</td><td>");
    if view.push_seconds == 0.0 {
        html.push_str("never");
    } else {
        html.push_str(&rfc3339(view.push_seconds));
    }
    if view.failure_seconds > 0.0 {
        let _ = write!(html, "<br><span class=\"failed\">rejected {}</span>", rfc3339(view.failure_seconds));
    }
    let _ = write!(html, "</td><td><details><summary>{families} families</summary><pre>");
    html
}

/// The line before the lines of a family.
fn family_header(family: &FamilyView) -> String {
    format!("# TYPE {} {}\n", escape(&family.shared.name), family.kind.text_name())
}

fn escape_lines(lines: &[u8]) -> String {
    escape(&String::from_utf8_lossy(lines))
}

/// The page after the last group: the flags.
fn end(config: &Config) -> Bytes {
    let mut html = String::from("</table>\n<h2>Flags</h2>\n<table>\n");
    for (name, value) in &config.flags {
        let _ = writeln!(
            html,
            "<tr><td><code>{}</code></td><td><code>{}</code></td></tr>",
            escape(name),
            escape(value)
        );
    }
    html.push_str("</table>\n</body></html>\n");
    html.into()
}

/// Escapes text for an element or a quoted attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pushed_values_never_become_markup() {
        assert_eq!(escape("<script>\"'&"), "&lt;script&gt;&quot;&#39;&amp;");
        let view = GroupView {
            key: "job=\"<script>alert(1)\"".into(),
            push_seconds: 0.0,
            failure_seconds: 0.0,
            created_seconds: 0.0,
            families: Vec::new(),
        };
        assert!(!row(&view).contains("<script>"));
    }
}
