//! Integration tests: one binary, a module per subject. Everything is real:
//! the built `runcast`, redis-server, kubectl, sockets.

mod support;

mod agents;
mod attacks;
mod backends;
mod browser;
mod churn;
mod clients;
mod cluster;
mod dev;
mod durable;
mod embedded;
mod embedded_end;
mod examples;
mod exec;
mod exec_away;
mod faults;
mod filters;
mod history;
mod hostile;
mod hostile_payloads;
mod http_api;
mod http_errors;
mod idempotency;
mod kubectl_actor;
mod kubectl_chaos;
mod kubectl_faults;
mod kubectl_stream;
mod limits;
mod metrics;
mod overflow;
mod proxies;
mod publish;
mod record_plain;
mod redis_stream;
mod regressions;
mod resume;
mod run_detail;
mod sentinel;
mod settings;
mod shutdown;
mod slow_clients;
mod store;
mod tail;
mod tail_connections;
