//! How many jobs fleet may ask systemd for at once.
//!
//! For every job that a client asked for, PID 1 keeps a match rule at the bus. At 512 rules, which
//! about 510 jobs reach, the bus throws PID 1 out, and systemd is unreachable until it comes back.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::super::{Ended, JobResult, Result, SystemdError};

/// Jobs that may run side by side; far from the 512, since people ask for jobs too. 1,000 starts
/// took 6.0 s with 16, and 4.9 s with 64.
const SLOTS: usize = 64;

/// After this long a job holds no slot any more: a unit that hangs in its start must not keep
/// others waiting.
const SLOT_TIME: Duration = Duration::from_secs(2);

/// Jobs that may be pending in all, hanging ones included: half of what throws PID 1 off the bus.
const PENDING: usize = 256;

/// The jobs that were asked for and are not known to be done. systemd has at most one job a unit.
pub(super) struct Jobs {
    pending: Mutex<Pending>,
    /// How jobs ended, until somebody asks.
    ended: Mutex<BTreeMap<String, Ended>>,
    done: Notify,
}

/// By unit.
type Pending = BTreeMap<String, Job>;

struct Job {
    taken: Instant,
    was_stop: bool,
    /// Its object, once systemd has answered.
    object: Option<String>,
    /// Objects of the unit's jobs that ended before that answer: the one it replaced, or even
    /// itself.
    ended: Vec<(String, JobResult)>,
}

impl Jobs {
    pub(super) fn new() -> Self {
        Self {
            pending: Mutex::new(Pending::new()),
            ended: Mutex::default(),
            done: Notify::new(),
        }
    }

    /// Waits for a slot. A unit that has one already keeps it: the new job takes the old one's
    /// place.
    pub(super) async fn take(&self, unit: &str, is_stop: bool) -> Result<Slot<'_>> {
        loop {
            let freed = self.done.notified();
            tokio::pin!(freed);
            // Registered before looking, so that no job can end unseen in between.
            freed.as_mut().enable();
            let room = {
                let mut pending = self.pending();
                let now = Instant::now();
                match room(&pending, unit, now) {
                    Room::Now => {
                        let job = Job {
                            taken: now,
                            was_stop: is_stop,
                            object: None,
                            ended: Vec::new(),
                        };
                        pending.insert(unit.to_owned(), job);
                        self.ends().remove(unit);
                        return Ok(Slot {
                            jobs: self,
                            unit: Some(unit.to_owned()),
                        });
                    }
                    Room::Full => {
                        return Err(SystemdError::Busy(format!(
                            "unit {unit}: {PENDING} jobs are waiting already; see systemctl list-jobs"
                        )));
                    }
                    Room::At(when) => when,
                }
            };
            tokio::select! {
                () = freed => {}
                () = sleep_until(room) => {}
            }
        }
    }

    /// A job of this unit ended.
    pub(super) fn done(&self, unit: &str, object: &str, result: JobResult) {
        let mut pending = self.pending();
        let Some(job) = pending.get_mut(unit) else {
            return;
        };
        match &job.object {
            None => job.ended.push((object.to_owned(), result)),
            Some(own) if own == object => self.free(pending, unit, Some(result)),
            Some(_) => {}
        }
    }

    /// A job of this unit is pending, whoever asked for it: its end is worth knowing.
    pub(super) fn seen(&self, unit: &str, object: &str, is_stop: bool) {
        let mut pending = self.pending();
        let Some(taken) = Instant::now().checked_sub(SLOT_TIME) else {
            return;
        };
        pending.entry(unit.to_owned()).or_insert_with(|| Job {
            // It holds no slot.
            taken,
            was_stop: is_stop,
            object: Some(object.to_owned()),
            ended: Vec::new(),
        });
    }

    /// How the unit's last job ended; told once.
    pub(super) fn take_end(&self, unit: &str) -> Option<Ended> {
        self.ends().remove(unit)
    }

    /// The bus or PID 1 went: nobody will tell how these jobs ended.
    pub(super) fn clear(&self) {
        self.pending().clear();
        self.done.notify_waiters();
    }

    fn free(&self, mut pending: MutexGuard<'_, Pending>, unit: &str, result: Option<JobResult>) {
        let job = pending.remove(unit);
        if let Some((job, result)) = job.zip(result) {
            let was_stop = job.was_stop;
            self.ends()
                .insert(unit.to_owned(), Ended { was_stop, result });
        }
        self.done.notify_waiters();
    }

    fn ends(&self) -> MutexGuard<'_, BTreeMap<String, Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the jobs, which is given back unless systemd took the job.
pub(super) struct Slot<'a> {
    jobs: &'a Jobs,
    unit: Option<String>,
}

impl Slot<'_> {
    /// systemd has the job, under this object; from here on its end frees the slot.
    pub(super) fn keep(mut self, object: &str) {
        let (jobs, Some(unit)) = (self.jobs, self.unit.take()) else {
            return;
        };
        let mut pending = jobs.pending();
        if let Some(job) = pending.get_mut(&unit) {
            let ended = job.ended.iter().find(|(ended, _)| ended == object);
            if let Some((_, result)) = ended {
                let result = result.clone();
                jobs.free(pending, &unit, Some(result));
            } else {
                job.object = Some(object.to_owned());
            }
        }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(unit) = &self.unit {
            self.jobs.free(self.jobs.pending(), unit, None);
        }
    }
}

enum Room {
    Now,
    At(Instant),
    Full,
}

fn room(pending: &Pending, unit: &str, now: Instant) -> Room {
    if pending.contains_key(unit) {
        return Room::Now;
    }
    if pending.len() >= PENDING {
        return Room::Full;
    }
    let mut ends: Vec<Instant> = pending
        .values()
        .map(|job| job.taken + SLOT_TIME)
        .filter(|end| *end > now)
        .collect();
    if ends.len() < SLOTS {
        return Room::Now;
    }
    ends.sort_unstable();
    Room::At(ends[ends.len() - SLOTS])
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn take(jobs: &Jobs, unit: &str) -> Duration {
        let start = Instant::now();
        jobs.take(unit, false).await.expect("room").keep(unit);
        start.elapsed()
    }

    async fn fill(jobs: &Jobs, batch: &str) {
        for n in 0..SLOTS {
            assert_eq!(take(jobs, &format!("{batch}{n}")).await, Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_ends_makes_room_for_the_next_one() {
        let jobs = Jobs::new();
        fill(&jobs, "a").await;
        let (waited, ()) = tokio::join!(take(&jobs, "next"), async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            jobs.done("other", "other", JobResult::Done);
            jobs.done("a7", "a7", JobResult::Done);
        });
        assert_eq!(waited, Duration::from_millis(30));
    }

    #[tokio::test(start_paused = true)]
    async fn units_that_hang_hold_up_the_others_for_two_seconds_only() {
        let jobs = Jobs::new();
        fill(&jobs, "hanging").await;
        assert_eq!(take(&jobs, "next").await, SLOT_TIME);
    }

    #[tokio::test(start_paused = true)]
    async fn pending_jobs_never_throw_systemd_off_the_bus() {
        let jobs = Jobs::new();
        for batch in 0..PENDING / SLOTS {
            fill(&jobs, &format!("batch{batch}-")).await;
            tokio::time::sleep(SLOT_TIME).await;
        }
        assert!(jobs.take("one-more", false).await.is_err());
        assert_eq!(take(&jobs, "batch0-0").await, Duration::ZERO);
        jobs.clear();
        assert_eq!(take(&jobs, "one-more").await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_systemd_did_not_take_needs_no_slot() {
        let jobs = Jobs::new();
        for n in 0..SLOTS * 2 {
            drop(
                jobs.take(&format!("refused{n}"), false)
                    .await
                    .expect("room"),
            );
        }
        assert_eq!(take(&jobs, "next").await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_counts_until_its_own_end_whenever_that_is_told() {
        let jobs = Jobs::new();
        let count = || jobs.pending().len();
        take(&jobs, "a").await;
        let stop = jobs.take("a", false).await.expect("replaces");
        jobs.done("a", "a", JobResult::Done);
        stop.keep("stop");
        assert_eq!(
            count(),
            1,
            "the end of the replaced job is not the new one's"
        );
        jobs.done("a", "stop", JobResult::Done);
        assert_eq!(count(), 0);
        let short = jobs.take("a", false).await.expect("room");
        jobs.done("a", "short", JobResult::Done);
        short.keep("short");
        assert_eq!(count(), 0, "it ended before its beginning was told");
    }
}
