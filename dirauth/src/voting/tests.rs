mod answers;
mod maker;
