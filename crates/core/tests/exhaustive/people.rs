//! What people order: the real rules decide, and the record is what comes of it.

use std::collections::BTreeMap;

use fleet_core::record::{Revision, UnitRecord};
use fleet_core::rollout::{self, Order, follow, succeed};
use fleet_core::unit::{TargetState, UnitName};

use super::world::{Phase, Record, World};

impl World {
    pub(crate) fn orders(&mut self, order: Order) -> Option<()> {
        let unit = UnitName::parse("a.service").expect("a name");
        let record = self.record.full();
        let done = follow(order, &unit, &record, &BTreeMap::new(), "a test", 0).ok()?;
        self.takes(&done.record);
        Some(())
    }

    /// A newer revision is submitted.
    pub(crate) fn updates(&mut self) -> Option<()> {
        let number = self.record.newest + 1;
        let next = Revision {
            number: number.into(),
            at: 0,
            content: format!("[Service]\nExecStart=/{number}\n").as_str().into(),
            restarts: 0,
        };
        let was = TargetState::Launched;
        let done = succeed(self.record.full(), was, next, None, 0);
        self.takes(&done.record);
        self.is_proved = false;
        Some(())
    }

    /// The record is that from now on.
    pub(crate) fn takes(&mut self, record: &UnitRecord) {
        let number = |number: u64| u8::try_from(number).expect("small");
        let candidate = record.candidate.as_ref().map(|it| {
            let phase = match it.phase {
                rollout::Phase::Rolling => Phase::Rolling,
                rollout::Phase::Paused => Phase::Paused,
                rollout::Phase::RollingBack => Phase::RollingBack,
            };
            (number(it.revision.number), phase)
        });
        let next = Record {
            stable: number(record.stable.number),
            candidate,
            newest: self.record.newest.max(number(record.newest().number)),
        };
        self.record = next;
        self.record_changed();
    }
}
