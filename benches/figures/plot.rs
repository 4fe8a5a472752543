//! Figures as data, and one function that draws any of them, as SVG and as PNG.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use image::RgbImage;
use image::imageops::thumbnail;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontTransform, RGBColor};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Pixels of a figure.
const SIZE: (u32, u32) = (1600, 940);

/// A figure is drawn so many times as large, and the PNG averaged down: that makes the bitmap's edges smooth.
const SCALE: u32 = 2;

/// Pixels of the figure as those of the drawing.
const fn px(pixels: i32) -> i32 {
    pixels * SCALE as i32
}

/// The embedded font's name; a browser that shows the SVG takes the first of these that it has.
const FONT: &str = "DejaVu Sans, Verdana, sans-serif";

const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0x50, 0x50, 0x50);
const GRID: RGBColor = RGBColor(0xe2, 0xe2, 0xe2);

/// Okabe and Ito's colours, which colour-blind readers can tell apart.
pub(crate) mod colour {
    use super::RGBColor;
    pub(crate) const VERMILION: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
    pub(crate) const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
    pub(crate) const GREEN: RGBColor = RGBColor(0x00, 0x9e, 0x73);
    pub(crate) const PURPLE: RGBColor = RGBColor(0xcc, 0x79, 0xa7);
    pub(crate) const ORANGE: RGBColor = RGBColor(0xe6, 0x9f, 0x00);
    pub(crate) const SKY: RGBColor = RGBColor(0x56, 0xb4, 0xe9);
    pub(crate) const GREY: RGBColor = RGBColor(0x88, 0x88, 0x88);
}

/// A figure: panels side by side over one caption.
pub(crate) struct Figure {
    /// Of the files.
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) panels: Vec<Panel>,
    pub(crate) caption: String,
}

pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
}

pub(crate) struct Axis {
    pub(crate) label: &'static str,
    pub(crate) scale: Scale,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    /// Of things that are counted.
    Whole,
    Log,
    /// Things and not numbers, at 0, 1, …
    Names(&'static [&'static str]),
}

/// Marks, a line, a band and cells, each where it has points; one entry of the legend.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series {
    pub(crate) label: String,
    pub(crate) colour: RGBColor,
    pub(crate) marker: Marker,
    pub(crate) marks: Vec<(f64, f64)>,
    pub(crate) stroke: Stroke,
    pub(crate) line: Vec<(f64, f64)>,
    /// x, lower and upper edge.
    pub(crate) band: Vec<(f64, f64, f64)>,
    /// Filled rectangles, by two opposite corners: intervals, or one level of a map.
    pub(crate) cells: Vec<[(f64, f64); 2]>,
}

/// Shapes that stay distinct where points coincide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Marker {
    #[default]
    Diamond,
    Circle,
    Square,
    Cross,
    Triangle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Stroke {
    #[default]
    Solid,
    Dashed,
}

/// A coordinate with ticks of our own. (plotters has a decorator for that, which does not accept `f64`.)
struct Ticked {
    range: (f64, f64),
    ticks: Vec<f64>,
}

impl Ranged for Ticked {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, &value: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (value - self.range.0) / (self.range.1 - self.range.0);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.0..self.range.1
    }
}

impl Figure {
    /// Writes `name`.svg and `name`.png.
    pub(crate) fn save(&self, directory: &Path) -> Result {
        let path = |extension: &str| directory.join(self.name).with_extension(extension);
        std::fs::write(path("svg"), self.svg()?)?;
        self.png()?.save(path("png"))?;
        Ok(())
    }

    pub(crate) fn svg(&self) -> Result<String> {
        crate::font::register(FONT);
        let (width, height) = (SIZE.0 * SCALE, SIZE.1 * SCALE);
        let mut svg = String::new();
        self.draw(&SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area())?;
        // The size in which it is shown; the view box stays that of the drawing.
        let (drawn, shown) = (size_attributes((width, height)), size_attributes(SIZE));
        Ok(svg.replacen(&drawn, &shown, 1))
    }

    pub(crate) fn png(&self) -> Result<RgbImage> {
        crate::font::register(FONT);
        let (width, height) = (SIZE.0 * SCALE, SIZE.1 * SCALE);
        let mut pixels = RgbImage::new(width, height);
        self.draw(&BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area())?;
        Ok(thumbnail(&pixels, SIZE.0, SIZE.1))
    }

    fn draw<B: DrawingBackend>(&self, root: &DrawingArea<B, Shift>) -> Result
    where
        B::ErrorType: 'static,
    {
        root.fill(&WHITE)?;
        let (width, height) = root.dim_in_pixel();
        let (title, rest) = root.split_vertically(px(58));
        title.draw(&Text::new(self.title.as_str(), (width as i32 / 2, px(36)), text(33, HPos::Center)))?;
        let small = text(18, HPos::Left).color(&FAINT);
        let lines = wrapped(root, &self.caption, &small, width - px(60) as u32)?;
        let caption_height = px(26) * lines.len() as i32 + px(18);
        let (panels, caption) = rest.split_vertically(height as i32 - px(58) - caption_height);
        for (i, line) in lines.iter().enumerate() {
            caption.draw(&Text::new(line.as_str(), (px(30), px(20) + px(26) * i as i32), small.clone()))?;
        }
        for (panel, area) in self.panels.iter().zip(panels.split_evenly((1, self.panels.len()))) {
            panel.draw(&area)?;
        }
        root.present()?;
        Ok(())
    }
}

/// Pixels left of a plot, for the labels of its axis.
const LEFT: i32 = 104;

impl Panel {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result
    where
        B::ErrorType: 'static,
    {
        let area = area.margin(0, 0, px(14), px(22));
        let columns = self.legend_columns(&area)?;
        let legend_height = px(34) * self.series.len().div_ceil(columns) as i32;
        let (head, plot) = area.split_vertically(px(46) + legend_height);
        let (width, _) = head.dim_in_pixel();
        let left = px(LEFT);
        head.draw(&Text::new(self.title.as_str(), (left, px(18)), text(26, HPos::Left)))?;
        // Above the plot and not in it, so that it can hide nothing.
        for (i, series) in self.series.iter().enumerate() {
            let (row, column) = ((i / columns) as i32, (i % columns) as i32);
            let corner = (left + column * (width as i32 - left) / columns as i32, px(56) + px(34) * row);
            series.draw_legend(&head, corner)?;
        }
        let (x, y) = self.ranges();
        let mut chart = ChartBuilder::on(&plot)
            .margin_top(px(8))
            .margin_right(px(12))
            .x_label_area_size(px(76))
            .y_label_area_size(px(LEFT))
            .build_cartesian_2d(
                Ticked { range: x, ticks: self.x.scale.ticks(x) },
                Ticked { range: y, ticks: self.y.scale.ticks(y) },
            )?;
        chart
            .configure_mesh()
            .set_all_tick_mark_size(px(7))
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID.stroke_width(px(1) as u32))
            .axis_style(INK.stroke_width(px(1) as u32))
            .label_style(text(22, HPos::Left))
            .x_label_style(text(if matches!(self.x.scale, Scale::Names(_)) { 18 } else { 22 }, HPos::Left))
            .axis_desc_style(text(25, HPos::Left))
            .x_label_formatter(&|at| self.x.scale.tick_label(*at, x))
            .y_label_formatter(&|at| self.y.scale.tick_label(*at, y))
            .x_desc(self.x.label)
            .y_desc(self.y.label)
            .draw()?;
        let at = |&(x, y): &(f64, f64)| (self.x.scale.position(x), self.y.scale.position(y));
        let has_place = |point: &(f64, f64)| is_place(at(point));
        for series in &self.series {
            for [from, to] in series.cells.iter().filter(|cell| cell.iter().all(has_place)) {
                chart.draw_series([Rectangle::new([at(from), at(to)], series.colour.filled())])?;
            }
        }
        for series in &self.series {
            let lower = series.band.iter().map(|&(x, lower, _)| at(&(x, lower)));
            let upper = series.band.iter().rev().map(|&(x, _, upper)| at(&(x, upper)));
            let edge: Vec<_> = lower.chain(upper).filter(|&place| is_place(place)).collect();
            if !edge.is_empty() {
                chart.draw_series([Polygon::new(edge, series.colour.mix(0.22).filled())])?;
            }
        }
        for series in &self.series {
            let style = series.colour.stroke_width(px(3) as u32);
            // A line is broken where it has no place.
            for line in series.line.split(|point| !has_place(point)).filter(|line| !line.is_empty()) {
                let line = line.iter().map(at);
                match series.stroke {
                    Stroke::Solid => chart.draw_series(LineSeries::new(line, style))?,
                    Stroke::Dashed => chart.draw_series(DashedLineSeries::new(line, px(12), px(9), style))?,
                };
            }
        }
        for series in &self.series {
            for point in series.marks.iter().filter(|point| has_place(point)) {
                for part in series.marker.parts() {
                    chart.draw_series([EmptyElement::at(at(point)) + PathElement::new(part, series.pen())])?;
                }
            }
        }
        Ok(())
    }

    /// As many columns as the longest entry leaves room for.
    fn legend_columns<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<usize>
    where
        B::ErrorType: 'static,
    {
        let mut longest = 1;
        for series in &self.series {
            longest = longest.max(area.estimate_text_size(&series.label, &text(21, HPos::Left))?.0);
        }
        Ok(((area.dim_in_pixel().0.saturating_sub(px(LEFT) as u32)) / (longest + px(64) as u32)).clamp(1, 3) as usize)
    }

    /// What the axes span: all points that have a place on them, with a little air; whole decades are not forced.
    pub(crate) fn ranges(&self) -> ((f64, f64), (f64, f64)) {
        let points = self.series.iter().flat_map(|series| {
            let band = series.band.iter().flat_map(|&(x, lower, upper)| [(x, lower), (x, upper)]);
            let cells = series.cells.iter().flatten().copied();
            series.marks.iter().chain(&series.line).copied().chain(band).chain(cells)
        });
        let (mut x, mut y) = ((f64::INFINITY, f64::NEG_INFINITY), (f64::INFINITY, f64::NEG_INFINITY));
        let places = points.map(|(px, py)| (self.x.scale.position(px), self.y.scale.position(py)));
        for (px, py) in places.filter(|&place| is_place(place)) {
            x = (x.0.min(px), x.1.max(px));
            y = (y.0.min(py), y.1.max(py));
        }
        if x.0 > x.1 {
            // There is none.
            (x, y) = ((0.0, 0.0), (0.0, 0.0));
        }
        let with_air = |(low, high): (f64, f64)| {
            // About a single value, enough for a tick or two.
            let air = if high > low { 0.04 * (high - low).max(1e-3) } else { 0.5 };
            (low - air, high + air)
        };
        (with_air(x), with_air(y))
    }
}

/// NaN, infinities, and on a logarithmic axis what is not positive have no place.
fn is_place((x, y): (f64, f64)) -> bool {
    x.is_finite() && y.is_finite()
}

impl Series {
    fn pen(&self) -> ShapeStyle {
        self.colour.stroke_width(px(3) as u32)
    }

    fn draw_legend<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, (x, y): (i32, i32)) -> Result
    where
        B::ErrorType: 'static,
    {
        if !self.band.is_empty() {
            area.draw(&Rectangle::new([(x, y - px(10)), (x + px(46), y + px(10))], self.colour.mix(0.22).filled()))?;
        }
        if !self.cells.is_empty() && self.marks.is_empty() {
            area.draw(&Rectangle::new([(x, y - px(10)), (x + px(46), y + px(10))], self.colour.filled()))?;
        }
        if !self.line.is_empty() {
            let dashes = match self.stroke {
                Stroke::Solid => vec![(0, 46)],
                Stroke::Dashed => vec![(0, 12), (17, 29), (34, 46)],
            };
            for (from, to) in dashes {
                area.draw(&PathElement::new([(x + px(from), y), (x + px(to), y)], self.pen()))?;
            }
        }
        if !self.marks.is_empty() {
            for part in self.marker.parts() {
                area.draw(&(EmptyElement::at((x + px(23), y)) + PathElement::new(part, self.pen())))?;
            }
        }
        area.draw(&Text::new(self.label.as_str(), (x + px(56), y), text(21, HPos::Left)))?;
        Ok(())
    }
}

impl Marker {
    /// Its outline around the origin.
    fn parts(self) -> Vec<Vec<(i32, i32)>> {
        let outline = |points: &[(i32, i32)]| points.iter().map(|&(x, y)| (px(x), px(y))).collect();
        match self {
            Self::Diamond => vec![outline(&[(0, -10), (10, 0), (0, 10), (-10, 0), (0, -10)])],
            Self::Circle => {
                let angles = (0..=48).map(|i| f64::from(i) * std::f64::consts::TAU / 48.0);
                let radius = f64::from(px(7));
                vec![angles.map(|a| ((radius * a.cos()).round() as i32, (radius * a.sin()).round() as i32)).collect()]
            }
            Self::Square => vec![outline(&[(-11, -11), (11, -11), (11, 11), (-11, 11), (-11, -11)])],
            Self::Cross => vec![outline(&[(-9, -9), (9, 9)]), outline(&[(-9, 9), (9, -9)])],
            Self::Triangle => vec![outline(&[(-11, 8), (0, -11), (11, 8), (-11, 8)])],
        }
    }
}

impl Scale {
    /// Where a value lies on the axis.
    fn position(self, value: f64) -> f64 {
        match self {
            Self::Linear | Self::Whole | Self::Names(_) => value,
            Self::Log => value.log10(),
        }
    }

    /// Positions of the ticks: multiples of 1, 2 or 5 times a power of ten, at most eight; on a logarithmic axis decades, or
    /// 1, 2 and 5 in each where there are few.
    fn ticks(self, (low, high): (f64, f64)) -> Vec<f64> {
        if let Self::Names(names) = self {
            return (0..names.len()).map(|i| i as f64).collect();
        }
        if self == Self::Log && high - low < FEW_DECADES {
            let decades = (low.floor() as i32)..=(high.ceil() as i32);
            let ticks = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|digit: f64| digit.log10() + f64::from(decade)));
            return ticks.filter(|tick| (low..=high).contains(tick)).collect();
        }
        let decade = 10f64.powf(((high - low) / 8.0).log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|multiple| multiple * decade);
        let step = steps.into_iter().find(|step| (high - low) / step <= 8.0).unwrap_or(decade);
        let step = if matches!(self, Self::Log | Self::Whole) { step.max(1.0) } else { step };
        let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
        (first..=last).map(|i| i as f64 * step).collect()
    }

    /// The label of a tick on an axis that spans so much.
    fn tick_label(self, position: f64, (low, high): (f64, f64)) -> String {
        match self {
            Self::Log if high - low < FEW_DECADES => number(10f64.powf(position)),
            Self::Log => power_of_ten(position.round() as i32),
            Self::Linear | Self::Whole => number(position),
            Self::Names(names) => names[position as usize].to_owned(),
        }
    }
}

/// A logarithmic axis shorter than this gets ticks within the decades.
const FEW_DECADES: f64 = 2.5;

/// Enough digits for any tick, without the zeros that it does not need.
fn number(value: f64) -> String {
    let digits = format!("{value:.6}");
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    if digits == "-0" { "0".to_owned() } else { digits.to_owned() }
}

fn size_attributes((width, height): (u32, u32)) -> String {
    format!(r#"width="{width}" height="{height}""#)
}

/// 10ⁿ
fn power_of_ten(n: i32) -> String {
    let superscript = |digit: char| match digit {
        '-' => '⁻',
        digit => ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][digit.to_digit(10).unwrap_or(0) as usize],
    };
    format!("10{}", n.to_string().chars().map(superscript).collect::<String>())
}

fn text(size: i32, h_pos: HPos) -> TextStyle<'static> {
    TextStyle::from((FONT, px(size)).into_font().transform(FontTransform::None))
        .color(&INK)
        .pos(Pos::new(h_pos, VPos::Center))
}

/// The text in lines that fit into so many pixels.
fn wrapped<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    words: &str,
    style: &TextStyle,
    width: u32,
) -> Result<Vec<String>>
where
    B::ErrorType: 'static,
{
    let mut lines = vec![String::new()];
    for word in words.split_whitespace() {
        let line = lines.last_mut().expect("starts with one");
        let longer = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
        if area.estimate_text_size(&longer, style)?.0 <= width {
            *line = longer;
        } else {
            lines.push(word.to_owned());
        }
    }
    Ok(lines)
}
