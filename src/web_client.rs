//! The HTTP client for what a setting names: a key set, a collector.

use std::time::Duration;

use reqwest::{Client, redirect};

/// Makes one whose requests take no longer than `timeout`. It follows no
/// redirect: elsewhere than where it was said nobody is asked.
///
/// # Errors
/// When the machine has no root certificates to check servers by.
pub(crate) fn web_client(timeout: Duration) -> reqwest::Result<Client> {
    // Another part may have chosen one before us; any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .timeout(timeout)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("runcast/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Returns the first cause of an error: reqwest says what it was doing and
/// keeps the reason some levels down.
pub(crate) fn cause_of(error: &dyn std::error::Error) -> String {
    let mut first = error;
    while let Some(cause) = first.source() {
        first = cause;
    }
    first.to_string()
}
