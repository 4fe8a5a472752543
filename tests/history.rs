//! A history as text: read back, every number has the same bits.

#![cfg(feature = "files")]

use gemmprop::{History, Record};
use proptest::prelude::*;

/// All of them, the floating-point numbers as bits: 0 and −0 differ, and NaN is like itself.
fn bits(records: &[Record]) -> Vec<[u64; 8]> {
    let record = |record: &Record| {
        let Record { epoch, steps, loss, validation_loss, learning_rate, gradient_norm, seconds } = *record;
        let validation = [u64::from(validation_loss.is_some()), validation_loss.map_or(0, f64::to_bits)];
        let [loss, eta, norm, seconds] = [loss, learning_rate, gradient_norm, seconds].map(f64::to_bits);
        [epoch as u64, steps, loss, validation[0], validation[1], eta, norm, seconds]
    };
    records.iter().map(record).collect()
}

fn from_csv(text: &str) -> Vec<Record> {
    csv::Reader::from_reader(text.as_bytes()).deserialize().map(|record| record.unwrap()).collect()
}

fn finite() -> impl Strategy<Value = f64> {
    // Any bits: subnormal numbers, −0 and the largest ones are among them.
    any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |a| a.is_finite())
}

fn record(number: impl Strategy<Value = f64> + Clone) -> impl Strategy<Value = Record> {
    let losses = (finite(), proptest::option::of(number));
    (any::<usize>(), any::<u64>(), losses, finite(), finite(), finite()).prop_map(
        |(epoch, steps, (loss, validation_loss), learning_rate, gradient_norm, seconds)| Record {
            epoch,
            steps,
            loss,
            validation_loss,
            learning_rate,
            gradient_norm,
            seconds,
        },
    )
}

/// A validation loss need not be finite.
fn any_number() -> impl Strategy<Value = f64> + Clone {
    prop_oneof![
        4 => any::<f64>().prop_filter("one NaN is as good as another", |a| !a.is_nan()),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NAN),
    ]
}

proptest! {
    #[test]
    fn a_table_reads_back_with_the_same_bits(records in proptest::collection::vec(record(any_number()), 1..20)) {
        let text = History { records: records.clone() }.to_csv();
        prop_assert!(text.starts_with("epoch,steps,loss,validation_loss,learning_rate,gradient_norm,seconds\n"));
        prop_assert_eq!(text.lines().count(), records.len() + 1);
        prop_assert_eq!(bits(&from_csv(&text)), bits(&records));
    }

    /// JSON has no infinities and no NaN.
    #[test]
    fn a_list_reads_back_with_the_same_bits(
        records in proptest::collection::vec(record(any::<f64>().prop_filter("finite", |a| a.is_finite())), 0..20),
    ) {
        let history = History { records };
        let text = history.to_json();
        let read: History = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(bits(&read.records), bits(&history.records));
        // It is the list itself, for readers that know nothing of this crate.
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(value.as_array().map(Vec::len), Some(history.records.len()));
    }
}

#[test]
fn no_epochs_are_an_empty_list_and_a_table_with_a_header_alone() {
    assert_eq!(History::default().to_json(), "[]");
    let header = "epoch,steps,loss,validation_loss,learning_rate,gradient_norm,seconds\n";
    assert_eq!(History::default().to_csv(), header);
    assert_eq!(from_csv(&History::default().to_csv()), []);
}
