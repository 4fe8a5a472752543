//! What flags of the command line stand for: their choices, and how texts are parsed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;
use clap::builder::{OsStringValueParser, TypedValueParser};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum LossKind {
    /// Half the squared distance to the target, for numbers.
    Squared,
    /// For two classes, with one output.
    Logistic,
    /// For any number of classes, with one output each.
    Softmax,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Missing {
    /// They are refused, with their row and column.
    Refuse,
    /// They become the mean of the column over the rows that are trained on; in a column of
    /// --one-hot, the share of each text.
    Mean,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClassWeight {
    /// All samples alike.
    None,
    /// n / (k n_c) for a sample of a class with n_c of the n samples, where k classes occur.
    Balanced,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Biases {
    /// The first only.
    Input,
    /// All of them.
    EveryLayer,
    /// None of them.
    None,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Rule {
    /// Plain gradient descent.
    Sgd,
    /// With momentum.
    Momentum,
    /// With Nesterov's momentum.
    Nesterov,
    /// Adam, with a step size for each parameter; with --weight-decay, AdamW.
    Adam,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum YesNo {
    Yes,
    No,
}

#[derive(Debug, Clone)]
pub(crate) struct Widths(pub(crate) Vec<usize>);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Schedule {
    Constant,
    Cosine,
    Step(usize, f64),
    Inverse(f64),
    Plateau(f64, usize),
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        fn number<T: FromStr>(text: &str) -> Result<T, String> {
            text.parse().map_err(|_| format!("{text:?} is not a valid number"))
        }
        let (name, values) = text.split_once(':').unwrap_or((text, ""));
        let values: Vec<&str> = values.split(',').filter(|value| !value.is_empty()).collect();
        match (name, values.as_slice()) {
            ("constant", []) => Ok(Self::Constant),
            ("cosine", []) => Ok(Self::Cosine),
            ("step", [every, factor]) => Ok(Self::Step(number(every)?, number(factor)?)),
            ("inverse", [power]) => Ok(Self::Inverse(number(power)?)),
            ("plateau", [factor, patience]) => Ok(Self::Plateau(number(factor)?, number(patience)?)),
            _ => Err("expected constant, cosine, step:10,0.5, inverse:0.5 or plateau:0.5,5".to_owned()),
        }
    }
}

pub(crate) fn widths(text: &str) -> Result<Widths, String> {
    let width = |text: &str| match text.trim().parse() {
        Ok(width) if width > 0 => Ok(width),
        _ => Err(format!("{text:?} is not a width; expected whole numbers from 1, separated by commas, or none")),
    };
    if text == "none" {
        Ok(Widths(Vec::new()))
    } else {
        text.split(',').map(width).collect::<Result<_, _>>().map(Widths)
    }
}

pub(crate) fn separator(text: &str) -> Result<char, String> {
    let mut characters = text.chars();
    match (text, characters.next(), characters.next()) {
        ("tab" | "\\t", ..) => Ok('\t'),
        (_, Some(one), None) if one.is_ascii() && !"\"\r\n\0".contains(one) => Ok(one),
        _ => Err("expected one ASCII character, or tab".to_owned()),
    }
}

pub(crate) fn at_least_1(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| "expected a whole number from 1".to_owned())
}

pub(crate) fn positive(text: &str) -> Result<f64, String> {
    let fine = |number: &f64| number.is_finite() && *number > 0.0;
    text.parse().ok().filter(fine).ok_or_else(|| "expected a number above 0".to_owned())
}

pub(crate) fn part(text: &str) -> Result<f64, String> {
    let inside = |part: &f64| *part > 0.0 && *part < 1.0;
    text.parse().ok().filter(inside).ok_or_else(|| "expected a number between 0 and 1".to_owned())
}

/// Parses a path with one of these endings; the name may be any that the system allows.
pub(crate) fn ending(endings: &'static [&'static str]) -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(move |path: OsString| {
        let path = PathBuf::from(path);
        let known = path.extension().is_some_and(|found| endings.iter().any(|ending| found == *ending));
        if known { Ok(path) } else { Err(format!("expected a file that ends in .{}", endings.join(" or ."))) }
    })
}
