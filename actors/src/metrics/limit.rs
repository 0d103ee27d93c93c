//! [`Limit`]: the bounds at which somebody is refused.

/// A bound at which a request, a stream or a connection is refused. Each is a
/// setting; queues and buffers have counters of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `limits.max_header_bytes`
    HeaderBytes,
    /// `limits.header_timeout`: of the second and later requests of a
    /// connection, of handshakes and of the PROXY protocol. A first request is
    /// answered 408 by actix, which tells nobody.
    HeaderTime,
    /// `limits.max_body_bytes`
    BodyBytes,
    /// `limits.body_timeout`
    BodyTime,
    /// `limits.total_body_bytes`
    TotalBodyBytes,
    /// `limits.body_bytes_per_client`
    BodyBytesPerClient,
    /// `limits.max_streams`
    Streams,
    /// `limits.max_streams_per_ip`
    StreamsPerIp,
    /// `limits.max_streams_per_subject`
    StreamsPerSubject,
    /// `limits.max_streams_per_run`
    StreamsPerRun,
    /// `limits.accept_rate`
    AcceptRate,
    /// `limits.publish_rate_per_ip`
    PublishRatePerIp,
    /// `limits.publish_rate_per_subject`
    PublishRatePerSubject,
    /// `limits.max_memory`, when it has no room for a stream.
    Memory,
    /// `hub.max_hubs`, when a stream finds no room.
    Hubs,
}

impl Limit {
    /// All limits, in the order used for counters.
    pub const ALL: [Self; 15] = [
        Self::HeaderBytes,
        Self::HeaderTime,
        Self::BodyBytes,
        Self::BodyTime,
        Self::TotalBodyBytes,
        Self::BodyBytesPerClient,
        Self::Streams,
        Self::StreamsPerIp,
        Self::StreamsPerSubject,
        Self::StreamsPerRun,
        Self::AcceptRate,
        Self::PublishRatePerIp,
        Self::PublishRatePerSubject,
        Self::Memory,
        Self::Hubs,
    ];

    /// Returns the key of its setting.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HeaderBytes => "limits.max_header_bytes",
            Self::HeaderTime => "limits.header_timeout",
            Self::BodyBytes => "limits.max_body_bytes",
            Self::BodyTime => "limits.body_timeout",
            Self::TotalBodyBytes => "limits.total_body_bytes",
            Self::BodyBytesPerClient => "limits.body_bytes_per_client",
            Self::Streams => "limits.max_streams",
            Self::StreamsPerIp => "limits.max_streams_per_ip",
            Self::StreamsPerSubject => "limits.max_streams_per_subject",
            Self::StreamsPerRun => "limits.max_streams_per_run",
            Self::AcceptRate => "limits.accept_rate",
            Self::PublishRatePerIp => "limits.publish_rate_per_ip",
            Self::PublishRatePerSubject => "limits.publish_rate_per_subject",
            Self::Memory => "limits.max_memory",
            Self::Hubs => "hub.max_hubs",
        }
    }
}
