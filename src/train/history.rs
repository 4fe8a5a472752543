//! What a run has been through: a record for each epoch.

/// SingleStep epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
pub struct Record {
    /// Counted from 1.
    pub epoch: usize,
    /// StepPolicy made up to its end, over the life of the trainer.
    pub steps: u64,
    /// The mean of ℓ over its samples, each taken when its batch came, that is before the update
    /// with it.
    #[cfg_attr(feature = "files", serde(with = "exact"))]
    pub loss: f64,
    /// The mean of ℓ over the validation set, after it.
    #[cfg_attr(feature = "files", serde(with = "exact_or_none", default))]
    pub validation_loss: Option<f64>,
    /// η of its last step.
    #[cfg_attr(feature = "files", serde(with = "exact"))]
    pub learning_rate: f64,
    /// ‖g‖ of its last step, over all of θ, before clipping.
    #[cfg_attr(feature = "files", serde(with = "exact"))]
    pub gradient_norm: f64,
    /// Wall time from the beginning of training to its end, in seconds, without the time between
    /// calls. The one number that another run does not repeat.
    #[cfg_attr(feature = "files", serde(with = "exact"))]
    pub seconds: f64,
}

/// The epochs so far.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "files", serde(transparent))]
pub struct History {
    /// In order.
    pub records: Vec<Record>,
}

/// The fields of a [`Record`], in its order.
#[cfg(feature = "files")]
const COLUMNS: [&str; 7] = ["epoch", "steps", "loss", "validation_loss", "learning_rate", "gradient_norm", "seconds"];

#[cfg(feature = "files")]
impl History {
    /// A table with a header; numbers with all digits that tell them from their neighbours, or
    /// `inf`, `-inf`, `NaN`.
    ///
    /// # Panics
    /// Never: numbers have a text, and memory takes it.
    #[must_use]
    pub fn to_csv(&self) -> String {
        // By hand, as csv writes no header without a row.
        let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        writer.write_record(COLUMNS).expect("memory takes all");
        for record in &self.records {
            writer.serialize(record).expect("a record is a row");
        }
        String::from_utf8(writer.into_inner().expect("memory takes all")).expect("numbers are text")
    }

    /// A list of objects, one for each epoch. JSON has no number for what is not finite: it stands
    /// there as the text `"inf"`, `"-inf"` or `"NaN"`, as it stands in the table. No validation
    /// loss is `null`, in the table an empty field.
    ///
    /// # Panics
    /// Never: a record has a text.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a record has a text")
    }
}

/// Coefficients in a text that may be JSON, which has none that are not finite: these are texts.
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

/// The same, or none.
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
