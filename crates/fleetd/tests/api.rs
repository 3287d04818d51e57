//! The API as a whole, over the embedded store: what it answers to whatever is sent.

#[path = "api/answers.rs"]
mod answers;
#[path = "api/bodies.rs"]
mod bodies;
#[path = "api/borders.rs"]
mod borders;
#[path = "api/replay.rs"]
mod replay;
#[path = "api/transcript.rs"]
mod transcript;
#[path = "api/units.rs"]
mod units;
#[path = "api/world.rs"]
mod world;
