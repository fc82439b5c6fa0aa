//! A thread-per-core onion-routing relay.
