//! The cache under races, restarts and resyncs.
