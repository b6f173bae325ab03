//! A stock OAuth client from another language against the real program.
