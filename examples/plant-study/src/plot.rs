//! The plot, written as SVG by hand: steam over time without coordination and with it, and what each case produces.

use std::fmt::Write as _;

use crate::{coordinator::CAPACITY, run::Moment, table::Case};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 64.0;
/// Room for what the dashed line says.
const RIGHT: f64 = 96.0;
const PANEL: f64 = 170.0;
const GAP: f64 = 56.0;
const BAR: f64 = 20.0;
/// From one bar to the next.
const PITCH: f64 = 28.0;
/// Room for the names of the cases.
const NAMES: f64 = 190.0;
const MOST_STEAM: f64 = 28.0;
/// Steps of a course that are drawn as one, by the largest demand among them: what is overdrawn is not smoothed away.
const TOGETHER: usize = 4;

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#24292f}.title{font-weight:600;font-size:14px}.axis{fill:#6e7781;font-size:11px}\
.grid{stroke:#eaeef2}.limit{stroke:#57606a;stroke-dasharray:5 4}.steam{fill:none;stroke:#0969da;stroke-width:1.2}\
.over{fill:#cf222e;fill-opacity:.55}.trip{fill:#cf222e;fill-opacity:.13}.bar{fill:#54aeff}.bare{fill:#d0d7de}\
.range{stroke:#24292f}";

/// A panel's coordinates.
struct Panel {
    top: f64,
    hours: f64,
}

impl Panel {
    fn x(&self, time_s: f64) -> f64 {
        LEFT + time_s / 3600.0 / self.hours * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, steam: f64) -> f64 {
        self.top + PANEL * (1.0 - steam.min(MOST_STEAM) / MOST_STEAM)
    }
}

/// Draws the first run of two cases, and the production of all: `bare` is the case without coordination, `with` one with.
#[must_use]
pub fn plot(cases: &[Case], bare: usize, with: usize) -> String {
    let bars = cases.len() as f64 * PITCH;
    let height = 2.0 * (PANEL + GAP) + bars + GAP + 40.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">\
         <title>Steam asked for and product on specification, without coordination and with it</title>\n\
         <style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let mut top = GAP - 12.0;
    for at in [bare, with] {
        if let Some(case) = cases.get(at) {
            steam(&mut svg, case, top);
        }
        top += PANEL + GAP;
    }
    production(&mut svg, cases, top + 8.0);
    svg.push_str("</svg>\n");
    svg
}

// Writing to a string cannot fail: what `write!` answers is let go below.

fn steam(svg: &mut String, case: &Case, top: f64) {
    let Some(run) = case.runs.first() else { return };
    let hours = run.course.last().map_or(1.0, |last| last.time_s / 3600.0);
    let panel = Panel { top, hours };
    let (right, bottom) = (WIDTH - RIGHT, panel.y(0.0));
    let _ = writeln!(
        svg,
        "<text class=\"title\" x=\"{LEFT}\" y=\"{:.0}\">{}: steam asked for, t/h</text>",
        top - 10.0,
        escaped(&case.name)
    );
    for tick in (0..=25).step_by(5) {
        let y = panel.y(f64::from(tick));
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/><text class=\"axis\" x=\"{:.0}\" y=\"{:.1}\" \
             text-anchor=\"end\">{tick}</text>",
            LEFT - 8.0,
            y + 4.0
        );
    }
    // A cast of a float saturates.
    for hour in 0..=hours as u32 {
        let x = panel.x(f64::from(hour) * 3600.0);
        let _ = writeln!(
            svg,
            "<text class=\"axis\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{hour} h</text>",
            bottom + 16.0
        );
    }
    let mut labelled = f64::NEG_INFINITY;
    for (from, to) in trips(&run.course) {
        let (x, width) = (panel.x(from), panel.x(to) - panel.x(from));
        let _ =
            writeln!(svg, "<rect class=\"trip\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{PANEL}\"/>");
        // One word for trips so close that their words would run into each other.
        if x - labelled > 60.0 {
            labelled = x;
            let y = bottom - 6.0;
            let _ = writeln!(svg, "<text class=\"axis\" x=\"{x:.1}\" y=\"{y:.1}\">tripped</text>");
        }
    }
    let points: Vec<(f64, f64)> = run.course.chunks(TOGETHER).filter_map(|some| peak(&panel, some)).collect();
    let limit = panel.y(CAPACITY);
    let mut over = String::new();
    for pair in points.windows(2) {
        let [(x, y), (next, _)] = [pair[0], pair[1]];
        if y < limit - 0.05 {
            let _ = write!(over, "M{x:.1} {limit:.1}V{y:.1}H{next:.1}V{limit:.1}Z");
        }
    }
    let _ = writeln!(svg, "<path class=\"over\" d=\"{over}\"/>");
    let line: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(svg, "<polyline class=\"steam\" points=\"{}\"/>", line.join(" "));
    let _ = writeln!(
        svg,
        "<path class=\"limit\" d=\"M{LEFT} {limit:.1}H{right}\"/>\
         <text class=\"axis\" x=\"{beside:.0}\" y=\"{:.1}\">the boiler</text>\
         <text class=\"axis\" x=\"{beside:.0}\" y=\"{:.1}\">gives {CAPACITY} t/h</text>",
        limit - 2.0,
        limit + 12.0,
        beside = right + 8.0,
    );
}

/// The largest demand of some moments, as a point.
fn peak(panel: &Panel, some: &[Moment]) -> Option<(f64, f64)> {
    let most = some.iter().map(|moment| moment.demand).fold(0.0, f64::max);
    some.first().map(|first| (panel.x(first.time_s), panel.y(most)))
}

/// From when to when the boiler was out, in s.
fn trips(course: &[Moment]) -> Vec<(f64, f64)> {
    let mut trips: Vec<(f64, f64)> = Vec::new();
    let mut out = false;
    for moment in course.iter() {
        match trips.last_mut() {
            Some(last) if moment.tripped && out => last.1 = moment.time_s,
            _ if moment.tripped => trips.push((moment.time_s, moment.time_s)),
            _ => {}
        }
        out = moment.tripped;
    }
    trips
}

fn production(svg: &mut String, cases: &[Case], top: f64) {
    let spreads: Vec<_> = cases.iter().map(|case| case.spread(|run| run.on_spec)).collect();
    let most = spreads.iter().map(|spread| spread.max).fold(1.0, f64::max);
    let from = LEFT + NAMES;
    let x = |tonnes: f64| from + tonnes / most * (WIDTH - RIGHT - from);
    let bottom = top + cases.len() as f64 * PITCH;
    let _ = writeln!(
        svg,
        "<text class=\"title\" x=\"{LEFT}\" y=\"{:.0}\">Product on specification, t/h: median, lowest and highest seed</text>",
        top - 10.0
    );
    // A cast of a float saturates.
    for tick in (0..=most as u32).step_by(20) {
        let at = x(f64::from(tick));
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{at:.1} {top:.1}V{bottom:.1}\"/>\
             <text class=\"axis\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick}</text>",
            bottom + 16.0
        );
    }
    for (at, (case, spread)) in cases.iter().zip(&spreads).enumerate() {
        let y = top + at as f64 * PITCH + (PITCH - BAR) / 2.0;
        let (middle, class) = (y + BAR / 2.0, if case.coordinated { "bar" } else { "bare" });
        let trips: f64 = case.spread(|run| run.trips).median;
        let trips = if trips > 0.0 { format!(", {trips:.0} trips a day") } else { String::new() };
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"{class}\" x=\"{from:.0}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\"/>\
             <path class=\"range\" d=\"M{low:.1} {middle:.1}H{high:.1}M{low:.1} {cap:.1}v8M{high:.1} {cap:.1}v8\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{:.0}{trips}</text>",
            from - 10.0,
            middle + 4.5,
            escaped(&case.name),
            x(spread.median) - from,
            from + 8.0,
            middle + 4.5,
            spread.median,
            low = x(spread.min),
            high = x(spread.max),
            cap = middle - 4.0,
        );
    }
}

/// A name as text: what marks it as code on the page is left out.
fn escaped(text: &str) -> String {
    text.replace('`', "").replace('&', "&amp;").replace('<', "&lt;")
}
