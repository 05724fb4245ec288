//! The few fields of a certificate that rustls does not expose: public key, validity, names and usages (RFC 5280, section 4.1).

use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const SEQUENCE: u8 = 0x30;
const OBJECT_ID: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const EMAIL_NAME: u8 = 0x81;
const DNS_NAME: u8 = 0x82;
const URI_NAME: u8 = 0x86;
const IP_NAME: u8 = 0x87;

/// `id-ce-subjectAltName`
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// `id-ce-basicConstraints`
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
/// `id-ce-extKeyUsage`
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
/// `anyExtendedKeyUsage`
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];
/// `id-kp-clientAuth`
const CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// The elements of a structure in DER that are still unread.
#[derive(Clone, Copy)]
struct Elements<'a>(&'a [u8]);

/// One element.
#[derive(Clone, Copy)]
struct Element<'a> {
    tag: u8,
    contents: &'a [u8],
    /// With tag and length.
    encoded: &'a [u8],
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    /// `None` at the end, and if the rest is malformed.
    fn next(&mut self) -> Option<Element<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // The longest is 16 MiB. An element of indefinite length, 0x80, is no DER.
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(length)?;
        let encoded = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some(Element { tag, contents, encoded })
    }
}

impl<'a> Elements<'a> {
    /// The contents of the next element, if it has the tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|element| element.tag == tag).map(|element| element.contents)
    }

    fn expect_sequence(&mut self) -> Option<Elements<'a>> {
        self.expect(SEQUENCE).map(Elements)
    }
}

/// The fields of a certificate.
pub(super) struct Certificate<'a> {
    /// In seconds since 1970, both inclusive.
    not_before: i64,
    not_after: i64,
    /// The whole `SubjectPublicKeyInfo`.
    pub(super) public_key: &'a [u8],
    extensions: Elements<'a>,
}

impl<'a> Certificate<'a> {
    /// Reads a certificate. Returns `None` if it is malformed. The signature is not looked at.
    pub(super) fn parse(der: &'a [u8]) -> Option<Self> {
        let mut fields = Elements(der).expect_sequence()?.expect_sequence()?;
        if fields.0.first() == Some(&VERSION) {
            fields.next();
        }
        let [_serial, _algorithm, _issuer] = [fields.next()?, fields.next()?, fields.next()?];
        let mut validity = fields.expect_sequence()?;
        let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
        let _subject = fields.next()?;
        let public_key = fields.next().filter(|element| element.tag == SEQUENCE)?.encoded;
        let mut extensions = Elements(&[]);
        if let Some(found) = fields.find(|field| field.tag == EXTENSIONS) {
            extensions = Elements(found.contents).expect_sequence()?;
        }
        Some(Self { not_before, not_after, public_key, extensions })
    }

    /// Whether a time, in seconds since 1970, is within the certificate's validity.
    pub(super) fn is_valid_at(&self, seconds: i64) -> bool {
        (self.not_before..=self.not_after).contains(&seconds)
    }

    /// Whether it may authenticate a client. A certificate that names no usages may be used for all.
    pub(super) fn allows_client_auth(&self) -> bool {
        let Some(value) = self.extension(EXTENDED_KEY_USAGE) else { return true };
        let usages = Elements(value).expect_sequence();
        usages.is_some_and(|mut usages| {
            usages.any(|usage| usage.tag == OBJECT_ID && [ANY_USAGE, CLIENT_AUTH].contains(&usage.contents))
        })
    }

    /// Whether it may issue certificates: `CA:TRUE`.
    pub(super) fn is_authority(&self) -> bool {
        let constraints = self.extension(BASIC_CONSTRAINTS);
        let first = constraints.and_then(|value| Elements(value).expect_sequence()?.next());
        first.is_some_and(|first| first.tag == BOOLEAN && first.contents != [0])
    }

    /// The DNS names, e-mail addresses, IP addresses and URIs for which it is valid. Names that are not UTF-8 are left out.
    pub(super) fn names(&self) -> Vec<String> {
        let value = self.extension(SUBJECT_ALT_NAME);
        let names = value.and_then(|value| Elements(value).expect_sequence());
        names.into_iter().flatten().filter_map(|name| name_text(&name)).collect()
    }

    fn extension(&self, id: &[u8]) -> Option<&'a [u8]> {
        self.extensions.filter(|element| element.tag == SEQUENCE).find_map(|extension| {
            let mut fields = Elements(extension.contents);
            if fields.expect(OBJECT_ID)? != id {
                return None;
            }
            let field = fields.next().filter(|field| field.tag != BOOLEAN).or_else(|| fields.next())?;
            (field.tag == OCTET_STRING).then_some(field.contents)
        })
    }
}

/// The algorithm of a `SubjectPublicKeyInfo`, as an object identifier.
pub(super) fn key_algorithm(public_key: &[u8]) -> Option<&[u8]> {
    Elements(public_key).expect_sequence()?.expect_sequence()?.expect(OBJECT_ID)
}

/// The key in a `SubjectPublicKeyInfo`, without its algorithm: an encoder may state the parameters of an algorithm or leave them out.
pub(super) fn key_bits(public_key: &[u8]) -> Option<&[u8]> {
    Elements(public_key).expect_sequence()?.nth(1).map(|element| element.contents)
}

fn name_text(name: &Element<'_>) -> Option<String> {
    match name.tag {
        EMAIL_NAME | DNS_NAME | URI_NAME => std::str::from_utf8(name.contents).ok().map(str::to_owned),
        IP_NAME => {
            if let Ok(octets) = <[u8; 4]>::try_from(name.contents) {
                return Some(Ipv4Addr::from(octets).to_string());
            }
            let address = Ipv6Addr::from(<[u8; 16]>::try_from(name.contents).ok()?);
            // As Go prints it.
            Some(address.to_ipv4_mapped().map_or_else(|| address.to_string(), |mapped| mapped.to_string()))
        }
        _ => None,
    }
}

/// A time in UTC, in seconds since 1970 (RFC 5280, section 4.1.2.5).
fn time(element: Element<'_>) -> Option<i64> {
    let digits = std::str::from_utf8(element.contents).ok()?.strip_suffix('Z')?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (element.tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year: i16 = digits[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let part = |at: usize| rest[at..at + 2].parse::<i8>().ok();
    let time = DateTime::new(year, part(0)?, part(2)?, part(4)?, part(6)?, part(8)?, 0).ok()?;
    Some(TimeZone::UTC.to_timestamp(time).ok()?.as_second())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        change(&mut params);
        let key = KeyPair::generate().expect("a key can be generated");
        params.self_signed(&key).expect("the parameters are valid").der().to_vec()
    }

    #[test]
    fn reads_names_as_go_prints_them() {
        let der = certificate(|params| {
            params.subject_alt_names = vec![
                SanType::DnsName("Test3".try_into().expect("ASCII")),
                SanType::Rfc822Name("a@b.c".try_into().expect("ASCII")),
                SanType::URI("spiffe://a/b".try_into().expect("ASCII")),
                SanType::IpAddress("10.0.0.1".parse().expect("an address")),
                SanType::IpAddress("2001:db8:0:0::1".parse().expect("an address")),
                SanType::IpAddress("::ffff:10.0.0.2".parse().expect("an address")),
            ];
        });
        let certificate = Certificate::parse(&der).expect("the certificate is valid");
        let names = ["Test3", "a@b.c", "spiffe://a/b", "10.0.0.1", "2001:db8::1", "10.0.0.2"];
        assert_eq!(certificate.names(), names);
        assert!(Certificate::parse(&self::certificate(|_| {})).expect("valid").names().is_empty());
    }

    #[test]
    fn reads_usages() {
        let allows = |usages: &[ExtendedKeyUsagePurpose]| {
            let der = certificate(|params| params.extended_key_usages = usages.to_vec());
            Certificate::parse(&der).expect("the certificate is valid").allows_client_auth()
        };
        assert!(allows(&[]));
        assert!(allows(&[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]));
        assert!(allows(&[ExtendedKeyUsagePurpose::Any]));
        assert!(!allows(&[ExtendedKeyUsagePurpose::ServerAuth]));
    }

    #[test]
    fn reads_the_validity() {
        let der = certificate(|params| {
            params.not_before = rcgen::date_time_ymd(1999, 12, 31);
            params.not_after = rcgen::date_time_ymd(2060, 1, 1);
        });
        let certificate = Certificate::parse(&der).expect("the certificate is valid");
        assert_eq!((certificate.not_before, certificate.not_after), (946_598_400, 2_840_140_800));
        assert!(certificate.is_valid_at(946_598_400) && !certificate.is_valid_at(946_598_399));
        assert!(certificate.is_valid_at(2_840_140_800) && !certificate.is_valid_at(2_840_140_801));
    }

    #[test]
    fn a_damaged_certificate_is_no_panic() {
        let der = certificate(|params| {
            params.subject_alt_names = vec![SanType::DnsName("a".try_into().expect("ASCII"))];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        });
        for length in 0..der.len() {
            let _ = Certificate::parse(&der[..length]).map(|damaged| damaged.names());
        }
        for at in 0..der.len() {
            for value in [0x00, 0x7f, 0x80, 0x82, 0x84, 0xff] {
                let mut damaged = der.clone();
                damaged[at] = value;
                if let Some(parsed) = Certificate::parse(&damaged) {
                    let _ = (parsed.names(), parsed.allows_client_auth(), key_algorithm(parsed.public_key));
                }
            }
        }
    }
}
