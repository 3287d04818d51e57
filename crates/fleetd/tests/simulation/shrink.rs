//! Makes a history that breaks something short: steps that are not needed for it go, as far as that
//! is worth the time.

use super::play;
use super::step::Story;

/// How often a history is played again for that.
const REPLAYS: u64 = 150;

/// What rule a text says was broken, whoever it names.
fn rule(broken: &str) -> String {
    let first = broken.lines().next().unwrap_or_default();
    let what = first.split_once("store revision").map_or(first, |it| it.1);
    let words = what.split(|letter: char| !letter.is_alphabetic());
    words
        .filter(|word| word.len() > 2)
        .take(6)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Answers the shortest history that was found which breaks the same rule, and what it breaks.
pub(super) fn shrink(story: &Story, broken: String) -> (Story, String) {
    let (mut best, mut why) = (story.clone(), broken);
    let wanted = rule(&why);
    let mut left = super::number("FLEET_REPLAYS").unwrap_or(REPLAYS);
    let mut size = best.steps.len().div_ceil(2);
    while size > 0 && left > 0 {
        let mut at = 0;
        let mut shorter = false;
        while at < best.steps.len() && left > 0 {
            let mut tried = best.clone();
            let end = (at + size).min(tried.steps.len());
            // The time that they took passes all the same.
            let waited: u64 = tried.steps.drain(at..end).map(|(wait, _)| wait).sum();
            if let Some((wait, _)) = tried.steps.get_mut(at) {
                *wait += waited;
            }
            left -= 1;
            match play(&tried, false).broken {
                Some(again) if rule(&again) == wanted => {
                    (best, why) = (tried, again);
                    shorter = true;
                }
                _ => at += size,
            }
        }
        if !shorter {
            size /= 2;
        }
    }
    (best, why)
}
