//! [`RedisPlace`]: which servers a `redis.url` names, and what kind of Redis
//! they make.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};

/// What stands before the addresses of Sentinels.
const SENTINEL: &str = "redis+sentinel://";

/// The same of Sentinels that speak TLS, and their master, too.
const SENTINEL_TLS: &str = "rediss+sentinel://";

/// What stands before the addresses of a Cluster's nodes.
const CLUSTER: &str = "redis+cluster://";

/// The same of nodes that speak TLS.
const CLUSTER_TLS: &str = "rediss+cluster://";

/// What stands before the address of one server that speaks TLS.
const STANDALONE_TLS: &str = "rediss://";

/// Where Sentinels listen unless told otherwise.
const SENTINEL_PORT: u16 = 26379;

/// Where Redis listens unless told otherwise.
const REDIS_PORT: u16 = 6379;

/// The servers of a URL, with credentials: never for a log.
#[derive(Debug, Clone)]
pub enum RedisPlace {
    /// One server.
    Standalone(ConnectionInfo),
    /// The master that Sentinels tell of.
    Sentinel(SentinelPlace),
    /// A Cluster, by the nodes to ask first.
    Cluster(Vec<ConnectionInfo>),
}

/// Where Sentinels are and what to ask them.
#[derive(Debug, Clone)]
pub struct SentinelPlace {
    /// The Sentinels, with their own credentials.
    pub sentinels: Vec<ConnectionInfo>,
    /// The name under which they watch the master.
    pub master_name: String,
    /// Credentials and database at the master.
    pub master: RedisConnectionInfo,
    /// Whether the master speaks TLS.
    pub is_tls: bool,
}

impl RedisPlace {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it, without repeating any of it.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        if let Some(rest) = url.strip_prefix(SENTINEL) {
            return sentinel(rest).map(Self::Sentinel);
        }
        if let Some(rest) = url.strip_prefix(SENTINEL_TLS) {
            let mut place = sentinel(rest)?;
            place.sentinels = place.sentinels.into_iter().map(with_tls).collect();
            place.is_tls = true;
            return Ok(Self::Sentinel(place));
        }
        if let Some(rest) = url.strip_prefix(CLUSTER) {
            return cluster(rest).map(Self::Cluster);
        }
        if let Some(rest) = url.strip_prefix(CLUSTER_TLS) {
            let nodes = cluster(rest)?.into_iter().map(with_tls);
            return Ok(Self::Cluster(nodes.collect()));
        }
        if let Some(rest) = url.strip_prefix(STANDALONE_TLS) {
            let info = info(&format!("redis://{rest}"))?;
            return Ok(Self::Standalone(with_tls(info)));
        }
        info(url).map(Self::Standalone)
    }
}

/// Returns the same server as one that speaks TLS. The sockets under it are
/// ours (`redis::socket`); redis-rs would not read such a URL without a TLS of
/// its own.
pub(crate) fn with_tls(info: ConnectionInfo) -> ConnectionInfo {
    let ConnectionAddr::Tcp(host, port) = info.addr().clone() else {
        return info;
    };
    info.set_addr(tcp_address(host, port, true))
}

/// Returns the address of a server that speaks TLS or does not.
pub(crate) fn tcp_address(host: String, port: u16, is_tls: bool) -> ConnectionAddr {
    match is_tls {
        false => ConnectionAddr::Tcp(host, port),
        true => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        },
    }
}

/// `[user:pass@]host[:port],…/<master name>[/db][?sentinel_username=…&sentinel_password=…]`
fn sentinel(rest: &str) -> Result<SentinelPlace, String> {
    let parts = Parts::split(rest)?;
    let (master_name, db) = match parts.path.split_once('/') {
        Some((name, db)) => (name, db),
        None => (parts.path, ""),
    };
    if master_name.is_empty() {
        return Err("the name of the master is missing: …/<master name>".to_owned());
    }
    let mut credentials = String::new();
    for (key, value) in parts.query() {
        match key {
            "sentinel_username" => credentials.insert_str(0, value),
            "sentinel_password" => credentials.push_str(&format!(":{value}")),
            _ => return Err(UNKNOWN_QUERY.to_owned()),
        }
    }
    if !credentials.is_empty() {
        credentials.push('@');
    }
    // Any host does: only credentials and database are wanted of it.
    let master = info(&format!("redis://{}localhost/{db}", parts.credentials))?;
    Ok(SentinelPlace {
        sentinels: parts.servers(&credentials, SENTINEL_PORT)?,
        master_name: master_name.to_owned(),
        master: master.redis_settings().clone(),
        is_tls: false,
    })
}

/// `[user:pass@]host[:port],…`
fn cluster(rest: &str) -> Result<Vec<ConnectionInfo>, String> {
    let parts = Parts::split(rest)?;
    if !matches!(parts.path, "" | "0") {
        return Err("a Cluster has no database but 0".to_owned());
    }
    if parts.query().next().is_some() {
        return Err(UNKNOWN_QUERY.to_owned());
    }
    parts.servers(parts.credentials, REDIS_PORT)
}

const UNKNOWN_QUERY: &str = "unknown query parameter";

/// What a URL of several servers is made of.
struct Parts<'a> {
    /// With the `@`, or empty.
    credentials: &'a str,
    hosts: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn split(rest: &'a str) -> Result<Self, String> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if rest.contains('#') {
            return Err("it holds a #".to_owned());
        }
        let at = rest.rfind('@').map_or(0, |at| at + 1);
        let (credentials, place) = rest.split_at(at);
        let inside = credentials.strip_suffix('@').unwrap_or_default();
        if inside.contains(['/', '@']) {
            return Err(
                "one pair of credentials for all; / and @ in it are %2F and %40".to_owned(),
            );
        }
        let (hosts, path) = place.split_once('/').unwrap_or((place, ""));
        Ok(Self {
            credentials,
            hosts,
            path,
            query,
        })
    }

    fn query(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    fn servers(&self, credentials: &str, port: u16) -> Result<Vec<ConnectionInfo>, String> {
        let hosts = self.hosts.split(',');
        hosts
            .map(|host| {
                if host.is_empty() {
                    return Err("a host is missing".to_owned());
                }
                // The colons of an IPv6 address stand in brackets.
                let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
                match has_port {
                    true => info(&format!("redis://{credentials}{host}")),
                    false => info(&format!("redis://{credentials}{host}:{port}")),
                }
            })
            .collect()
    }
}

fn info(url: &str) -> Result<ConnectionInfo, String> {
    url.into_connection_info()
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(servers: &[ConnectionInfo]) -> Vec<String> {
        servers.iter().map(|info| info.addr().to_string()).collect()
    }

    fn sentinel(url: &str) -> SentinelPlace {
        match RedisPlace::parse(url) {
            Ok(RedisPlace::Sentinel(place)) => place,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn sentinels_a_name_and_two_pairs_of_credentials() {
        let place = sentinel(
            "redis+sentinel://u:p%2Fw@a,b:1,[::1],[::1]:2/mymaster/3?sentinel_username=s&sentinel_password=t%40",
        );
        let servers = addresses(&place.sentinels);
        assert_eq!(servers, ["a:26379", "b:1", "::1:26379", "::1:2"]);
        assert_eq!(place.master_name, "mymaster");
        let master = &place.master;
        assert_eq!(master.username(), Some("u"));
        assert_eq!(master.password(), Some("p/w"));
        assert_eq!(master.db(), 3);
        for info in &place.sentinels {
            let own = info.redis_settings();
            assert_eq!((own.username(), own.password()), (Some("s"), Some("t@")));
        }
    }

    #[test]
    fn a_password_of_the_master_is_not_told_to_sentinels() {
        let place = sentinel("redis+sentinel://:p@a/m");
        assert_eq!(place.master.password(), Some("p"));
        assert_eq!(place.sentinels[0].redis_settings().password(), None);
    }

    #[test]
    fn sentinels_under_tls_watch_a_master_under_tls() {
        for (url, is_tls) in [
            ("redis+sentinel://a/m", false),
            ("rediss+sentinel://a,b/m", true),
        ] {
            let place = sentinel(url);
            assert_eq!(place.is_tls, is_tls, "{url}");
            for info in &place.sentinels {
                let has_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
                assert_eq!(has_tls, is_tls, "{url}");
            }
        }
    }

    #[test]
    fn nodes_of_a_cluster_share_their_credentials() {
        let Ok(RedisPlace::Cluster(seeds)) = RedisPlace::parse("redis+cluster://u:p@a:1,b") else {
            panic!("it is a cluster");
        };
        assert_eq!(addresses(&seeds), ["a:1", "b:6379"]);
        for info in &seeds {
            let own = info.redis_settings();
            assert_eq!((own.username(), own.password()), (Some("u"), Some("p")));
        }
    }
}
