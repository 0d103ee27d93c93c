//! [`HostCheck`]: the names that a broker may be asked by.
//!
//! A page may let its own name point to a loopback address once it is loaded
//! (DNS rebinding); then it is of our origin, and a browser lets it read all
//! that is served there. What gives it away is `Host`, which holds that name.

use std::net::{IpAddr, Ipv6Addr};

use actix_web::HttpRequest;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::HOST;
use actix_web::http::uri::Authority;
use actix_web::middleware::Next;
use actix_web::{Error, ResponseError as _};
use prometheus::IntCounter;
use runcast_actors::protocol::Problem;

use super::problem::ApiError;

/// Which names are good, and who counts the others.
#[derive(Debug, Clone)]
pub(super) struct HostCheck {
    names: Names,
    refused: IntCounter,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Names {
    Any,
    /// Those of this machine, and these, in lower case.
    These(Vec<String>),
}

impl Names {
    /// Of `server.hosts`, or without those any, unless only this machine may
    /// ask.
    fn new(hosts: &[String], is_for_this_machine: bool) -> Self {
        let is_any = hosts.iter().any(|host| host == "*");
        match is_any || hosts.is_empty() && !is_for_this_machine {
            true => Self::Any,
            false => Self::These(hosts.iter().map(|host| host.to_ascii_lowercase()).collect()),
        }
    }

    /// Whether a request may come by this `Host`: an address is no name that
    /// somebody could let point elsewhere, `localhost` and what ends in it belong
    /// to nobody (RFC 6761, section 6.3), and a name without a dot is one of this
    /// machine or network.
    fn admit(&self, host: &[u8]) -> bool {
        let Self::These(names) = self else {
            return true;
        };
        let Some(name) = name_of(host) else {
            return false;
        };
        !name.contains(['.', '['])
            || name.ends_with(".localhost")
            || is_address(&name)
            || names.contains(&name)
    }
}

/// Returns the host of a `Host` header in lower case, without the port and the
/// dot that may end a name.
fn name_of(host: &[u8]) -> Option<String> {
    let authority = Authority::try_from(host).ok()?;
    let name = authority.host();
    // No user before it, and behind it a port at most.
    let is_all = match authority.as_str().strip_prefix(name)?.strip_prefix(':') {
        None => authority.as_str() == name,
        Some(port) => port.bytes().all(|byte| byte.is_ascii_digit()),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    (is_all && !name.is_empty()).then(|| name.to_ascii_lowercase())
}

fn is_address(name: &str) -> bool {
    let in_brackets = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    match in_brackets {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_ipv4()),
    }
}

impl HostCheck {
    /// `hosts` are `server.hosts`; `is_for_this_machine`: it asks for no token
    /// and listens on a loopback address.
    pub(super) fn new(hosts: &[String], is_for_this_machine: bool, refused: IntCounter) -> Self {
        let names = Names::new(hosts, is_for_this_machine);
        Self { names, refused }
    }

    /// # Errors
    /// 403 with what to set. A request without `Host` is no browser's.
    fn check(&self, request: &HttpRequest) -> Result<(), ApiError> {
        let headers = request.headers().get_all(HOST);
        let of_target = request.uri().authority().map(Authority::as_str);
        let mut hosts = headers
            .map(|host| host.as_bytes())
            .chain(of_target.map(str::as_bytes));
        if hosts.all(|host| self.names.admit(host)) {
            return Ok(());
        }
        self.refused.inc();
        let detail = "this broker is not to be asked by the name in Host, which any page could let point here; use localhost or an address, or add the name to server.hosts";
        Err(Problem::new(403, "forbidden-host", "Forbidden host", detail).into())
    }
}

/// Middleware: refuses requests that come by another name.
pub(super) async fn check_host<B: MessageBody>(
    check: HostCheck,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    if let Err(error) = check.check(request.request()) {
        let refusal = error.error_response();
        return Ok(request.into_response(refusal).map_into_right_body());
    }
    Ok(next.call(request).await?.map_into_left_body())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hosts: &[&str], host: &str, admitted: bool) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let names = Names::new(&hosts, true);
        assert_eq!(names.admit(host.as_bytes()), admitted, "{host:?} {hosts:?}");
    }

    #[test]
    fn names_of_this_machine_and_addresses_are_good() {
        for host in [
            "localhost",
            "localhost:8000",
            "LocalHost",
            "localhost.",
            "console.localhost:1",
            "runcast:8000",
            "127.0.0.1",
            "127.0.0.1:8000",
            "127.7.7.7",
            "[::1]",
            "[::1]:8000",
            "10.0.0.5:80",
            "[::ffff:127.0.0.1]",
            "0.0.0.0:8000",
        ] {
            check(&[], host, true);
        }
    }

    #[test]
    fn other_names_are_good_only_if_they_are_named() {
        for host in [
            "evil.example",
            "evil.example:8000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.notlocalhost",
            "localhost@evil.example",
            "evil.example@localhost",
            "localhost,evil.example",
            "localhost evil",
            "0x7f.1",
            "::1",
            "[::1",
            "",
            ":8000",
            ".",
            "[evil]",
            "[::1].evil",
            "[::1]evil:1",
            "loc\u{e4}lhost",
            "localhost/evil",
            "127.0.0.1.nip.io",
        ] {
            check(&[], host, false);
        }
        check(&["runcast.example"], "Runcast.Example:443", true);
        check(&["Runcast.example"], "runcast.example.", true);
        check(&["runcast.example"], "a.runcast.example", false);
        check(&["runcast.example"], "localhost", true);
        check(&["*"], "anything.example", true);
    }

    #[test]
    fn whoever_asks_for_tokens_or_is_open_to_others_may_be_asked_by_any_name() {
        assert_eq!(Names::new(&[], false), Names::Any);
        assert_ne!(Names::new(&["a.example".to_owned()], false), Names::Any);
    }
}
