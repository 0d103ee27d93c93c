//! Integration tests: one binary, a module per subject. Everything is real:
//! the built `runcast`, redis-server, kubectl, sockets.

mod settings;
