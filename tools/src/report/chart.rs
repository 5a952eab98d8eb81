//! Charts as SVG: small enough to read on a phone, coloured by the page's own style sheet, so that they
//! follow its light or dark theme.

use maud::{Markup, html};

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 18.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

/// The number of colours and shapes that the style sheet tells apart.
const STYLES: usize = 6;

/// Labels of an axis are at least this far apart.
const APART: f64 = 34.0;

/// About as wide as a letter of a tick, and of a point's label, is; how high the latter is.
const TICK_LETTER: f64 = 7.2;
const LETTER: f64 = 6.2;
const LINE: f64 = 11.0;

/// One direction of a chart.
pub struct Axis {
    pub label: String,
    pub from: f64,
    pub to: f64,
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to 100%.
    pub fn percent(label: &str) -> Self {
        let ticks = (0..=5).map(|i| (f64::from(i) * 0.2, format!("{}%", i * 20))).collect();
        Self { label: label.into(), from: 0.0, to: 1.0, ticks }
    }

    /// Just past `values`, with round ticks.
    pub fn around(label: &str, values: impl Iterator<Item = f64>, text: impl Fn(f64) -> String) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|v| v.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let room = ((high - low) * 0.08).max(high.abs() * 1e-3).max(1e-6);
        let step = round_step((high - low + 2.0 * room) / 5.0);
        let (from, to) = (((low - room) / step).floor() * step, ((high + room) / step).ceil() * step);
        // What is never negative has no room below zero.
        let from = if low >= 0.0 { from.max(0.0) } else { from };
        let count = ((to - from) / step).round() as u32;
        let ticks = (0..=count).map(|i| from + f64::from(i) * step).map(|v| (v, text(v))).collect();
        Self { label: label.into(), from, to, ticks }
    }

    /// The same, but no further than what no value is beyond.
    pub fn up_to(mut self, most: f64) -> Self {
        self.to = self.to.min(most);
        self.ticks.retain(|(value, _)| *value <= most + 1e-9);
        self
    }

    fn part(&self, value: f64) -> f64 {
        if self.to > self.from { (value - self.from) / (self.to - self.from) } else { 0.5 }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.part(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.part(value) * (HEIGHT - TOP - BOTTOM)
    }
}

/// 1, 2 or 5 times a power of ten, `least` or a little more.
fn round_step(least: f64) -> f64 {
    let power = 10f64.powf(least.max(1e-12).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|&s| s >= least).unwrap_or(10.0 * power)
}

/// Points of one kind.
pub struct Series {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// Below and above each point, where they are known.
    pub bands: Vec<(f64, f64)>,
    /// Whether a line joins them.
    pub line: bool,
    /// A label for each point, where they have some.
    pub labels: Vec<String>,
}

impl Series {
    pub fn line(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points, bands: Vec::new(), line: true, labels: Vec::new() }
    }
}

fn number(value: f64) -> String {
    format!("{value:.1}")
}

fn path<'a>(points: impl Iterator<Item = (f64, f64)> + 'a) -> String {
    points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ")
}

/// The frame of a chart: both axes with their ticks and labels.
fn axes(x: &Axis, y: &Axis) -> Markup {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    let mut last = f64::NEG_INFINITY;
    html! {
        @for (value, text) in &y.ticks {
            line.grid x1=(LEFT) x2=(right) y1=(number(y.y(*value))) y2=(number(y.y(*value))) {}
            text.tick x=(LEFT - 6.0) y=(number(y.y(*value) + 4.0)) text-anchor="end" { (text) }
        }
        line.axis x1=(LEFT) x2=(right) y1=(bottom) y2=(bottom) {}
        @for (value, text) in &x.ticks {
            @let at = x.x(*value);
            line.axis x1=(number(at)) x2=(number(at)) y1=(bottom) y2=(bottom + 4.0) {}
            @if at - last >= APART {
                // Centred, unless that would leave the picture.
                @let half = text.chars().count() as f64 * TICK_LETTER / 2.0;
                text.tick x=(number(at.min(WIDTH - half))) y=(bottom + 17.0) text-anchor="middle" { (text) }
                @let () = last = at;
            }
        }
        text.label x=((LEFT + right) / 2.0) y=(HEIGHT - 8.0) text-anchor="middle" { (x.label) }
        @let middle = (TOP + bottom) / 2.0;
        text.label x="11" y=(middle) text-anchor="middle" transform=(format!("rotate(-90 11 {middle})")) {
            (y.label)
        }
    }
}

/// A point's mark: another shape for each series, so that nobody has to tell colours apart.
fn mark(style: usize, x: f64, y: f64) -> Markup {
    let class = format!("mark s{style}");
    let polygon = |points: &[(f64, f64)]| {
        let points = path(points.iter().map(|(dx, dy)| (x + dx, y + dy)));
        html! { polygon class=(class) points=(points) {} }
    };
    match style % 3 {
        0 => html! { circle class=(class) cx=(number(x)) cy=(number(y)) r="3.5" {} },
        1 => polygon(&[(-3.3, -3.3), (3.3, -3.3), (3.3, 3.3), (-3.3, 3.3)]),
        _ => polygon(&[(0.0, -4.4), (4.4, 3.4), (-4.4, 3.4)]),
    }
}

/// Lines and points over two axes, with a legend below.
pub fn plot(title: &str, x: &Axis, y: &Axis, series: &[Series]) -> Markup {
    let inside = |(a, b): &&(f64, f64)| a.is_finite() && b.is_finite();
    html! {
        figure {
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(title) {
                title { (title) }
                (axes(x, y))
                @for (i, one) in series.iter().enumerate() {
                    @let style = i % STYLES;
                    @if !one.bands.is_empty() {
                        @let up = one.points.iter().zip(&one.bands).map(|(p, b)| (x.x(p.0), y.y(b.1)));
                        @let down = one.points.iter().zip(&one.bands).rev().map(|(p, b)| (x.x(p.0), y.y(b.0)));
                        polygon class=(format!("band s{style}")) points=(path(up.chain(down))) {}
                    }
                    @if one.line {
                        @let points = path(one.points.iter().filter(inside).map(|p| (x.x(p.0), y.y(p.1))));
                        polyline class=(format!("line s{style}")) points=(points) {}
                    }
                    @for (a, b) in one.points.iter().filter(inside) {
                        @let (px, py) = (x.x(*a), y.y(*b));
                        (mark(style, px, py))
                    }
                }
                @for label in labels(x, y, series) {
                    text.point x=(number(label.at.0)) y=(number(label.at.1)) text-anchor=(label.anchor) { (label.text) }
                }
            }
            figcaption {
                b { (title) }
                @if series.iter().any(|s| s.name != title) {
                    " "
                    @for (i, one) in series.iter().enumerate() {
                        span.key {
                            svg viewBox="-7 -7 14 14" width="14" height="14" aria-hidden="true" {
                                (mark(i % STYLES, 0.0, 0.0))
                            }
                            " " (one.name)
                        }
                    }
                }
            }
        }
    }
}

/// The text of a point at its place.
struct Label<'a> {
    text: &'a str,
    at: (f64, f64),
    anchor: &'static str,
}

impl Label<'_> {
    /// What it covers: left, top, right, bottom.
    fn covers(&self) -> [f64; 4] {
        let width = self.text.chars().count() as f64 * LETTER;
        let left = match self.anchor {
            "start" => self.at.0,
            "end" => self.at.0 - width,
            _ => self.at.0 - width / 2.0,
        };
        [left, self.at.1 - LINE + 2.0, left + width, self.at.1 + 2.0]
    }
}

/// How much of two rectangles is common to both.
fn common(a: [f64; 4], b: [f64; 4]) -> f64 {
    (a[2].min(b[2]) - a[0].max(b[0])).max(0.0) * (a[3].min(b[3]) - a[1].max(b[1])).max(0.0)
}

/// The labels of all points, each on the side of its point where it covers the least of marks, of labels
/// before it, and of what is outside.
fn labels<'a>(x: &Axis, y: &Axis, series: &'a [Series]) -> Vec<Label<'a>> {
    const SIDES: [(f64, f64, &str); 8] = [
        (7.0, 4.0, "start"),
        (-7.0, 4.0, "end"),
        (0.0, -7.0, "middle"),
        (0.0, 15.0, "middle"),
        (6.0, -5.0, "start"),
        (6.0, 13.0, "start"),
        (-6.0, -5.0, "end"),
        (-6.0, 13.0, "end"),
    ];
    let place = |(a, b): &(f64, f64)| (x.x(*a), y.y(*b));
    let finite = |(a, b): &&(f64, f64)| a.is_finite() && b.is_finite();
    let points = || series.iter().flat_map(|s| &s.points);
    let mut taken: Vec<[f64; 4]> =
        points().filter(finite).map(place).map(|(x, y)| [x - 4.0, y - 4.0, x + 4.0, y + 4.0]).collect();
    // Outside the picture, and the axes.
    taken.extend([
        [-1e3, -1e3, LEFT, 1e3],
        [WIDTH - 2.0, -1e3, 1e3, 1e3],
        [-1e3, HEIGHT - BOTTOM, 1e3, 1e3],
        [-1e3, -1e3, 1e3, 0.0],
    ]);
    let mut placed = Vec::new();
    for one in series {
        for (point, text) in one.points.iter().zip(&one.labels).filter(|(p, _)| finite(p)) {
            let (px, py) = place(point);
            let at =
                |(dx, dy, anchor): (f64, f64, &'static str)| Label { text, at: (px + dx, py + dy), anchor };
            let hidden = |label: &Label<'_>| taken.iter().map(|t| common(*t, label.covers())).sum::<f64>();
            let best = SIDES.into_iter().map(at).min_by(|a, b| hidden(a).total_cmp(&hidden(b)));
            let best = best.expect("there are eight sides");
            taken.push(best.covers());
            placed.push(best);
        }
    }
    placed
}

/// A point of a class.
pub struct Spot {
    pub class: usize,
    pub at: [f64; 2],
}

/// The number of colours for classes that the style sheet tells apart.
const CLASSES: usize = 10;

/// Points in a plane whose directions have no names, within `bounds` (least and largest of each direction); each
/// class has its name where its middle is.
pub fn scatter(title: &str, spots: &[Spot], names: &[String], bounds: [[f64; 2]; 2]) -> Markup {
    const SIDE: f64 = 300.0;
    const ROOM: f64 = 14.0;
    let place = |value: f64, [from, to]: [f64; 2]| {
        let part = if to > from { (value - from) / (to - from) } else { 0.5 };
        ROOM + part * (SIDE - 2.0 * ROOM)
    };
    let at = |at: [f64; 2]| (place(at[0], bounds[0]), SIDE - place(at[1], bounds[1]));
    let finite = || spots.iter().filter(|s| s.at.iter().all(|v| v.is_finite()));
    let middle = |class: usize| {
        let own: Vec<[f64; 2]> = finite().filter(|s| s.class == class).map(|s| s.at).collect();
        let mean = |k: usize| own.iter().map(|p| p[k]).sum::<f64>() / own.len() as f64;
        (!own.is_empty()).then(|| at([mean(0), mean(1)]))
    };
    html! {
        figure {
            svg.scatter viewBox=(format!("0 0 {SIDE} {SIDE}")) role="img" aria-label=(title) {
                title { (title) }
                rect.frame x="0.5" y="0.5" width=(SIDE - 1.0) height=(SIDE - 1.0) {}
                @for spot in finite() {
                    @let (x, y) = at(spot.at);
                    circle class=(format!("spot d{}", spot.class % CLASSES)) cx=(number(x)) cy=(number(y)) r="2.4" {}
                }
                @for (name, x, y) in apart(names.iter().enumerate().filter_map(|(i, n)| Some((n, middle(i)?)))) {
                    text.name x=(number(x.clamp(30.0, SIDE - 30.0))) y=(number(y + 4.0)) text-anchor="middle" {
                        (name)
                    }
                }
            }
            figcaption { b { (title) } }
        }
    }
}

/// Names at their places, from the top down, those that would lie on each other moved down.
fn apart<'a>(names: impl Iterator<Item = (&'a String, (f64, f64))>) -> Vec<(&'a String, f64, f64)> {
    const LETTER: f64 = 6.5;
    let mut wanted: Vec<_> = names.collect();
    wanted.sort_by(|a, b| a.1.1.total_cmp(&b.1.1));
    let mut placed: Vec<(&String, f64, f64)> = Vec::new();
    for (name, (x, mut y)) in wanted {
        let half = |name: &str| name.chars().count() as f64 * LETTER / 2.0;
        // From the top down, a name is moved only past those above it: once through is enough.
        for &(other, at, height) in &placed {
            if (at - x).abs() < half(other) + half(name) && (height - y).abs() < LINE {
                y = height + LINE;
            }
        }
        placed.push((name, x, y));
        placed.sort_by(|a, b| a.2.total_cmp(&b.2));
    }
    placed
}

/// How many values fall into each of equal parts of their range.
pub fn histogram(title: &str, label: &str, values: &[f32], text: impl Fn(f64) -> String) -> Markup {
    const BARS: usize = 16;
    let values: Vec<f64> = values.iter().map(|&v| f64::from(v)).filter(|v| v.is_finite()).collect();
    let low = values.iter().copied().fold(f64::INFINITY, f64::min).min(0.0);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max).max(low + 1e-9);
    let mut counts = [0usize; BARS];
    for value in &values {
        let at = ((value - low) / (high - low) * BARS as f64) as usize;
        counts[at.min(BARS - 1)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let width = (high - low) / BARS as f64;
    let ticks = (0..=4).map(|i| low + (high - low) * f64::from(i) / 4.0).map(|v| (v, text(v))).collect();
    let x = Axis { label: label.into(), from: low, to: high, ticks };
    let step = round_step(most as f64 / 4.0).max(1.0);
    let top = (most as f64 / step).ceil() * step;
    let ticks = (0..=(top / step) as u32).map(|i| f64::from(i) * step).map(|v| (v, format!("{v}"))).collect();
    let y = Axis { label: "images".into(), from: 0.0, to: top, ticks };
    html! {
        figure {
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(title) {
                title { (title) }
                (axes(&x, &y))
                @for (i, &count) in counts.iter().enumerate() {
                    @let (left, right) = (x.x(low + i as f64 * width), x.x(low + (i + 1) as f64 * width));
                    @let (up, down) = (y.y(count as f64), y.y(0.0));
                    rect.bar x=(number(left + 0.5)) width=(number(right - left - 1.0))
                        y=(number(up)) height=(number(down - up)) {}
                }
            }
            figcaption { b { (title) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_never_negative_has_no_axis_below_zero() {
        let axis = |values: &[f64]| Axis::around("", values.iter().copied(), |v| v.to_string());
        assert_eq!(axis(&[0.0005, 0.025]).from, 0.0);
        assert!(axis(&[-0.001, 0.025]).from < -0.001);
        assert!(axis(&[20.0, 23.0]).from > 15.0);
    }

    #[test]
    fn scattered_points_stay_in_their_frame() {
        let spots: Vec<Spot> = [[0.0, 0.0], [2.0, 4.0], [f64::NAN, 1.0], [1.0, 2.0]]
            .into_iter()
            .enumerate()
            .map(|(class, at)| Spot { class, at })
            .collect();
        let names = ["a", "<b>", "c", "d"].map(str::to_owned);
        let text = scatter("t", &spots, &names, [[0.0, 2.0], [0.0, 4.0]]).into_string();
        // Up is the second direction; the third point is none, and its class has no name.
        assert!(
            text.contains(r#"cx="14.0" cy="286.0""#) && text.contains(r#"cx="286.0" cy="14.0""#),
            "{text}"
        );
        assert!(text.contains(r#"cx="150.0" cy="150.0""#) && text.contains("&lt;b&gt;"), "{text}");
        assert!(
            !text.contains("NaN") && text.matches("<circle").count() == 3 && !text.contains(">c<"),
            "{text}"
        );
        let same = scatter("t", &spots[..1], &names, [[0.0, 0.0], [0.0, 0.0]]).into_string();
        assert!(same.contains(r#"cx="150.0" cy="150.0""#), "{same}");
    }

    #[test]
    fn names_do_not_lie_on_each_other() {
        let names = ["cat", "dog", "deer", "ship"].map(str::to_owned);
        let places = [(50.0, 50.0), (52.0, 51.0), (49.0, 60.0), (250.0, 50.0)];
        let found = apart(names.iter().zip(places));
        for (i, (a, ax, ay)) in found.iter().enumerate() {
            for (b, bx, by) in &found[i + 1..] {
                assert!((ax - bx).abs() > 20.0 || (ay - by).abs() >= 11.0, "{a} and {b}: {found:?}");
            }
        }
        assert!(found.iter().any(|f| f.0 == "ship" && f.2 == 50.0), "it is alone: {found:?}");
    }

    /// Four points so close that their labels, all to the right, would be one.
    #[test]
    fn labels_do_not_lie_on_each_other() {
        let points = vec![(85.67, 54.1), (85.57, 54.04), (86.23, 53.58), (88.22, 52.18), (94.9, 53.0)];
        let names = ["S2O", "AWP", "LAS-AT", "LBGAT", "at the edge"].map(str::to_owned).into();
        let series = [Series { labels: names, line: false, ..Series::line("published", points) }];
        let axis = |from, to| Axis { label: String::new(), from, to, ticks: vec![] };
        let found = labels(&axis(75.0, 95.0), &axis(0.0, 60.0), &series);
        assert_eq!(found.len(), 5);
        for (i, a) in found.iter().enumerate() {
            let [left, top, right, bottom] = a.covers();
            assert!(
                left >= LEFT && right <= WIDTH && top >= 0.0 && bottom <= HEIGHT,
                "{} is outside",
                a.text
            );
            for b in &found[i + 1..] {
                assert!(common(a.covers(), b.covers()) < 1.0, "{} and {}", a.text, b.text);
            }
        }
    }

    #[test]
    fn the_last_tick_is_inside_the_picture() {
        let x = Axis { label: "x".into(), from: 0.0, to: 1.0, ticks: vec![(1.0, "100/255".into())] };
        let text = axes(&x, &Axis::percent("y")).into_string();
        let at = text.split("100/255").next().unwrap().rsplit("x=\"").next().unwrap();
        let at: f64 = at.split('"').next().unwrap().parse().unwrap();
        assert!(at + 7.0 * TICK_LETTER / 2.0 <= WIDTH, "{at}");
    }

    #[test]
    fn axes_have_round_ticks_around_their_values() {
        let axis = Axis::around("x", [0.12, 0.48, f64::NAN].into_iter(), |v| format!("{v:.1}"));
        assert!(axis.from <= 0.12 && axis.to >= 0.48 && axis.ticks.len() <= 8, "{:?}", axis.ticks);
        assert_eq!(axis.ticks[1].1.len(), 3);
        assert_eq!([round_step(0.07), round_step(1.0), round_step(13.0)], [0.1, 1.0, 20.0]);
        let empty = Axis::around("x", std::iter::empty(), |v| v.to_string());
        assert!(empty.from < empty.to);
        let single = Axis::around("x", [5.0].into_iter(), |v| v.to_string());
        assert!(single.from < 5.0 && single.to > 5.0);
    }

    /// Whatever a file holds, a chart has no NaN in it, and no markup that was not its own.
    #[test]
    fn charts_hold_numbers_and_escaped_text() {
        let series = vec![
            Series::line("<script>", vec![(0.0, 0.5), (f64::NAN, 0.2), (1.0, f64::INFINITY), (2.0, 0.1)]),
            Series {
                labels: vec!["a & b".into()],
                bands: vec![(0.1, 0.2)],
                ..Series::line("two", vec![(1.0, 0.2)])
            },
        ];
        let axis = Axis { label: "\"x\"".into(), from: 0.0, to: 2.0, ticks: vec![(0.0, "<0>".into())] };
        let text = plot("t < u", &axis, &Axis::percent("y"), &series).into_string();
        assert!(!text.contains("<script>") && !text.contains("NaN") && !text.contains("inf"), "{text}");
        assert!(text.contains("&lt;script&gt;") && text.contains("a &amp; b"), "{text}");
        assert_eq!(text.matches("<circle").count(), 2 + 1, "two points and the legend");
        let text = histogram("h", "x", &[f32::NAN, 0.1, 0.2, 0.2], |v| format!("{v:.1}")).into_string();
        assert!(!text.contains("NaN") && text.matches("<rect").count() == 16, "{text}");
    }
}
