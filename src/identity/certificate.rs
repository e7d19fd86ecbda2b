//! The names in an X.509 certificate, and until when it is good: read from its DER form, which the TLS library has verified.
//!
//! Only what is needed is read. Whatever is malformed gives no names instead of wrong ones.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{MOST_LABELS, presentable};
use crate::time::Timestamp;

/// What a certificate says of its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `tls.cn`, `tls.o` and `tls.ou` of the subject; `tls.spiffe`, `tls.uri`, `tls.dns`, `tls.email` and `tls.ip` of the alternative
    /// names; `tls.issuer`, the issuer's common name. Of several names of one kind the second is `tls.dns.2`, and so on.
    pub labels: BTreeMap<String, String>,
    /// When it ends.
    pub expires: Option<Timestamp>,
}

/// A certificate that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate's names cannot be read")]
pub struct Unreadable;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const OCTETS: u8 = 0x04;
const BOOLEAN: u8 = 0x01;
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const IA5: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

/// `id-ce-subjectAltName`, 2.5.29.17.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

/// The last part of the object identifiers 2.5.4.x of a subject's attributes, and the labels that they become.
const ATTRIBUTES: [(u8, &str); 3] = [(3, "tls.cn"), (10, "tls.o"), (11, "tls.ou")];

/// Reads the names of a certificate.
///
/// # Errors
/// When it is no certificate of version 3 in DER form.
pub fn names(der: &[u8]) -> Result<Names, Unreadable> {
    let certificate = Reader(der).of(SEQUENCE)?;
    let mut fields = Reader(Reader(certificate).of(SEQUENCE)?);
    if fields.peek() == Some(VERSION) {
        fields.next()?;
    }
    let _serial = fields.next()?;
    let _algorithm = fields.of(SEQUENCE)?;
    let issuer = fields.of(SEQUENCE)?;
    let mut validity = Reader(fields.of(SEQUENCE)?);
    let _begins = validity.next()?;
    let expires = time(validity.next()?);
    let mut found = Found::default();
    subject(fields.of(SEQUENCE)?, |kind, value| {
        if let Some((_, label)) = ATTRIBUTES.iter().find(|(number, _)| *number == kind) {
            found.add(label, value);
        }
    })?;
    subject(issuer, |kind, value| {
        if kind == 3 {
            found.add("tls.issuer", value);
        }
    })?;
    let _key = fields.of(SEQUENCE)?;
    while let Some(tag) = fields.peek() {
        let content = fields.next()?.1;
        if tag == EXTENSIONS {
            extensions(content, &mut found)?;
        }
    }
    Ok(Names { labels: found.0, expires })
}

/// The labels so far.
#[derive(Default)]
struct Found(BTreeMap<String, String>);

impl Found {
    fn add(&mut self, label: &str, value: &str) {
        let Some(value) = presentable(value).filter(|_| self.0.len() < MOST_LABELS) else { return };
        let mut key = label.to_owned();
        for number in 2..=MOST_LABELS {
            match self.0.get(&key) {
                None => break,
                Some(same) if same == value => return,
                Some(_) => key = format!("{label}.{number}"),
            }
        }
        self.0.entry(key).or_insert_with(|| value.to_owned());
    }
}

/// The attributes of a distinguished name whose object identifier is 2.5.4.x, by x.
fn subject(name: &[u8], mut each: impl FnMut(u8, &str)) -> Result<(), Unreadable> {
    let mut parts = Reader(name);
    while !parts.0.is_empty() {
        let mut attributes = Reader(parts.of(SET)?);
        while !attributes.0.is_empty() {
            let mut pair = Reader(attributes.of(SEQUENCE)?);
            let kind = pair.of(OID)?;
            let (tag, value) = pair.next()?;
            let text = if [UTF8, PRINTABLE, IA5].contains(&tag) { std::str::from_utf8(value).ok() } else { None };
            if let (&[0x55, 0x04, kind], Some(text)) = (kind, text) {
                each(kind, text);
            }
        }
    }
    Ok(())
}

fn extensions(content: &[u8], found: &mut Found) -> Result<(), Unreadable> {
    let mut list = Reader(Reader(content).of(SEQUENCE)?);
    while !list.0.is_empty() {
        let mut extension = Reader(list.of(SEQUENCE)?);
        let kind = extension.of(OID)?;
        if extension.peek() == Some(BOOLEAN) {
            extension.next()?;
        }
        let value = extension.of(OCTETS)?;
        if kind == ALTERNATIVE_NAMES {
            let mut names = Reader(Reader(value).of(SEQUENCE)?);
            while !names.0.is_empty() {
                let (tag, name) = names.next()?;
                alternative(tag, name, found);
            }
        }
    }
    Ok(())
}

/// One alternative name; kinds that are not known are passed over.
fn alternative(tag: u8, name: &[u8], found: &mut Found) {
    let text = || std::str::from_utf8(name).unwrap_or_default();
    match tag {
        0x81 => found.add("tls.email", text()),
        0x82 => found.add("tls.dns", text()),
        0x86 if text().starts_with("spiffe://") => found.add("tls.spiffe", text()),
        0x86 => found.add("tls.uri", text()),
        0x87 => {
            if let Ok(bytes) = <[u8; 4]>::try_from(name) {
                found.add("tls.ip", &Ipv4Addr::from(bytes).to_string());
            } else if let Ok(bytes) = <[u8; 16]>::try_from(name) {
                found.add("tls.ip", &Ipv6Addr::from(bytes).to_string());
            }
        }
        _ => {}
    }
}

/// `YYMMDDHHMMSSZ`, in which years below 50 are of this century, or `YYYYMMDDHHMMSSZ` (RFC 5280, 4.1.2.5).
fn time((tag, text): (u8, &[u8])) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let whole = match tag {
        UTC_TIME if text.len() == 12 => {
            let century = if text.get(..2)?.parse::<u8>().ok()? < 50 { "20" } else { "19" };
            format!("{century}{text}")
        }
        GENERALIZED_TIME if text.len() == 14 => text.to_owned(),
        _ => return None,
    };
    let part = |range: std::ops::Range<usize>| whole.get(range).unwrap_or_default();
    let (date, clock) = (
        format!("{}-{}-{}", part(0..4), part(4..6), part(6..8)),
        format!("{}:{}:{}Z", part(8..10), part(10..12), part(12..14)),
    );
    format!("{date}T{clock}").parse().ok()
}

/// DER values, one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next value: its tag and its content.
    fn next(&mut self) -> Result<(u8, &'a [u8]), Unreadable> {
        let (&[tag, first], rest) = self.0.split_first_chunk().ok_or(Unreadable)?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f)).ok_or(Unreadable)?;
                (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
            }
            _ => return Err(Unreadable),
        };
        let (content, rest) = rest.split_at_checked(length).ok_or(Unreadable)?;
        self.0 = rest;
        Ok((tag, content))
    }

    /// The next value, which must have this tag.
    fn of(&mut self, tag: u8) -> Result<&'a [u8], Unreadable> {
        let (found, content) = self.next()?;
        if found == tag { Ok(content) } else { Err(Unreadable) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    fn certificate(name: &str) -> Vec<u8> {
        let path = format!("{}/tests/tls/{name}.pem", env!("CARGO_MANIFEST_DIR"));
        CertificateDer::from_pem_file(path).expect("a certificate").to_vec()
    }

    #[test]
    fn names_become_labels() {
        let names = names(&certificate("client")).expect("readable");
        let shown: Vec<String> = names.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            shown,
            [
                "tls.cn=gw-1",
                "tls.dns=gw-1.example.org",
                "tls.dns.2=gw-1",
                "tls.email=team@example.org",
                "tls.ip=192.0.2.7",
                "tls.issuer=gitamp test authority",
                "tls.o=shop",
                "tls.ou=edge",
                "tls.spiffe=spiffe://example.org/ns/shop/sa/gateway",
            ]
        );
        assert_eq!(names.expires.map(|at| at.to_string()).as_deref(), Some("2120-01-01T00:00:00Z"));
    }

    #[test]
    fn times_have_two_forms() {
        let show = |tag, text: &str| time((tag, text.as_bytes())).map(|at| at.to_string());
        for (tag, text, expected) in [
            (UTC_TIME, "261121130753Z", Some("2026-11-21T13:07:53Z")),
            (UTC_TIME, "990101000000Z", Some("1999-01-01T00:00:00Z")),
            (GENERALIZED_TIME, "21200101000000Z", Some("2120-01-01T00:00:00Z")),
            (GENERALIZED_TIME, "20261321130753Z", None),
            (UTC_TIME, "261121130753", None),
            (UTC_TIME, "26112113075\u{e9}Z", None),
            (0x02, "261121130753Z", None),
        ] {
            assert_eq!(show(tag, text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_certificate_that_is_cut_off_has_no_names() {
        let whole = certificate("client");
        for length in 0..whole.len() {
            assert_eq!(names(&whole[..length]), Err(Unreadable), "{length}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_without_a_panic(at in 0_usize..600, byte in any::<u8>(), noise in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut bent = certificate("client");
            let place = at % bent.len();
            bent[place] = byte;
            if let Ok(names) = names(&bent) {
                prop_assert!(names.labels.len() <= MOST_LABELS);
                prop_assert!(names.labels.values().all(|value| presentable(value).is_some()));
            }
            // What is cut or noise must not be read beyond its end.
            let _noise = names(&noise);
        }
    }
}
