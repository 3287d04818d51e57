//! The API about rollouts: what is planned, how far it came, why, and orders.

use fleet_core::api::{
    EventList, Explanation, OrderBody, Plan, PlanBody, RevisionContent, RevisionList, RolloutList,
    RolloutStatus, SchedulingBody,
};
use fleet_core::machine::Scheduling;
use hyper::Method;

use super::{Client, ClientError, LONG_POLL, encode, found};

impl Client {
    /// Every global unit, counted over the machines.
    pub(crate) async fn rollouts(&mut self) -> Result<RolloutList, ClientError> {
        self.get("rollouts", self.timeout).await
    }

    /// How a unit stands on its way to a revision, or none if there is no such unit.
    ///
    /// With a registry revision the answer comes when something has changed since, at the latest
    /// after 30 seconds.
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

    /// Orders something about a unit's rollout, or answers none if there is no such unit.
    pub(crate) async fn order(
        &mut self,
        unit: &str,
        order: &OrderBody,
    ) -> Result<Option<RolloutStatus>, ClientError> {
        let path = format!("rollouts/{}", encode(unit));
        found(self.post(&path, order).await)
    }

    /// Every revision of a unit that is known, or none if there is no such unit.
    pub(crate) async fn history(
        &mut self,
        unit: &str,
    ) -> Result<Option<RevisionList>, ClientError> {
        let path = format!("rollouts/{}/history", encode(unit));
        found(self.get(&path, self.timeout).await)
    }

    /// One revision of a unit with its content.
    pub(crate) async fn revision(
        &mut self,
        unit: &str,
        number: u64,
    ) -> Result<RevisionContent, ClientError> {
        let path = format!("rollouts/{}/history/{number}", encode(unit));
        self.get(&path, self.timeout).await
    }

    /// What submitting and launching these units would do.
    pub(crate) async fn plan(&mut self, units: &PlanBody) -> Result<Plan, ClientError> {
        self.post("plan", units).await
    }

    /// Why a unit runs or does not, on every machine that is known.
    pub(crate) async fn explain(&mut self, unit: &str) -> Result<Explanation, ClientError> {
        let path = format!("explain/{}", encode(unit));
        self.get(&path, self.timeout).await
    }

    /// What leaders decided, about one unit or about all.
    ///
    /// With a registry revision only what came after it; if nothing has yet, the answer waits for
    /// it, 30 seconds at most.
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

    /// Says what may start on a machine.
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
