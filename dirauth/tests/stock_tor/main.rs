//! This authority beside one of the installed `tor`.

mod authority;
mod state;
mod uploads;
