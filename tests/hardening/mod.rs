//! What one client can do to another: each bound and each surface from outside,
//! over sockets.

mod redis_access;
