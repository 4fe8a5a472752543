//! Figures as data, and one function that draws any of them, as SVG and as PNG.

use std::error::Error;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use plotters::style::FontTransform;
pub use plotters::style::RGBColor;
use plotters::style::text_anchor::{HPos, Pos, VPos};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Pixels of a figure's width: where a page shows it at two thirds of that, its smallest text still
/// has twelve pixels.
const WIDTH: u32 = 1280;

/// Pixels of the height of a figure's title, of a panel's title, and of a panel's plot with the
/// labels below it.
const TITLE: i32 = 58;
const HEAD: i32 = 46;
const PLOT: i32 = 530;

/// A figure is drawn this many times larger, and the PNG averaged down, which makes the bitmap's
/// edges smooth.
const SCALE: u32 = 2;

/// Pixels of the figure as those of the drawing.
const fn px(pixels: i32) -> i32 {
    pixels * SCALE as i32
}

/// The embedded font's name; a browser that shows the SVG takes the first of these that it has.
const FONT: &str = "DejaVu Sans, Verdana, sans-serif";

/// Makes the embedded font known: a machine may have none.
fn register_font() {
    if plotters::style::register_font(FONT, FontStyle::Normal, dejavu::sans::regular()).is_err() {
        unreachable!("the embedded font is a font");
    }
}

const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0x50, 0x50, 0x50);
const GRID: RGBColor = RGBColor(0xe2, 0xe2, 0xe2);

/// Okabe and Ito's colours, which colour-blind readers can tell apart.
pub mod colour {
    use super::RGBColor;
    pub const VERMILION: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
    pub const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
    pub const GREEN: RGBColor = RGBColor(0x00, 0x9e, 0x73);
    pub const PURPLE: RGBColor = RGBColor(0xcc, 0x79, 0xa7);
    pub const ORANGE: RGBColor = RGBColor(0xe6, 0x9f, 0x00);
    pub const SKY: RGBColor = RGBColor(0x56, 0xb4, 0xe9);
    pub const GREY: RGBColor = RGBColor(0x88, 0x88, 0x88);
}

/// A figure: panels in rows over one caption.
///
/// Equal axes share a range: panels whose axes have one label and one scale span one
/// range there, so that they can be compared. If all panels have one legend, it is drawn once,
/// above them.
#[derive(Debug)]
pub struct Figure {
    /// The name of the files.
    pub name: &'static str,
    pub title: String,
    pub panels: Vec<Panel>,
    pub caption: String,
}

/// A panel; one with cells is a map, in which a unit is as long on both axes.
#[derive(Debug)]
pub struct Panel {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

#[derive(Debug)]
pub struct Axis {
    pub label: &'static str,
    pub scale: Scale,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scale {
    Linear,
    /// A linear axis of counts, with ticks at whole numbers.
    Whole,
    Log,
    /// Categories instead of numbers, at 0, 1, …; on a vertical axis the first is at the top.
    Names(Vec<String>),
}

/// Marks, a line, bars, a band and cells, each where it has points; one entry of the legend, if it
/// has a label.
#[derive(Debug, Clone, Default)]
pub struct Series {
    pub label: String,
    pub colour: RGBColor,
    pub marker: Marker,
    pub marks: Vec<(f64, f64)>,
    pub stroke: Stroke,
    pub line: Vec<(f64, f64)>,
    /// x, lower and upper edge.
    pub band: Vec<(f64, f64, f64)>,
    /// Intervals, from one end to the other.
    pub bars: Vec<[(f64, f64); 2]>,
    /// Filled rectangles, by two opposite corners: one level of a map.
    pub cells: Vec<[(f64, f64); 2]>,
}

/// Shapes that stay distinct where points coincide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Marker {
    #[default]
    Diamond,
    Circle,
    Square,
    Cross,
    Triangle,
    Plus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stroke {
    #[default]
    Solid,
    Dashed,
}

/// A coordinate with ticks of our own. (plotters has a decorator for that, which does not accept
/// `f64`.)
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

/// The range of an axis, as positions on it.
type Span = (f64, f64);

impl Figure {
    /// Writes `name`.svg and `name`.png.
    pub fn save(&self, directory: &Path) -> Result {
        let path = |extension: &str| directory.join(self.name).with_extension(extension);
        std::fs::write(path("svg"), self.svg()?)?;
        std::fs::write(path("png"), self.png()?)?;
        Ok(())
    }

    pub fn svg(&self) -> Result<String> {
        register_font();
        let size = self.size()?;
        let drawn = (size.0 * SCALE, size.1 * SCALE);
        let mut svg = String::new();
        self.draw(&SVGBackend::with_string(&mut svg, drawn).into_drawing_area())?;
        // The size in which it is shown; the view box stays that of the drawing.
        let shown = format!(r#"role="img" {}"#, size_attributes(size));
        let svg = svg.replacen(&size_attributes(drawn), &shown, 1);
        let words = format!("<title>{}</title>\n<desc>{}</desc>\n", escaped(&self.title), escaped(&self.description()));
        let inside = svg.find("<svg").and_then(|start| Some(start + svg[start..].find('>')? + 1)).ok_or("no <svg>")?;
        Ok(format!("{}\n{words}{}", &svg[..inside], svg[inside..].trim_start()))
    }

    /// What the figure shows, for those who do not see it.
    fn description(&self) -> String {
        let panel = |panel: &Panel| {
            let labels: Vec<&str> = panel.legend().map(|series| series.label.as_str()).collect();
            let axes = match (panel.y.label, panel.x.label) {
                ("", x) => x.to_owned(),
                (y, x) => format!("{y} against {x}"),
            };
            format!("{}: {axes} ({}). ", panel.title, labels.join("; "))
        };
        self.panels.iter().map(panel).chain([self.caption.clone()]).collect()
    }

    /// The bytes of a PNG file.
    pub fn png(&self) -> Result<Vec<u8>> {
        register_font();
        let (width, height) = self.size()?;
        let drawn = (width * SCALE, height * SCALE);
        let mut pixels = vec![0; (3 * drawn.0 * drawn.1) as usize];
        self.draw(&BitMapBackend::with_buffer(&mut pixels, drawn).into_drawing_area())?;
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header()?.write_image_data(&averaged(&pixels, width as usize, height as usize))?;
        Ok(bytes)
    }

    fn size(&self) -> Result<(u32, u32)> {
        let Legends { shared, of_row } = self.legends()?;
        let panels: i32 = of_row.iter().map(|legend| HEAD + PLOT + legend / SCALE as i32).sum();
        let caption = CAPTION_LINE * (self.caption_lines()?.len() as i32 + 1);
        Ok((WIDTH, (TITLE + shared / SCALE as i32 + panels + caption) as u32))
    }

    fn legends(&self) -> Result<Legends> {
        let labels = |panel: &Panel| panel.legend().map(|series| series.label.clone()).collect::<Vec<_>>();
        let columns = self.columns();
        let rows = self.panels.chunks(columns);
        if self.panels.len() > 1 && self.panels[1..].iter().all(|panel| labels(panel) == labels(&self.panels[0])) {
            let shared = self.panels[0].legend_height(WIDTH * SCALE)? + px(12);
            return Ok(Legends { shared, of_row: vec![0; rows.len()] });
        }
        let mut of_row = Vec::new();
        for row in rows {
            let heights = row.iter().map(|panel| panel.legend_height(WIDTH * SCALE / columns as u32));
            of_row.push(heights.collect::<Result<Vec<i32>>>()?.into_iter().max().unwrap_or(0));
        }
        Ok(Legends { shared: 0, of_row })
    }

    /// Panels in a row.
    fn columns(&self) -> usize {
        match self.panels.len() {
            few @ 0..=3 => few.max(1),
            4 => 2,
            _ => 3,
        }
    }

    fn caption_lines(&self) -> Result<Vec<String>> {
        wrapped(&self.caption, &text(19, HPos::Left), px(WIDTH as i32 - 60) as u32)
    }

    fn draw<B: DrawingBackend>(&self, root: &DrawingArea<B, Shift>) -> Result
    where
        B::ErrorType: 'static,
    {
        root.fill(&WHITE)?;
        let (width, height) = root.dim_in_pixel();
        let (title, rest) = root.split_vertically(px(TITLE));
        title.draw(&Text::new(self.title.as_str(), (width as i32 / 2, px(36)), text(32, HPos::Center)))?;
        let lines = self.caption_lines()?;
        let caption_height = px(CAPTION_LINE) * (lines.len() as i32 + 1);
        let (mut panels, caption) = rest.split_vertically(height as i32 - px(TITLE) - caption_height);
        for (i, line) in lines.iter().enumerate() {
            let at = (px(30), px(20) + px(CAPTION_LINE) * i as i32);
            caption.draw(&Text::new(line.as_str(), at, text(19, HPos::Left).color(&FAINT)))?;
        }
        let Legends { shared, of_row } = self.legends()?;
        if shared > 0 {
            let legend;
            (legend, panels) = panels.split_vertically(shared);
            self.panels[0].draw_legend(&legend, px(14))?;
        }
        let (columns, spans) = (self.columns(), self.spans());
        let rows = self.panels.chunks(columns).zip(spans.chunks(columns));
        for ((row, spans), legend) in rows.zip(of_row) {
            let area;
            (area, panels) = panels.split_vertically(px(HEAD + PLOT) + legend);
            for ((panel, &spans), area) in row.iter().zip(spans).zip(area.split_evenly((1, columns))) {
                panel.draw(&area, spans, (shared == 0).then_some(legend))?;
            }
        }
        root.present()?;
        Ok(())
    }

    /// What the axes of each panel span.
    fn spans(&self) -> Vec<(Span, Span)> {
        let mut spans: Vec<(Span, Span)> = self.panels.iter().map(Panel::ranges).collect();
        let widest =
            |mine: &Axis, axis: fn(&Panel) -> &Axis, span: fn(&(Span, Span)) -> Span, spans: &[(Span, Span)]| {
                let same = self
                    .panels
                    .iter()
                    .zip(spans)
                    .filter(|(panel, _)| (axis(panel).label, &axis(panel).scale) == (mine.label, &mine.scale));
                same.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (_, both)| {
                    (low.min(span(both).0), high.max(span(both).1))
                })
            };
        let own = spans.clone();
        for (panel, (x, y)) in self.panels.iter().zip(&mut spans) {
            *x = panel.x.scale.with_air(widest(&panel.x, |panel| &panel.x, |both| both.0, &own));
            *y = panel.y.scale.with_air(widest(&panel.y, |panel| &panel.y, |both| both.1, &own));
            if matches!(panel.y.scale, Scale::Names(_)) {
                *y = (y.1, y.0);
            }
        }
        spans
    }
}

/// Pixels of the drawing that legends take: one for all panels, or one for each row of panels.
struct Legends {
    shared: i32,
    of_row: Vec<i32>,
}

/// Pixels of a line of the caption, and of one of a legend.
const CAPTION_LINE: i32 = 27;
const LEGEND_LINE: i32 = 34;

/// Pixels left of a plot, for the labels of its axis where they are numbers; and below it.
const LEFT: i32 = 104;
const BELOW: i32 = 76;

impl Panel {
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        (x, y): (Span, Span),
        legend_height: Option<i32>,
    ) -> Result
    where
        B::ErrorType: 'static,
    {
        let area = area.margin(0, px(14), px(10), px(14));
        let left = self.left()?;
        let (head, plot) = area.split_vertically(px(HEAD) + legend_height.unwrap_or(0));
        head.draw(&Text::new(self.title.as_str(), (left, px(18)), text(26, HPos::Left)))?;
        // Above the plot and not in it, so that it can hide nothing.
        if legend_height.is_some() {
            self.draw_legend(&head, px(56))?;
        }
        let (width, height) = plot.dim_in_pixel();
        let (width, height) = (width as i32 - left - px(16), height as i32 - px(BELOW) - px(8));
        // Pixels taken from a map's longer side.
        let (mut narrower, mut lower) = (0, 0);
        if self.series.iter().any(|series| !series.cells.is_empty()) {
            let unit = (f64::from(width) / (x.1 - x.0)).min(f64::from(height) / (y.1 - y.0));
            narrower = width - (unit * (x.1 - x.0)) as i32;
            lower = height - (unit * (y.1 - y.0)) as i32;
        }
        let x_ticks = self.x.scale.ticks(x, (width - narrower) / px(50));
        let y_ticks = self.y.scale.ticks(y, (height - lower) / px(40));
        let label = text(22, HPos::Left);
        let x_labels = self.x.scale.labels(&x_ticks, x, width - narrower, |words| text_width(words, &label))?;
        let y_labels = self.y.scale.labels(&y_ticks, y, height - lower, |_| Ok(px(16) as u32))?;
        let label_at = |ticks: &[f64], labels: &[String], at: f64| {
            ticks.iter().position(|&tick| tick == at).map_or(String::new(), |i| labels[i].clone())
        };
        let mut chart = ChartBuilder::on(&plot)
            .margin_top(px(8))
            .margin_right(px(16) + narrower)
            .margin_bottom(lower)
            .x_label_area_size(px(BELOW))
            .y_label_area_size(left)
            .build_cartesian_2d(
                Ticked { range: x, ticks: x_ticks.clone() },
                Ticked { range: y, ticks: y_ticks.clone() },
            )?;
        chart
            .configure_mesh()
            .set_all_tick_mark_size(px(7))
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID.stroke_width(px(1) as u32))
            .axis_style(INK.stroke_width(px(1) as u32))
            .label_style(label.clone())
            .axis_desc_style(text(24, HPos::Left))
            .x_label_formatter(&|&at| label_at(&x_ticks, &x_labels, at))
            .y_label_formatter(&|&at| label_at(&y_ticks, &y_labels, at))
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
            for bar in series.bars.iter().filter(|bar| bar.iter().all(has_place)) {
                chart.draw_series([PathElement::new(bar.iter().map(at).collect::<Vec<_>>(), series.pen())])?;
            }
            for point in series.marks.iter().filter(|point| has_place(point)) {
                for part in series.marker.parts() {
                    chart.draw_series([EmptyElement::at(at(point)) + PathElement::new(part, series.pen())])?;
                }
            }
        }
        Ok(())
    }

    /// Pixels left of the plot.
    fn left(&self) -> Result<i32> {
        let Scale::Names(names) = &self.y.scale else { return Ok(px(LEFT)) };
        let mut widest = 0;
        for name in names {
            widest = widest.max(text_width(name, &text(22, HPos::Left))?);
        }
        Ok(widest as i32 + px(if self.y.label.is_empty() { 26 } else { 60 }))
    }

    /// The series that the legend names.
    fn legend(&self) -> impl Iterator<Item = &Series> {
        self.series.iter().filter(|series| !series.label.is_empty())
    }

    /// The number of columns that the longest entry leaves room for in this width in pixels.
    fn legend_columns(&self, width: u32) -> Result<usize> {
        let mut longest = 1;
        for series in self.legend() {
            longest = longest.max(text_width(&series.label, &text(21, HPos::Left))?);
        }
        let room = width.saturating_sub(self.left()? as u32 + px(14) as u32);
        Ok((room / (longest + px(64) as u32)).clamp(1, 4) as usize)
    }

    fn legend_height(&self, width: u32) -> Result<i32> {
        Ok(px(LEGEND_LINE) * self.legend().count().div_ceil(self.legend_columns(width)?) as i32)
    }

    /// Draws the legend from this height on.
    fn draw_legend<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, top: i32) -> Result
    where
        B::ErrorType: 'static,
    {
        let (width, left) = (area.dim_in_pixel().0, self.left()?);
        let columns = self.legend_columns(width)?;
        for (i, series) in self.legend().enumerate() {
            let (row, column) = ((i / columns) as i32, (i % columns) as i32);
            let corner = (left + column * (width as i32 - left) / columns as i32, top + px(LEGEND_LINE) * row);
            series.draw_legend(area, corner)?;
        }
        Ok(())
    }

    /// The smallest and largest position on each axis, over all points that have one.
    pub fn ranges(&self) -> (Span, Span) {
        let points = self.series.iter().flat_map(|series| {
            let band = series.band.iter().flat_map(|&(x, lower, upper)| [(x, lower), (x, upper)]);
            let corners = series.cells.iter().chain(&series.bars).flatten().copied();
            series.marks.iter().chain(&series.line).copied().chain(band).chain(corners)
        });
        let (mut x, mut y) = ((f64::INFINITY, f64::NEG_INFINITY), (f64::INFINITY, f64::NEG_INFINITY));
        let places = points.map(|(px, py)| (self.x.scale.position(px), self.y.scale.position(py)));
        for (px, py) in places.filter(|&place| is_place(place)) {
            x = (x.0.min(px), x.1.max(px));
            y = (y.0.min(py), y.1.max(py));
        }
        // Without any points, the range is arbitrary.
        if x.0 > x.1 { ((0.0, 0.0), (0.0, 0.0)) } else { (x, y) }
    }
}

/// NaN, infinities, and on a logarithmic axis what is not positive have no place.
fn is_place((x, y): (f64, f64)) -> bool {
    x.is_finite() && y.is_finite()
}

impl Series {
    fn pen(&self) -> ShapeStyle {
        self.colour.stroke_width(px(5) as u32 / 2)
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
        if !self.bars.is_empty() && self.line.is_empty() {
            area.draw(&PathElement::new([(x + px(4), y), (x + px(42), y)], self.pen()))?;
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
    /// The outline of the marker around the origin.
    fn parts(self) -> Vec<Vec<(i32, i32)>> {
        let outline = |points: &[(i32, i32)]| points.iter().map(|&(x, y)| (px(x), px(y))).collect();
        match self {
            Self::Diamond => vec![outline(&[(0, -9), (9, 0), (0, 9), (-9, 0), (0, -9)])],
            Self::Circle => {
                let angles = (0..=48).map(|i| f64::from(i) * std::f64::consts::TAU / 48.0);
                let radius = f64::from(px(6));
                vec![angles.map(|a| ((radius * a.cos()).round() as i32, (radius * a.sin()).round() as i32)).collect()]
            }
            Self::Square => vec![outline(&[(-8, -8), (8, -8), (8, 8), (-8, 8), (-8, -8)])],
            Self::Cross => vec![outline(&[(-7, -7), (7, 7)]), outline(&[(-7, 7), (7, -7)])],
            Self::Triangle => vec![outline(&[(-9, 7), (0, -9), (9, 7), (-9, 7)])],
            Self::Plus => vec![outline(&[(-9, 0), (9, 0)]), outline(&[(0, -9), (0, 9)])],
        }
    }
}

impl Scale {
    /// Where a value lies on the axis.
    fn position(&self, value: f64) -> f64 {
        match self {
            Self::Linear | Self::Whole | Self::Names(_) => value,
            Self::Log => value.log10(),
        }
    }

    /// A little more than the range from the smallest to the largest; it is not extended to whole
    /// decades.
    fn with_air(&self, (low, high): Span) -> Span {
        if let Self::Names(names) = self {
            return (-0.6, names.len() as f64 - 0.4);
        }
        // Around a single value, the range has room for a tick or two.
        let air = if high > low { 0.04 * (high - low).max(1e-3) } else { 0.5 };
        (low - air, high + air)
    }

    /// Positions of the ticks, if there is room for this many labels.
    fn ticks(&self, (low, high): Span, most: i32) -> Vec<f64> {
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
    fn labels(
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

fn size_attributes((width, height): (u32, u32)) -> String {
    format!(r#"width="{width}" height="{height}""#)
}

/// The pixels of the drawing, averaged over squares of `SCALE` each; both images are rows of red,
/// green and blue.
fn averaged(drawing: &[u8], width: usize, height: usize) -> Vec<u8> {
    let scale = SCALE as usize;
    let mut image = Vec::with_capacity(3 * width * height);
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        for channel in 0..3 {
            let square = (0..scale * scale).map(|i| (scale * y + i / scale, scale * x + i % scale));
            let sum: usize = square.map(|(y, x)| usize::from(drawing[3 * (y * scale * width + x) + channel])).sum();
            image.push(((sum + scale * scale / 2) / (scale * scale)) as u8);
        }
    }
    image
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
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

fn text_width(words: &str, style: &TextStyle) -> Result<u32> {
    Ok(style.font.box_size(words)?.0)
}

/// The text in lines that fit into this width in pixels.
fn wrapped(words: &str, style: &TextStyle, width: u32) -> Result<Vec<String>> {
    let mut lines = vec![String::new()];
    for word in words.split_whitespace() {
        let line = lines.last_mut().expect("starts with one");
        let longer = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
        if text_width(&longer, style)? <= width {
            *line = longer;
        } else {
            lines.push(word.to_owned());
        }
    }
    Ok(lines)
}
