//! The actors, protocol and fan-out of Runcast.

pub mod broker;
pub mod kubectl;
pub mod protocol;
pub mod reach;
pub mod settings;
