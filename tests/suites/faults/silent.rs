//! A publish whose live frame is lost on its way to every broker.

/// A function that appends as `runcast_publish` does, and announces nothing.
pub(crate) const SILENT: &str = "runcast_publish_silent";

/// Returns the library of [`SILENT`]: that of the broker with its `PUBLISH`
/// taken out, under other names.
pub(crate) fn silent_library() -> String {
    let library = include_str!("../../../actors/src/redis/runcast.lua");
    let silent = library
        .replace("name=runcast\n", "name=runcast_silent\n")
        .replace("'runcast_publish'", "'runcast_publish_silent'")
        .replace("'runcast_version'", "'runcast_version_silent'")
        .replace("'runcast_read'", "'runcast_read_silent'")
        .replace("'runcast_sharded'", "'runcast_sharded_silent'")
        // A call that does nothing.
        .replace("redis.call('PUBLISH'", "tostring('PUBLISH'");
    assert!(silent.contains("tostring('PUBLISH'"), "it would be heard");
    silent
}
