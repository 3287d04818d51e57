//! The API of rollouts: plans, progress, reasons and orders.

use fleet_core::api::{
    EventList, Explanation, OrderBody, Plan, PlanBody, RevisionContent, RevisionList, RolloutList,
    RolloutStatus, SchedulingBody,
};
use fleet_core::machine::Scheduling;
use hyper::Method;

use super::{Client, ClientError, LONG_POLL, encode, found};

impl Client {
    /// Returns every global unit, with counts of its machines.
    pub(crate) async fn rollouts(&mut self) -> Result<RolloutList, ClientError> {
        self.get("rollouts", self.timeout).await
    }

    /// Returns the rollout of a unit. `None` if there is no such unit.
    ///
    /// With a registry revision, waits up to 30 seconds for a change after it.
    pub(crate) async fn rollout(
        &mut self,
        unit: &str,
        after: Option<u64>,
    ) -> Result<Option<RolloutStatus>, ClientError> {
        let path = format!("rollouts/{}", encode(unit));
        found(match after {
            None => self.get(&path, self.timeout).await,
            Some(revision) => {
                let path = format!("{path}?after={revision}");
                self.get(&path, self.timeout + LONG_POLL).await
            }
        })
    }

    /// Sends an order about a unit's rollout. Returns `None` if there is no such unit.
    pub(crate) async fn order(
        &mut self,
        unit: &str,
        order: &OrderBody,
    ) -> Result<Option<RolloutStatus>, ClientError> {
        let path = format!("rollouts/{}", encode(unit));
        found(self.post(&path, order).await)
    }

    /// Returns every known revision of a unit. `None` if there is no such unit.
    pub(crate) async fn history(
        &mut self,
        unit: &str,
    ) -> Result<Option<RevisionList>, ClientError> {
        let path = format!("rollouts/{}/history", encode(unit));
        found(self.get(&path, self.timeout).await)
    }

    /// Returns one revision of a unit with its content.
    pub(crate) async fn revision(
        &mut self,
        unit: &str,
        number: u64,
    ) -> Result<RevisionContent, ClientError> {
        let path = format!("rollouts/{}/history/{number}", encode(unit));
        self.get(&path, self.timeout).await
    }

    /// Returns what submitting and launching these units would do.
    pub(crate) async fn plan(&mut self, units: &PlanBody) -> Result<Plan, ClientError> {
        self.post("plan", units).await
    }

    /// Returns why a unit runs or does not, on every known machine.
    pub(crate) async fn explain(&mut self, unit: &str) -> Result<Explanation, ClientError> {
        let path = format!("explain/{}", encode(unit));
        self.get(&path, self.timeout).await
    }

    /// Returns the leaders' events, of one unit or of all.
    ///
    /// With a registry revision, returns only later events, and waits up to 30 seconds for the
    /// first.
    pub(crate) async fn events(
        &mut self,
        unit: Option<&str>,
        after: Option<u64>,
    ) -> Result<EventList, ClientError> {
        let unit = unit.map(|unit| format!("unit={}", encode(unit)));
        let (since, patience) = match after {
            None => (None, self.timeout),
            Some(revision) => (Some(format!("after={revision}")), self.timeout + LONG_POLL),
        };
        let query: Vec<String> = unit.into_iter().chain(since).collect();
        self.get(&format!("events?{}", query.join("&")), patience)
            .await
    }

    /// Sets the limits on starting units on a machine.
    pub(crate) async fn schedule(
        &mut self,
        machine: &str,
        scheduling: Scheduling,
    ) -> Result<(), ClientError> {
        let path = format!("machines/{}", encode(machine));
        self.send(Method::POST, &path, Some(&SchedulingBody { scheduling }))
            .await
    }
}
