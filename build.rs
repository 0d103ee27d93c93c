//! Tells cargo that the built console is part of the program (`src/http/console.rs`):
//! a file that appears there is no change of any source.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=frontend/console/dist");
}
