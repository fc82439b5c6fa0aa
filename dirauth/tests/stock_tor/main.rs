//! This authority beside one of the installed `tor`.

mod authority;
mod dir_port;
mod reach;
mod relay;
mod state;
mod uploads;
