//! The policy for machines with an unknown host key.

use std::str::FromStr;

/// The policy for machines with an unknown host key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostKeys {
    /// ssh refuses the machine.
    Strict,
    /// ssh asks the person at the terminal, and remembers a yes.
    Ask,
    /// ssh checks no key.
    Unchecked,
}

impl FromStr for HostKeys {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "1" | "yes" => Ok(Self::Strict),
            "ask" => Ok(Self::Ask),
            "false" | "f" | "0" | "no" => Ok(Self::Unchecked),
            _ => Err("must be true, ask or false"),
        }
    }
}
