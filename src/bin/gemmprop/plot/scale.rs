//! Where values lie on an axis, its ticks and their labels.

use super::{Result, Scale, Span, px};

impl Scale {
    /// Where a value lies on the axis.
    pub(super) fn position(&self, value: f64) -> f64 {
        match self {
            Self::Linear | Self::Whole | Self::Names(_) => value,
            Self::Log => value.log10(),
        }
    }

    /// A little more than the range from the smallest to the largest; it is not extended to whole
    /// decades.
    pub(super) fn with_air(&self, (low, high): Span) -> Span {
        if let Self::Names(names) = self {
            return (-0.6, names.len() as f64 - 0.4);
        }
        // Around a single value, the range has room for a tick or two.
        let air = if high > low { 0.04 * (high - low).max(1e-3) } else { 0.5 };
        (low - air, high + air)
    }

    /// Positions of the ticks, if there is room for this many labels.
    pub(super) fn ticks(&self, (low, high): Span, most: i32) -> Vec<f64> {
        let most = f64::from(most.clamp(3, 8));
        match self {
            Self::Names(names) => (0..names.len()).map(|i| i as f64).collect(),
            Self::Linear => multiples((low, high), most, 0.0),
            Self::Whole => multiples((low, high), most, 1.0),
            Self::Log if high - low >= FEW_DECADES => multiples((low, high), most, 1.0),
            Self::Log => {
                let within = |digits: &[f64]| -> Vec<f64> {
                    let decades = (low.floor() as i32)..=(high.ceil() as i32);
                    let ticks = decades.flat_map(|decade| digits.iter().map(move |x| x.log10() + f64::from(decade)));
                    ticks.filter(|tick| (low..=high).contains(tick)).collect()
                };
                let few = [&[1.0, 2.0, 5.0][..], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]].map(within);
                match few.into_iter().find(|ticks| ticks.len() >= 4) {
                    Some(ticks) => ticks,
                    // So little of a decade that the axis is nearly linear.
                    None => {
                        let values = multiples((10f64.powf(low), 10f64.powf(high)), most, 0.0);
                        values.iter().map(|x| x.log10()).collect()
                    }
                }
            }
        }
    }

    /// The labels of these ticks, on an axis of this length in pixels; empty where they would
    /// overlap. A decade's own tick comes before those within it.
    pub(super) fn labels(
        &self,
        ticks: &[f64],
        (low, high): Span,
        pixels: i32,
        extent: impl Fn(&str) -> Result<u32>,
    ) -> Result<Vec<String>> {
        let label = |position: f64| match self {
            Self::Log if high - low < FEW_DECADES => number(10f64.powf(position)),
            Self::Log => power_of_ten(position.round() as i32),
            Self::Linear | Self::Whole => number(position),
            Self::Names(names) => names[position as usize].clone(),
        };
        let mut labels = vec![String::new(); ticks.len()];
        let mut taken: Vec<Span> = Vec::new();
        let mut order: Vec<usize> = (0..ticks.len()).collect();
        order.sort_by_key(|&i| *self == Self::Log && (ticks[i] - ticks[i].round()).abs() > 1e-9);
        for i in order {
            let words = label(ticks[i]);
            let half = f64::from(extent(&words)?) / 2.0 + f64::from(px(3));
            let centre = (ticks[i] - low) / (high - low).abs() * f64::from(pixels);
            if taken.iter().all(|&(from, to)| centre + half < from || centre - half > to) {
                taken.push((centre - half, centre + half));
                labels[i] = words;
            }
        }
        Ok(labels)
    }
}

/// Multiples of 1, 2 or 5 times a power of ten, at most this many, with at least this step.
fn multiples((low, high): Span, most: f64, least: f64) -> Vec<f64> {
    let decade = 10f64.powf(((high - low) / most).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|multiple| multiple * decade);
    let step = steps.into_iter().find(|step| (high - low) / step <= most).unwrap_or(decade).max(least);
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// A logarithmic axis shorter than this gets ticks within the decades.
const FEW_DECADES: f64 = 3.5;

/// Enough digits for any tick, without the zeros that it does not need.
fn number(value: f64) -> String {
    let digits = format!("{value:.6}");
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    if digits == "-0" { "0".to_owned() } else { digits.to_owned() }
}

/// 10ⁿ
fn power_of_ten(n: i32) -> String {
    let superscript = |digit: char| match digit {
        '-' => '⁻',
        digit => ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][digit.to_digit(10).unwrap_or(0) as usize],
    };
    format!("10{}", n.to_string().chars().map(superscript).collect::<String>())
}
