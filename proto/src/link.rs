//! Links between two nodes (tor-spec 2 to 4): who the peer is, and the rules of the connection that circuits share.

pub mod cert;
