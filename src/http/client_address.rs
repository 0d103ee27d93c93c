//! [`ClientAddresses`]: whose request it is, where proxies stand in between.

use std::net::{IpAddr, SocketAddr};

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderMap, HeaderName};
use ipnet::IpNet;

use super::HttpSettings;
use crate::settings::ProxyHeader;

/// Finds the address of a client. Only what a trusted proxy says is believed:
/// anybody can send a header.
#[derive(Debug, Clone, Default)]
pub(super) struct ClientAddresses {
    trusted: Vec<IpNet>,
    told_by: ProxyHeader,
}

impl ClientAddresses {
    pub(super) fn new(settings: &HttpSettings) -> Self {
        Self {
            trusted: settings.trusted_proxies.clone(),
            told_by: settings.proxy_header,
        }
    }

    /// Returns the address of the client that sent `request`.
    pub(super) fn of(&self, request: &HttpRequest) -> Option<IpAddr> {
        let peer = request.peer_addr()?.ip().to_canonical();
        Some(self.behind(peer, request.headers()))
    }

    /// Whether connections of `peer` begin with a header of the PROXY protocol.
    pub(super) fn speaks_proxy_protocol(&self, peer: IpAddr) -> bool {
        self.told_by == ProxyHeader::ProxyProtocol && self.trusts(peer.to_canonical())
    }

    /// Follows the addresses that proxies have noted, newest first, for as long
    /// as it is a trusted proxy that noted them.
    pub(super) fn behind(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let noted = match self.told_by {
            _ if !self.trusts(peer) => return peer,
            ProxyHeader::ProxyProtocol => return peer,
            ProxyHeader::XForwardedFor => x_forwarded_for(headers),
            ProxyHeader::Forwarded => forwarded(headers),
        };
        let mut client = peer;
        for hop in noted.into_iter().rev() {
            // What is no address ends what is known.
            let Some(address) = hop else { break };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted
            .iter()
            .any(|network| network.contains(&address))
    }
}

/// The addresses of `X-Forwarded-For`, oldest first; `None` for what is none.
fn x_forwarded_for(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let name = HeaderName::from_static("x-forwarded-for");
    let values = headers.get_all(name);
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|hop| address(std::str::from_utf8(hop).ok()?))
        .collect()
}

/// The same of `Forwarded` (RFC 7239).
fn forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let values = headers.get_all(header::FORWARDED);
    let mut hops = Vec::new();
    for value in values {
        let text = value.to_str().unwrap_or_default();
        hops.extend(split_unquoted(text, ',').map(forwarded_for));
    }
    hops
}

/// Reads the `for` of one element: `for=192.0.2.1`, `for="[2001:db8::1]:443"`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    split_unquoted(element, ';').find_map(|pair| {
        let (name, node) = pair.split_once('=')?;
        let is_for = name.trim().eq_ignore_ascii_case("for");
        is_for.then(|| address(node.trim().trim_matches('"')))?
    })
}

/// Splits at `separator` outside of quotes.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |char| {
        is_quoted ^= char == '"';
        char == separator && !is_quoted
    })
}

/// Reads an address as proxies write it, with or without brackets and a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>();
    let with_port = || text.parse::<SocketAddr>().map(|address| address.ip());
    address
        .or_else(|_| with_port())
        .ok()
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn client(told_by: ProxyHeader, peer: &str, headers: &[(&str, &str)]) -> String {
        let trusted = ["10.0.0.0/8", "fd00::/8"];
        let addresses = ClientAddresses {
            trusted: trusted.map(|net| net.parse().expect("a network")).to_vec(),
            told_by,
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            map.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        let peer = peer.parse().expect("an address");
        addresses.behind(peer, &map).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        use ProxyHeader::{Forwarded, ProxyProtocol, XForwardedFor};
        let xff = "x-forwarded-for";
        for (told_by, peer, headers, expected) in [
            // A client that says what it likes.
            (
                XForwardedFor,
                "192.0.2.9",
                vec![(xff, "1.1.1.1")],
                "192.0.2.9",
            ),
            (
                XForwardedFor,
                "10.0.0.1",
                vec![(xff, "192.0.2.1")],
                "192.0.2.1",
            ),
            // What stands before the address the proxy saw is the client's word.
            (
                XForwardedFor,
                "10.0.0.1",
                vec![(xff, "1.1.1.1, 192.0.2.1")],
                "192.0.2.1",
            ),
            (
                XForwardedFor,
                "10.0.0.1",
                vec![(xff, "1.1.1.1, 192.0.2.1,10.0.0.2")],
                "192.0.2.1",
            ),
            (
                XForwardedFor,
                "10.0.0.1",
                vec![(xff, "192.0.2.1"), (xff, "10.0.0.2")],
                "192.0.2.1",
            ),
            (
                XForwardedFor,
                "10.0.0.1",
                vec![(xff, "1.1.1.1, rubbish")],
                "10.0.0.1",
            ),
            (XForwardedFor, "10.0.0.1", vec![], "10.0.0.1"),
            (
                XForwardedFor,
                "10.0.0.1",
                vec![(xff, "10.0.0.3, 10.0.0.2")],
                "10.0.0.3",
            ),
            (
                XForwardedFor,
                "fd00::1",
                vec![(xff, "[2001:db8::7]:443")],
                "2001:db8::7",
            ),
            (
                XForwardedFor,
                "10.0.0.1",
                vec![(xff, "::ffff:192.0.2.1")],
                "192.0.2.1",
            ),
            // The header that is not asked for is the client's own.
            (
                XForwardedFor,
                "10.0.0.1",
                vec![("forwarded", "for=1.1.1.1")],
                "10.0.0.1",
            ),
            (
                Forwarded,
                "10.0.0.1",
                vec![(
                    "forwarded",
                    "for=1.1.1.1, For=\"[2001:db8::7]:1\";proto=https",
                )],
                "2001:db8::7",
            ),
            (
                Forwarded,
                "10.0.0.1",
                vec![("forwarded", "for=192.0.2.1;by=\"a,b;for=9.9.9.9\"")],
                "192.0.2.1",
            ),
            (
                Forwarded,
                "10.0.0.1",
                vec![("forwarded", "for=unknown")],
                "10.0.0.1",
            ),
            (
                ProxyProtocol,
                "10.0.0.1",
                vec![(xff, "192.0.2.1")],
                "10.0.0.1",
            ),
        ] {
            assert_eq!(
                client(told_by, peer, &headers),
                expected,
                "{peer} {headers:?}"
            );
        }
    }
}
