//! The service over a real journal and cache.
