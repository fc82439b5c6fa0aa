//! (arrives with the first commits)
