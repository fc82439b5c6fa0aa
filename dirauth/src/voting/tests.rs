mod answers;
mod maker;
mod network;
mod simulation;
mod stock;
