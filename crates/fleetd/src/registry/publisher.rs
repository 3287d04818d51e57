//! The publisher of a units directory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use fleet_core::directory::{Fingerprint, Known};
use fleet_core::machine::MachineId;
use fleet_core::unit::{Content, Parsed, TargetState, UnitName};

use super::{Registry, RegistryError};
use crate::store::StoreError;
use crate::units_dir::{PublishError, Publisher};

/// A publisher for one machine.
pub struct AsOwner {
    /// The registry that it publishes to.
    pub registry: Registry,
    /// The machine whose directory it publishes.
    pub machine: MachineId,
}

#[async_trait]
impl Publisher for AsOwner {
    async fn known(&self, names: &[UnitName]) -> Result<BTreeMap<UnitName, Known>, PublishError> {
        let mut known = BTreeMap::new();
        // The state of a foreign registry is no reason to do or forget anything.
        self.registry.may_change().await?;
        for name in names {
            match self.registry.known(name).await {
                Ok(found) => known.extend(found.map(|found| (name.clone(), found))),
                // The publishing of that unit is refused for this later. Other units go on.
                Err(RegistryError::Record(..)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(known)
    }

    async fn publish(
        &self,
        name: &UnitName,
        content: &Content,
        target: TargetState,
    ) -> Result<(), PublishError> {
        self.registry.may_change().await?;
        let published = self
            .registry
            .publish(name, content.clone(), &self.machine, target);
        published.await?;
        Ok(())
    }

    async fn adopt(
        &self,
        name: &UnitName,
        content: Option<&Fingerprint>,
    ) -> Result<bool, PublishError> {
        self.registry.may_change().await?;
        Ok(self.registry.adopt(name, content, &self.machine).await?)
    }

    async fn disown(&self, name: &UnitName) -> Result<(), PublishError> {
        // A file must not be forgotten because a foreign registry does not have its unit.
        self.registry.may_change().await?;
        self.registry.disown(name, &self.machine).await?;
        Ok(())
    }
}

impl From<RegistryError> for PublishError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Store(StoreError::Rejected(text)) => Self::Refused(text),
            RegistryError::Store(error) => Self::Unavailable(error.to_string()),
            error @ (RegistryError::Held(_) | RegistryError::NotAcceptable(_)) => {
                Self::Unavailable(error.to_string())
            }
            error @ (RegistryError::Order(_)
            | RegistryError::Outdated(_)
            | RegistryError::NotLaunchable(_)
            | RegistryError::TooManyUnits
            | RegistryError::TooMuchMetadata(_)
            | RegistryError::Metadata(..)
            | RegistryError::NoMachine { .. }) => Self::Refused(error.to_string()),
            RegistryError::Record(..) => Self::Refused(format!(
                "{error}; to remove it: fleetctl destroy, then change the file"
            )),
        }
    }
}

/// Checks whether a file may be launched from a directory. The error says why it may not.
pub fn check(name: &UnitName, content: &Content) -> Result<(), String> {
    let parsed = Parsed::parse(name.clone(), content);
    let refused = |error| format!("{error}; nothing was published");
    parsed.validate().map_err(refused)?;
    if parsed.options.global {
        Ok(())
    } else {
        Err(
            "not global: only units with Global=true in [X-Fleet] are launched from a directory"
                .to_owned(),
        )
    }
}
