//! Runcast.
fn main() {}
