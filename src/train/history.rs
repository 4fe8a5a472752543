//! The history of a run: a record for each epoch.

use std::fmt::{self, Display};

/// The record of one epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
pub struct Record {
    /// The number of the epoch, from 1.
    pub epoch: usize,
    /// The number of steps that the trainer had made by the end of the epoch.
    pub steps: u64,
    /// The mean of ℓ over the samples of the epoch, each evaluated before the step with its batch.
    #[cfg_attr(feature = "files", serde(with = "exact"))]
    pub loss: f64,
    /// The mean of ℓ over the validation set after the epoch, if there is one.
    #[cfg_attr(feature = "files", serde(with = "exact_or_none", default))]
    pub validation_loss: Option<f64>,
    /// η of the last step.
    #[cfg_attr(feature = "files", serde(with = "exact"))]
    pub learning_rate: f64,
    /// ‖g‖ of the last step, over all of θ, before clipping.
    #[cfg_attr(feature = "files", serde(with = "exact"))]
    pub gradient_norm: f64,
    /// The wall time in seconds from the beginning of training to the end of the epoch, without the
    /// time between calls. Of all fields, only this one differs when a run is repeated.
    #[cfg_attr(feature = "files", serde(with = "exact"))]
    pub seconds: f64,
}

/// One line: "epoch 3: loss 0.25, validation 0.3, 96 steps".
impl Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, steps, loss, validation_loss, .. } = self;
        write!(f, "epoch {epoch}: loss {loss}")?;
        if let Some(loss) = validation_loss {
            write!(f, ", validation {loss}")?;
        }
        write!(f, ", {steps} steps")
    }
}

/// The records of the epochs so far.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "files", serde(transparent))]
pub struct History {
    /// The records in order, beginning with epoch 1 or with the first that was not
    /// [forgotten](crate::Trainer::trim_history).
    pub records: Vec<Record>,
}

/// The names of a [`Record`]'s fields, in order.
#[cfg(feature = "files")]
const COLUMNS: [&str; 7] = ["epoch", "steps", "loss", "validation_loss", "learning_rate", "gradient_norm", "seconds"];

#[cfg(feature = "files")]
impl History {
    /// The history as CSV, with a header. A number has the digits that distinguish it from its
    /// neighbours, or is `inf`, `-inf` or `NaN`. A missing validation loss is an empty field.
    ///
    /// # Panics
    /// Never: all numbers can be written, and memory does not refuse them.
    #[must_use]
    pub fn to_csv(&self) -> String {
        // The header is written by hand, because csv writes none without a row.
        let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        writer.write_record(COLUMNS).expect("writing to memory does not fail");
        for record in &self.records {
            writer.serialize(record).expect("a record is a row of numbers");
        }
        String::from_utf8(writer.into_inner().expect("writing to memory does not fail"))
            .expect("numbers are written as UTF-8")
    }

    /// The history as a JSON list with an object for each epoch. JSON has no numbers that are not
    /// finite: they are written as the texts `"inf"`, `"-inf"` and `"NaN"`. A missing validation
    /// loss is `null`.
    ///
    /// # Panics
    /// Never: all records can be written.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("records can be written as JSON")
    }
}

/// Numbers in a text that may be JSON, which has none that are not finite: those are written as
/// texts.
#[cfg(feature = "files")]
pub(crate) mod exact {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if number.is_finite() { serializer.serialize_f64(*number) } else { serializer.collect_str(number) }
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<f64, D::Error> {
        deserializer.deserialize_any(Number)
    }

    struct Number;

    impl Visitor<'_> for Number {
        type Value = f64;

        fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
            formatter.write_str("a number")
        }

        fn visit_f64<E>(self, number: f64) -> Result<f64, E> {
            Ok(number)
        }

        fn visit_u64<E>(self, number: u64) -> Result<f64, E> {
            Ok(number as f64)
        }

        fn visit_i64<E>(self, number: i64) -> Result<f64, E> {
            Ok(number as f64)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
            text.parse().map_err(|_| E::custom(format_args!("expected a number, found {text:?}")))
        }
    }
}

/// As [`exact`], for a number that may be missing.
#[cfg(feature = "files")]
pub(crate) mod exact_or_none {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Exact(#[serde(with = "super::exact")] f64);

    pub(crate) fn serialize<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        number.map(Exact).serialize(serializer)
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Option<f64>, D::Error> {
        Ok(Option::<Exact>::deserialize(deserializer)?.map(|exact| exact.0))
    }
}
