//! Properties of units, as systemd tells them.

use std::collections::HashMap;

use zbus::OwnedVariant;

pub(super) fn text(properties: &HashMap<String, OwnedVariant>, name: &str) -> Option<String> {
    properties
        .get(name)
        .and_then(|value| <&str>::try_from(value).ok())
        .map(str::to_owned)
}

pub(super) fn number(properties: &HashMap<String, OwnedVariant>, name: &str) -> Option<u64> {
    let value = properties.get(name)?;
    u64::try_from(value)
        .ok()
        .or_else(|| u32::try_from(value).ok().map(u64::from))
}
