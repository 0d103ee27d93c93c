//! [`Node`]: one server and the shared connection to it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, ProtocolVersion,
    PushInfo, PushKind, RedisConnectionInfo, RedisError, RedisResult,
};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::push_queue::{Push, PushQueue};
use super::push_tap::PushTap;
use super::{sentinel, socket};
use crate::settings::{RedisSettings, SentinelPlace};

/// How long sent bytes may stay unacknowledged (`TCP_USER_TIMEOUT`).
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// First pause before a new attempt to connect.
const RECONNECT_MIN_DELAY: Duration = Duration::from_millis(20);

/// How a server is found.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// By its address, or its name, looked up at each connect.
    Fixed(ConnectionInfo),
    /// Whoever Sentinels say is master, asked at each connect.
    MasterOf(SentinelPlace),
}

/// One server, with a connection that all callers share: made when it is
/// first used, made anew by the first call after it died.
pub(super) struct Node {
    target: Target,
    settings: Arc<RedisSettings>,
    /// Connections made before this changed are not handed out any more.
    era: AtomicU64,
    /// Held while connecting, so that only one caller does.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: Option<Live>,
    attempts: u32,
    not_before: Option<Instant>,
}

/// A connection that was alive when it was handed out.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) connection: MultiplexedConnection,
    is_dead: Arc<AtomicBool>,
    era: u64,
}

impl Live {
    /// Sees to it that nobody is given this connection any more. Calls under
    /// way on it go on.
    pub(super) fn discard(&self) {
        self.is_dead.store(true, Relaxed);
    }
}

impl Node {
    pub(super) fn new(target: Target, settings: Arc<RedisSettings>) -> Self {
        Self {
            target,
            settings,
            era: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// Returns the connection, made anew if it died. After a failure the next
    /// attempt waits: 20 ms, then twice as long each time up to
    /// `redis.reconnect_max_delay`, varied.
    ///
    /// # Errors
    /// When it cannot be made within `redis.connect_timeout`.
    pub(super) async fn live(&self) -> RedisResult<Live> {
        let mut state = self.state.lock().await;
        if let Some(live) = &state.live
            && !live.is_dead.load(Relaxed)
            && live.era == self.era.load(Relaxed)
        {
            return Ok(live.clone());
        }
        state.live = None;
        if let Some(instant) = state.not_before {
            sleep_until(instant).await;
        }
        match self.connect().await {
            Ok(live) => {
                *state = State {
                    live: Some(live.clone()),
                    ..State::default()
                };
                Ok(live)
            }
            Err(error) => {
                let delay = backoff(state.attempts, self.settings.reconnect_max_delay);
                state.attempts += 1;
                state.not_before = Some(Instant::now() + delay);
                Err(error)
            }
        }
    }

    /// Sees to it that the next call looks for the server anew.
    pub(super) fn discard(&self) {
        self.era.fetch_add(1, Relaxed);
    }

    async fn connect(&self) -> RedisResult<Live> {
        let era = self.era.load(Relaxed);
        let is_dead = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&is_dead);
        // Told at once when the link ends, so that no command is ever written
        // to a dead one, which would leave its fate unknown.
        let notice = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                flag.store(true, Relaxed);
            }
            Ok::<(), Infallible>(())
        };
        let config = config(&self.settings).set_push_sender(notice);
        let (_, connection) = connect(&self.target, &self.settings, &config).await?;
        Ok(Live {
            connection,
            is_dead,
            era,
        })
    }
}

/// Connects to a target, and says to whom.
///
/// # Errors
/// What the client says, or no answer within `redis.connect_timeout`.
pub(super) async fn connect(
    target: &Target,
    settings: &RedisSettings,
    config: &AsyncConnectionConfig,
) -> RedisResult<(ConnectionInfo, MultiplexedConnection)> {
    let connecting = async {
        let info = target.find(settings).await?;
        let connection = open(&info, settings, config).await?;
        Ok((info, connection))
    };
    timeout(settings.connect_timeout, connecting)
        .await
        .unwrap_or_else(|_| Err(no_answer()))
}

/// Connects to a server.
pub(super) async fn open(
    info: &ConnectionInfo,
    settings: &RedisSettings,
    config: &AsyncConnectionConfig,
) -> RedisResult<MultiplexedConnection> {
    match info.addr() {
        ConnectionAddr::TcpTls { .. } => connect_tls(info, settings, config).await,
        _ => {
            let client = Client::open(info.clone())?;
            client
                .get_multiplexed_async_connection_with_config(config)
                .await
        }
    }
}

/// Connects under TLS: with certificates that redis-rs would keep for ever.
async fn connect_tls(
    info: &ConnectionInfo,
    settings: &RedisSettings,
    config: &AsyncConnectionConfig,
) -> RedisResult<MultiplexedConnection> {
    let socket = socket::open(info, settings).await?;
    let redis = info.redis_settings();
    let (connection, driver) =
        MultiplexedConnection::new_with_config(redis, socket, config.clone()).await?;
    // It ends with the last clone of the connection.
    tokio::spawn(driver);
    Ok(connection)
}

/// A connection whose messages go to a queue.
pub(super) struct Tapped {
    pub(super) info: ConnectionInfo,
    pub(super) connection: MultiplexedConnection,
    /// Drives it; dropped, it ends.
    pub(super) driver: AbortOnDropHandle<()>,
}

/// Connects to a target likewise; what is published to the connection goes to
/// `queue`, and its end, too.
///
/// # Errors
/// As above.
pub(super) async fn connect_tapped(
    target: &Target,
    settings: &RedisSettings,
    queue: Arc<PushQueue>,
) -> RedisResult<Tapped> {
    let messages = Arc::clone(&queue);
    let config = config(settings).set_push_sender(move |push: PushInfo| {
        if push.kind == PushKind::Disconnection {
            queue.extend(std::iter::once(Push::Disconnected));
        }
        Ok::<(), Infallible>(())
    });
    let connecting = async {
        let info = target.find(settings).await?;
        let tap = PushTap::new(socket::open(&info, settings).await?, messages);
        let redis = info.redis_settings();
        let (connection, driver) =
            MultiplexedConnection::new_with_config(redis, tap, config).await?;
        Ok(Tapped {
            connection,
            driver: AbortOnDropHandle::new(tokio::spawn(driver)),
            info,
        })
    };
    timeout(settings.connect_timeout, connecting)
        .await
        .unwrap_or_else(|_| Err(no_answer()))
}

impl Target {
    async fn find(&self, settings: &RedisSettings) -> RedisResult<ConnectionInfo> {
        match self {
            Self::Fixed(info) => Ok(long_lived(info.clone())),
            Self::MasterOf(place) => sentinel::master(place, settings).await,
        }
    }
}

/// Timeouts of a connection.
pub(super) fn config(settings: &RedisSettings) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(settings.connect_timeout))
        .set_response_timeout(Some(settings.command_timeout))
}

/// Fits a connection for a long life: RESP3, no delay, and an end if the peer
/// acknowledges nothing for a while.
pub(super) fn long_lived(info: ConnectionInfo) -> ConnectionInfo {
    let redis = resp3(info.redis_settings());
    info.set_tcp_settings(tcp()).set_redis_settings(redis)
}

fn tcp() -> TcpSettings {
    TcpSettings::default()
        .set_nodelay(true)
        .set_user_timeout(USER_TIMEOUT)
}

fn resp3(info: &RedisConnectionInfo) -> RedisConnectionInfo {
    info.clone().set_protocol(ProtocolVersion::RESP3)
}

/// The pause after so many failures: between half and all of it, so that
/// callers and brokers do not come together.
pub(super) fn backoff(attempts: u32, max: Duration) -> Duration {
    let delay = RECONNECT_MIN_DELAY
        .saturating_mul(1 << attempts.min(16))
        .min(max);
    delay.mul_f64(0.5 + fastrand::f64() / 2.0)
}

pub(super) fn no_answer() -> RedisError {
    (ErrorKind::Io, "no answer in time").into()
}
