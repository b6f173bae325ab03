//! The `gatepost` program: nothing but the door to [`gatepost`]'s command line.

fn main() {}
