//! [`CloseReason`]: why a session ended, in logs, metrics and `goodbye`.

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The run is over and all of it was sent.
    End,
    /// The client closed the connection.
    ClientGone,
    /// The client took no byte for `limits.write_timeout`.
    WriteTimeout,
    /// The process is going.
    Drain,
    /// The stream reached `streaming.max_age`.
    MaxAge,
    /// A limit of ours was reached.
    Overload,
    /// The backend cannot be used now.
    Unavailable,
    /// A failure of ours.
    Internal,
    /// Its token ended.
    TokenExpired,
    /// Its token, or all of its subject, were revoked.
    TokenRevoked,
}

impl CloseReason {
    /// All reasons, in the order used for counters.
    pub const ALL: [Self; 10] = [
        Self::End,
        Self::ClientGone,
        Self::WriteTimeout,
        Self::Drain,
        Self::MaxAge,
        Self::Overload,
        Self::Unavailable,
        Self::Internal,
        Self::TokenExpired,
        Self::TokenRevoked,
    ];

    /// Returns the word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::ClientGone => "client_gone",
            Self::WriteTimeout => "write_timeout",
            Self::Drain => "drain",
            Self::MaxAge => "max_age",
            Self::Overload => "overload",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
        }
    }

    /// Returns the word used in `goodbye`. Whose token was revoked is told that
    /// it ended: the client comes back with a new one, or hears a 401.
    pub fn told(self) -> &'static str {
        match self {
            Self::TokenRevoked => Self::TokenExpired.as_str(),
            other => other.as_str(),
        }
    }
}
