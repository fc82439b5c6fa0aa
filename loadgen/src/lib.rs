//! Private networks of any mix of implementations, and load through them.
