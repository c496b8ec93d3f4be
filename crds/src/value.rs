//! Values that several fields share: amounts, rates, quantities, counts or percentages, selectors.
//!
//! Amounts stay the text that was written; the schema's pattern is what makes a wrong one fail at admission.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// An amount of bytes as Kubernetes writes it: `20Gi`, `500M`, `1048576`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(pub String);

/// Bytes per second, `200Mi`; bits with `200Mbit`; `none` for no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rate(pub String);

/// A span of time: `800ms`, `2s`, `5m`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Period(pub String);

macro_rules! patterned {
    ($type:ident, $name:literal, $longest:literal, $pattern:literal) => {
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "maxLength": $longest, "pattern": $pattern })
            }
        }
        impl From<&str> for $type {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

patterned!(Size, "Size", 16, "^[1-9][0-9]*(Ki|Mi|Gi|Ti|k|M|G|T)?$");
patterned!(Rate, "Rate", 20, "^(none|[1-9][0-9]*(Ki|Mi|Gi|k|M|G)?|[1-9][0-9]*[kMG]bit)$");
patterned!(Period, "Period", 12, "^[1-9][0-9]*(ms|s|m|h)$");

/// A number of nodes, or a share of them: `5` or `"10%"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CountOrShare {
    /// So many.
    Count(u32),
    /// A percentage with its sign, `0%` to `100%`.
    Share(String),
}

impl CountOrShare {
    /// The number meant, of `total`; a share is rounded up, so that only `0%` of something is nothing. `None` when the
    /// text is no percentage (which the schema already refuses).
    pub fn of(&self, total: usize) -> Option<usize> {
        match self {
            Self::Count(count) => usize::try_from(*count).ok(),
            Self::Share(text) => {
                let percent: usize = text.strip_suffix('%')?.parse().ok()?;
                (percent <= 100).then(|| (total * percent).div_ceil(100))
            }
        }
    }
}

impl fmt::Display for CountOrShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Share(text) => f.write_str(text),
        }
    }
}

impl JsonSchema for CountOrShare {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CountOrShare".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "minimum": 0,
            "pattern": "^(100|[1-9]?[0-9])%$"
        })
    }
}

/// A Kubernetes quantity, `500m`, `2`, `1Gi`, read from text or number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(i64),
            Text(String),
        }
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Number(number) => number.to_string(),
            Written::Text(text) => text,
        }))
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Quantity".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
        })
    }
}

/// What a container asks for and may use at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// What the scheduler sets aside, such as `{cpu: 100m, memory: 128Mi}`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// What the container may use at most. A CPU limit makes pulls slower on an idle machine: leave it out unless you
    /// must have one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
}

/// A Secret by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretName {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up() {
        let share = |text: &str, total| CountOrShare::Share(text.into()).of(total);
        assert_eq!(
            [share("10%", 5), share("0%", 5), share("100%", 7), share("101%", 7), share("x", 7)],
            [Some(1), Some(0), Some(7), None, None]
        );
        assert_eq!(CountOrShare::Count(3).of(2), Some(3));
    }

    #[test]
    fn a_quantity_may_be_a_number() {
        let resources: Resources = serde_json::from_str(r#"{"requests":{"cpu":1,"memory":"64Mi"}}"#).unwrap();
        assert_eq!(resources.requests["cpu"], Quantity("1".into()));
        assert_eq!(resources.requests["memory"], Quantity("64Mi".into()));
    }
}
