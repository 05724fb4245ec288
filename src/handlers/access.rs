//! Who may send a request: the rate limit, the users and the response headers of the web configuration file.
//!
//! The steps and their order are those of exporter-toolkit, and they apply to every path: health checks, redirects and unknown paths too.

mod rate_limit;

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::Error;
use super::metrics::{AccessRejection, count_access_rejection};
use crate::http::response::Response;
use crate::http::slots::network_of;
use crate::web_config::passwords::Passwords;
use crate::web_config::{Active, Current};
use rate_limit::TokenBucket;

/// Standard base64 with its padding. As in Go, the unused bits of the last character may have any value.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical)
        .with_decode_allow_trailing_bits(true),
);

/// What the web configuration file demands of requests. All cores share it.
pub(crate) struct Access {
    current: Current,
    passwords: Passwords,
    /// The one of the start: a limit that is added or changed later has no effect, as in the official program.
    rate_limit: Option<TokenBucket>,
}

impl Access {
    /// Access according to `current`, now and later.
    pub(crate) fn new(current: Current, passwords: Passwords) -> Self {
        let rate_limit = current.get().config.rate_limit.map(TokenBucket::new);
        Self { current, passwords, rate_limit }
    }

    /// Takes one token of the rate limit.
    ///
    /// # Errors
    /// There is none. The response must not have the configured headers then.
    pub(super) fn limit_rate(&self) -> Result<(), Error> {
        match &self.rate_limit {
            Some(bucket) if !bucket.take() => {
                count_access_rejection(AccessRejection::RateLimit);
                Err(Error::TooManyRequests)
            }
            _ => Ok(()),
        }
    }

    /// The settings that are in force now.
    pub(super) fn active(&self) -> Arc<Active> {
        self.current.get()
    }

    /// Checks name and password, if there are users.
    ///
    /// # Errors
    /// They are wrong or missing, or too many others wait to be checked.
    pub(super) async fn authenticate(
        &self,
        active: &Active,
        headers: &HeaderMap,
        peer: IpAddr,
    ) -> Result<(), Error> {
        let users = &active.config.users;
        if users.is_empty() {
            return Ok(());
        }
        let is_right = match credentials(headers) {
            Some((name, password)) => self.passwords.verify(users, &name, &password, network_of(peer)).await,
            None => Ok(false),
        };
        let (error, rejection) = match is_right {
            Ok(true) => return Ok(()),
            Ok(false) => (Error::Unauthorized, AccessRejection::Unauthorized),
            Err(busy) => (Error::TooManyPasswords(busy), AccessRejection::Busy),
        };
        count_access_rejection(rejection);
        Err(error)
    }
}

/// Adds the configured headers that the response does not have itself.
pub(super) fn add_headers(active: &Active, response: &mut Response) {
    for (name, value) in &active.config.headers {
        response.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
}

/// Name and password of the first `Authorization` header, as Go's `Request.BasicAuth` reads them. Neither needs to be UTF-8.
fn credentials(headers: &HeaderMap) -> Option<(Vec<u8>, Vec<u8>)> {
    const SCHEME: &[u8] = b"Basic ";
    let (scheme, encoded) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    let mut name = BASE64.decode(encoded).ok()?;
    let colon = memchr::memchr(b':', &name)?;
    let password = name.split_off(colon + 1);
    name.truncate(colon);
    Some((name, password))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn credentials_are_read_as_in_go() {
        let read = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).expect("a header value"));
            }
            credentials(&headers)
        };
        let some = |name: &[u8], password: &[u8]| Some((name.to_vec(), password.to_vec()));
        assert_eq!(read(&[b"Basic YTpi"]), some(b"a", b"b"));
        assert_eq!(read(&[b"bAsIc YTpi"]), some(b"a", b"b"));
        assert_eq!(read(&[b"Basic YTpiOmM="]), some(b"a", b"b:c"));
        assert_eq!(read(&[b"Basic OmI="]), some(b"", b"b"));
        assert_eq!(read(&[b"Basic Og=="]), some(b"", b""));
        assert_eq!(read(&[b"Basic /zoA"]), some(b"\xff", b"\0"));
        assert_eq!(read(&[b"Basic YTpiOmN="]), some(b"a", b"b:c"), "unused bits");
        assert_eq!(read(&[b"Basic YTpi", b"Basic OmI="]), some(b"a", b"b"), "the first one counts");
        for wrong in [
            &b"Basic YTpiOmM"[..],
            b"Basic  YTpi",
            b"Basic YWI=",
            b"Basic",
            b"Basic ",
            b"Bearer YTpi",
            b"YTpi",
            b"Basic\tYTpi",
            b"Basic YTpi ,",
            b"Basic Y-_i",
            b"Basic YTpi=",
        ] {
            assert_eq!(read(&[wrong]), None, "{}", wrong.escape_ascii());
        }
        assert_eq!(read(&[b"Bearer x", b"Basic YTpi"]), None, "the first one counts");
        assert_eq!(read(&[]), None);
    }
}
