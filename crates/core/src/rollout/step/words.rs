//! What people read about a rollout that waits.

use super::Towards;
use super::standing::Standing;

/// Machines that a text names before it says how many more there are.
const NAMED: usize = 3;

impl Towards<'_> {
    /// How much of the budget is spent, and by which machines.
    pub(super) fn spent(&self) -> String {
        let machines = self.machines.iter().chain(&self.leavers);
        let costing: Vec<_> = machines.filter(|it| it.costs()).collect();
        self.spent_by(&costing, self.machines.len(), self.budget)
    }

    /// The same, of `all` machines with that budget.
    pub(super) fn spent_by(&self, costing: &[&Standing<'_>], all: usize, budget: usize) -> String {
        let causes = match costing {
            [] => String::new(),
            costing => format!(" ({})", named(costing)),
        };
        let spent = costing.len();
        format!("{spent} of {all} machines unavailable{causes}, at most {budget} allowed")
    }

    pub(super) fn allowed(&self) -> String {
        format!("at most {} allowed", self.budget)
    }

    /// That these machines went offline.
    pub(super) fn lost(&self, machines: &[&Standing<'_>]) -> String {
        let took = if machines.len() == 1 { "it" } else { "they" };
        let candidate = self.situation.record.newest().number;
        let names = named_alone(machines);
        format!("{names} went offline when {took} took revision {candidate}")
    }
}

impl Standing<'_> {
    fn state(&self) -> String {
        if let Some(why) = self.unknown {
            return why.to_string();
        }
        if self.is_lost {
            return match self.leaves {
                Some(_) => "offline since it was told to stop it".to_owned(),
                None => "offline since it was granted the revision".to_owned(),
            };
        }
        if self.leaves.is_some() {
            return "stopping".to_owned();
        }
        match (self.report, self.failure().or(self.problem)) {
            (_, Some(why)) => why.to_owned(),
            (Some(_), _) if self.cordoned && !self.moving && !self.on => "cordoned".to_owned(),
            (_, _) if self.moving => "updating".to_owned(),
            (Some(report), _) if !self.on && !report.available => match &report.failed {
                Some(why) => why.clone(),
                None => format!("{} ({})", report.active, report.sub),
            },
            (Some(_), _) if !self.on => "queued".to_owned(),
            (Some(report), _) if report.ready => "up, watched for MinReadySec".to_owned(),
            (Some(report), _) => format!("{} ({})", report.active, report.sub),
            (None, _) => "not in place yet".to_owned(),
        }
    }
}

/// The first of the machines.
pub(super) fn named_alone(machines: &[&Standing<'_>]) -> String {
    let names = machines.iter().take(NAMED).map(|it| it.id.short());
    let names = names.collect::<Vec<_>>().join(", ");
    match machines.len().saturating_sub(NAMED) {
        0 => names,
        more => format!("{names}, and {more} more"),
    }
}

/// The first of the machines, with their state.
pub(super) fn named(machines: &[&Standing<'_>]) -> String {
    let mut text = machines
        .iter()
        .take(NAMED)
        .map(|machine| format!("{}: {}", machine.id.short(), machine.state()))
        .collect::<Vec<_>>()
        .join(", ");
    if machines.len() > NAMED {
        text += &format!(", and {} more", machines.len() - NAMED);
    }
    text
}
