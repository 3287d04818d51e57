//! The API as a whole, over the embedded store: its answers to all kinds of requests.

mod answers;
mod bodies;
mod borders;
mod replay;
mod transcript;
mod units;
mod world;
