//! A history as text: read back, every number has the same bits.

#![cfg(feature = "files")]

use gemmprop::{History, Record};
use proptest::prelude::*;

/// All numbers of a record, the floating-point ones as bits: 0 and −0 differ, and NaN is like
/// itself.
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

fn record(number: impl Strategy<Value = f64> + Clone) -> impl Strategy<Value = Record> {
    let losses = (number.clone(), proptest::option::of(number.clone()));
    (any::<usize>(), any::<u64>(), losses, number.clone(), number.clone(), number).prop_map(
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

/// The numbers need not be finite.
fn any_number() -> impl Strategy<Value = f64> + Clone {
    prop_oneof![
        // Any bits: subnormal numbers, −0 and the largest ones are among them.
        4 => any::<u64>().prop_map(f64::from_bits).prop_filter("one NaN is as good as another", |a| !a.is_nan()),
        1 => prop::sample::select(vec![f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1.0, -1.0, 0.0, -0.0, 1e22]),
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

    #[test]
    fn a_list_reads_back_with_the_same_bits(records in proptest::collection::vec(record(any_number()), 0..20)) {
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

/// JSON has no number for them; null is what no validation loss is.
#[test]
fn what_is_not_finite_is_told_from_none() {
    let record = |loss, validation_loss| Record {
        epoch: 1,
        steps: 2,
        loss,
        validation_loss,
        learning_rate: 0.5,
        gradient_norm: 1e300,
        seconds: 3.0,
    };
    let records =
        vec![record(f64::INFINITY, None), record(f64::NEG_INFINITY, Some(f64::INFINITY)), record(1.0, Some(f64::NAN))];
    let history = History { records };
    let rows: Vec<serde_json::Value> = serde_json::from_str(&history.to_json()).unwrap();
    let losses = rows.iter().map(|row| (row["loss"].to_string(), row["validation_loss"].to_string()));
    let expected = [("\"inf\"", "null"), ("\"-inf\"", "\"inf\""), ("1.0", "\"NaN\"")];
    assert!(losses.eq(expected.map(|(loss, validation)| (loss.to_owned(), validation.to_owned()))));
    let table = "1,2,inf,,0.5,1e300,3.0\n1,2,-inf,inf,0.5,1e300,3.0\n1,2,1.0,NaN,0.5,1e300,3.0\n";
    assert!(history.to_csv().ends_with(&format!("seconds\n{table}")), "{}", history.to_csv());
}
