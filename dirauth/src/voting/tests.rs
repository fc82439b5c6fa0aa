mod answers;
pub mod maker;
mod network;
mod simulation;
mod stock;
