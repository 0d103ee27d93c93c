//! What requests and proxies say, for the fuzzer (`crate::fuzzing`).

use std::net::{IpAddr, Ipv4Addr};

use actix_web::http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use futures_util::FutureExt as _;
use runcast_actors::broker::StreamStart;
use runcast_actors::protocol::LogLevel;

use super::HttpSettings;
use super::body_form::BodyForm;
use super::client_address::ClientAddresses;
use super::proxy_protocol::read_header;
use super::publish_body::{BodyLimits, read_events};
use super::query::Pairs;
use super::stream_query::StreamQuery;
use crate::settings::ProxyHeader;

/// The proxy that is believed.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// A header of the PROXY protocol and what follows: no byte past it is read.
pub(crate) fn proxy_header(input: &[u8]) {
    let mut rest = input;
    let outcome = read_header(&mut rest).now_or_never();
    if outcome.expect("memory is always ready").is_err() {
        return;
    }
    let header = &input[..input.len() - rest.len()];
    match header.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n") {
        Some(body) => {
            let length = usize::from(u16::from_be_bytes([body[2], body[3]]));
            assert_eq!(header.len(), 16 + length);
        }
        None => {
            let line = header.strip_suffix(b"\r\n").expect("a line");
            assert!(line.starts_with(b"PROXY ") && line.len() <= 105);
            // Behind UNKNOWN may stand anything.
            assert!(line.starts_with(b"PROXY UNKNOWN") || !line.contains(&b'\n'));
        }
    }
}

/// Header values, parted by line feeds: nobody is believed but through trusted
/// proxies, and the address is one that stands there.
pub(crate) fn forwarded(input: &[u8]) {
    let xff = HeaderName::from_static("x-forwarded-for");
    for (told_by, name) in [
        (ProxyHeader::XForwardedFor, xff),
        (ProxyHeader::Forwarded, FORWARDED),
    ] {
        let mut headers = HeaderMap::new();
        for line in input.split(|byte| *byte == b'\n') {
            if let Ok(value) = HeaderValue::from_bytes(line) {
                headers.append(name.clone(), value);
            }
        }
        let trusting = |networks: &[&str]| {
            ClientAddresses::new(&HttpSettings {
                trusted_proxies: networks
                    .iter()
                    .map(|text| text.parse().expect("a network"))
                    .collect(),
                proxy_header: told_by,
                ..HttpSettings::default()
            })
        };
        assert_eq!(trusting(&[]).behind(PROXY, &headers), PROXY);
        assert_eq!(trusting(&["192.0.2.0/24"]).behind(PROXY, &headers), PROXY);
        let client = trusting(&["10.0.0.1/32"]).behind(PROXY, &headers);
        let last = trusting(&["10.0.0.0/8"]).behind(PROXY, &headers);
        // One who is not trusted ends it: who trusts more goes at least as far.
        if client != PROXY && !is_of_ten(client) {
            assert_eq!(client, last);
        }
    }
}

fn is_of_ten(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[0] == 10)
}

/// A query and a `Last-Event-ID`, parted by a line feed: a bad cursor is an error
/// in `from` only, and bounds hold.
pub(crate) fn stream_query(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == b'\n');
    let query = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let header = parts.next();
    let pairs = Pairs::parse(&query);
    let _ = pairs.switch("strict");
    if let Ok(size) = pairs.page_size("limit") {
        assert!((1..=1000).contains(&size));
    }
    let parsed = StreamQuery::parse(&query, header, LogLevel::Info);
    let without = StreamQuery::parse(&query, None, LogLevel::Info);
    assert_eq!(parsed.is_ok(), without.is_ok(), "a header is no error");
    let Ok(parsed) = parsed else { return };
    assert!(parsed.filter.sources.len() <= 256 && parsed.filter.kinds.len() <= 3);
    let header = header.filter(|value| !value.is_empty());
    if let (Some(header), StreamStart::After(cursor)) = (header, &parsed.start) {
        assert_eq!(cursor.to_string().as_bytes(), header);
    }
}

/// The body of a post, in each form: within the bounds, or refused.
pub(crate) fn publish_body(input: &[u8]) {
    let limits = BodyLimits {
        events: 8,
        source_bytes: 64,
    };
    let pairs = Pairs::parse("kind=log&source=a");
    for form in [BodyForm::Json, BodyForm::JsonLines, BodyForm::Text] {
        let Ok(events) = read_events(form, input, &pairs, limits) else {
            continue;
        };
        assert!((1..=limits.events).contains(&events.len()));
        for event in events {
            assert!(event.source.len() <= limits.source_bytes);
            assert!(event.payload.len() <= 6 * input.len() + 2);
        }
    }
}
