//! What a run has been through: a record for each epoch.

/// One epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "files", derive(serde::Serialize, serde::Deserialize))]
pub struct Record {
    /// Counted from 1.
    pub epoch: usize,
    /// Steps made up to its end, over the life of the trainer.
    pub steps: u64,
    /// The mean of ℓ over its samples, each taken when its batch came, that is before the update with it.
    pub loss: f64,
    /// The mean of ℓ over the validation set, after it.
    pub validation_loss: Option<f64>,
    /// η of its last step.
    pub learning_rate: f64,
    /// ‖g‖ of its last step, over all of θ, before clipping.
    pub gradient_norm: f64,
    /// Wall time from the beginning of training to its end, in seconds, without the time between calls. The one number that another run
    /// does not repeat.
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
    /// A table with a header; numbers with all digits that tell them from their neighbours.
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

    /// A list of objects, one for each epoch.
    ///
    /// # Panics
    /// Never: a record has a text.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a record has a text")
    }
}
