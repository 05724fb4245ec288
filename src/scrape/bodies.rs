//! The bodies of recent scrapes. If nothing has changed since the last scrape of a form, its body is sent again, except for the
//! gateway's own metrics.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::chunks::ByFirst;
use crate::encoding::encode::Form;
use crate::encoding::gzip::Stitched;
use crate::exposition::model::MetricType;
use crate::shard::FamilySnapshot;
use crate::shard::segments::FamilyText;
use crate::telemetry::OwnFamily;

/// The bodies of so many forms are kept. The form that was used least recently is dropped first.
const FORMS_MAX: usize = 4;
/// How long a body is kept that no scrape uses: more than two intervals at Prometheus' default of a minute.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(150);

/// The bodies of recent scrapes. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Bodies {
    /// The most recent form is last.
    recent: Arc<Mutex<Vec<Recent>>>,
}

#[derive(Debug)]
struct Recent {
    form: Form,
    body: Arc<Body>,
    used: Instant,
}

/// A body without the gateway's own metrics.
#[derive(Debug)]
pub(super) struct Body {
    /// What it was made of; `None` if it cannot be used as a whole.
    pub input: Option<Input>,
    /// Its parts in order.
    pub parts: Vec<BodyPart>,
    /// Its chunks, from which another body can be made.
    pub chunks: ByFirst,
}

/// A part of a body.
#[derive(Debug)]
pub(super) enum BodyPart {
    /// So many of the gateway's own families.
    Own(usize),
    /// Part of a gzip member.
    Gzip(Stitched),
    /// zstd frames.
    Zstd(Vec<Bytes>),
}

/// What a body was made of.
#[derive(Debug)]
pub(super) struct Input {
    /// The families of all shards.
    families: Vec<InputFamily>,
    /// The names of the gateway's own families.
    own: Vec<&'static str>,
}

#[derive(Debug)]
struct InputFamily {
    /// As long as this reference exists, a change of the text moves it to another address.
    text: Weak<FamilyText>,
    kind: MetricType,
    help: Option<Arc<str>>,
}

impl Input {
    pub(super) fn new(shards: &[Vec<FamilySnapshot>], own: &[OwnFamily]) -> Self {
        let family = |family: &FamilySnapshot| InputFamily {
            text: Arc::downgrade(&family.text),
            kind: family.kind,
            help: family.shared.help(),
        };
        Self {
            families: shards.iter().flatten().map(family).collect(),
            own: own.iter().map(|family| family.name).collect(),
        }
    }

    /// Whether a body of these families would be the same, apart from the values of the gateway's own metrics.
    pub(super) fn is(&self, shards: &[Vec<FamilySnapshot>], own: &[OwnFamily]) -> bool {
        let is_same = |(known, family): (&InputFamily, &FamilySnapshot)| {
            std::ptr::eq(known.text.as_ptr(), Arc::as_ptr(&family.text))
                && known.kind == family.kind
                && known.help == family.shared.help()
        };
        shards.iter().map(Vec::len).sum::<usize>() == self.families.len()
            && self.families.iter().zip(shards.iter().flatten()).all(is_same)
            && own.iter().map(|family| family.name).eq(self.own.iter().copied())
    }
}

impl Bodies {
    /// The last body of a form.
    pub(super) fn get(&self, form: Form, now: Instant) -> Option<Arc<Body>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let at = recent.iter().position(|known| known.form == form)?;
        recent[at].used = now;
        recent[at..].rotate_left(1);
        recent.last().map(|known| known.body.clone())
    }

    /// Keeps the body of a scrape instead of the one before it.
    pub(super) fn put(&self, form: Form, body: Arc<Body>, now: Instant) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let same = recent.iter().position(|known| known.form == form);
        let replaced = match same {
            Some(at) => Some(recent.remove(at)),
            None if recent.len() == FORMS_MAX => Some(recent.remove(0)),
            None => None,
        };
        recent.push(Recent { form, body, used: now });
        // Other scrapes need not wait until the memory is freed.
        drop(recent);
        drop(replaced);
    }

    /// Drops the bodies that no scrape has used for a while.
    pub(super) fn drop_idle(&self, now: Instant) {
        let is_idle = |known: &mut Recent| now.saturating_duration_since(known.used) > IDLE_MAX;
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let idle: Vec<Recent> = recent.extract_if(.., is_idle).collect();
        drop(recent);
        drop(idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::encode::Coding;
    use crate::exposition::Format;
    use crate::exposition::escape::Escaping;

    const GZIP: Form = Form { format: Format::Text, escaping: Escaping::AllowUtf8, coding: Coding::Gzip };

    fn body() -> Arc<Body> {
        Arc::new(Body { input: None, parts: Vec::new(), chunks: ByFirst::default() })
    }

    #[test]
    fn a_form_is_dropped_after_scrapes_in_others() {
        let (bodies, now) = (Bodies::default(), Instant::now());
        let form = |escaping| Form { escaping, ..GZIP };
        let first = Form { coding: Coding::Zstd, ..GZIP };
        bodies.put(first, body(), now);
        for escaping in Escaping::ALL.into_iter().take(FORMS_MAX - 1) {
            bodies.put(form(escaping), body(), now);
        }
        assert!(bodies.get(first, now).is_some());
        bodies.put(Form { format: Format::Protobuf, ..GZIP }, body(), now);
        assert!(bodies.get(form(Escaping::ALL[0]), now).is_none());
        assert!(bodies.get(first, now).is_some());
        assert_eq!(bodies.recent.lock().expect("no panic").len(), FORMS_MAX);
    }

    #[test]
    fn a_form_is_dropped_if_no_scrape_uses_it() {
        let (bodies, now) = (Bodies::default(), Instant::now());
        let zstd = Form { coding: Coding::Zstd, ..GZIP };
        bodies.put(GZIP, body(), now);
        bodies.put(zstd, body(), now);
        let later = now + IDLE_MAX;
        assert!(bodies.get(GZIP, later).is_some());
        bodies.drop_idle(later + Duration::from_secs(1));
        assert!(bodies.get(GZIP, later).is_some());
        assert!(bodies.get(zstd, later).is_none());
    }
}
