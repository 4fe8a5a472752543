//! Decides whether a target is classes or numbers, by one rule for the texts of a table and for the
//! whole numbers of an array.

use std::borrow::Cow;
use std::collections::BTreeSet;

/// The largest number of different whole numbers that count as classes.
pub(crate) const FEW: usize = 20;

/// What a target is, judged by its values alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guess {
    /// This number of classes: texts, or whole numbers of at most [`FEW`] values, each of which
    /// occurs at least twice on average.
    Classes(usize),
    Numbers,
    /// Whole numbers with this number of different values.
    Whole(usize),
    /// Texts with this number of different values, which is so large that they probably name the
    /// rows.
    TooMany(usize),
    /// Numbers, except in some rows, of which this is the first.
    Odd(usize),
}

/// Texts that are not numbers but may stand in a column of numbers.
const MISSING: [&str; 10] = ["", "-", "--", ".", "?", "na", "n/a", "none", "null", "nil"];

/// The finite number that the text is, if it is one.
pub(crate) fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Whether the text is a number written with a decimal comma, such as 0,5.
pub(crate) fn has_decimal_comma(text: &str) -> bool {
    text.matches(',').count() == 1 && number(&text.replacen(',', ".", 1)).is_some()
}

/// Whether the text stands in a column of numbers where there is none.
pub(crate) fn is_missing(text: &str) -> bool {
    // The parser takes NaN for a number.
    MISSING.contains(&text.to_lowercase().as_str()) || text.parse::<f64>().is_ok_and(f64::is_nan)
}

pub(crate) fn guess(texts: &[Cow<str>]) -> Guess {
    let values: BTreeSet<&str> = texts.iter().map(AsRef::as_ref).collect();
    let repeated = 2 * values.len() <= texts.len();
    let few = values.len() <= FEW && repeated;
    let whole = |text: &&str| text.parse::<i128>().is_ok();
    let Some(odd) = texts.iter().position(|text| number(text).is_none()) else {
        return match values.iter().all(whole) {
            true if few => Guess::Classes(values.len()),
            true => Guess::Whole(values.len()),
            false => Guess::Numbers,
        };
    };
    if !values.iter().any(|text| number(text).is_some() || has_decimal_comma(text)) {
        return if repeated { Guess::Classes(values.len()) } else { Guess::TooMany(values.len()) };
    }
    // Such as 1, 2, 3a and 3b.
    let infinite = |text: &str| text.parse::<f64>().is_ok_and(f64::is_infinite);
    let word = |text: &&str| number(text).is_none() && !has_decimal_comma(text) && !is_missing(text) && !infinite(text);
    if few && values.iter().all(|text| whole(text) || word(text)) {
        Guess::Classes(values.len())
    } else {
        Guess::Odd(odd)
    }
}
