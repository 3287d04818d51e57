//! The API as a whole, over the embedded store: what it answers to whatever is sent.

mod answers;
mod bodies;
mod borders;
mod replay;
mod transcript;
mod units;
mod world;
