//! This authority beside one of the installed `tor`.

mod authority;
mod dir_port;
mod state;
mod uploads;
