//! The executable `eagle`.
fn main() {}
