//! Turns events into lines: `time<TAB>level<TAB>scope:span{k=v}<TAB>message<TAB>k=v`, or one JSON object each.

use std::{
    fmt::{self, Write as _},
    ops::Range,
    time::SystemTime,
};

use time::OffsetDateTime;
use tracing::{
    Event, Level,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::layer::{Context, Layer};

use super::{Sink, Spans};

/// Prefixes of scopes that are left out: a reader need not know which crate of the proxy a module is in.
const OWN_PREFIXES: [&str; 2] = ["ztunnel::", "proxy_core::"];

/// Shape of a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Columns between tabs.
    #[default]
    Plain,
    /// One JSON object per line (`LOG_FORMAT=json`).
    Json,
}

/// The layer that writes lines.
pub(super) struct Lines {
    format: LogFormat,
    sink: Sink,
}

impl Lines {
    pub(super) const fn new(format: LogFormat, sink: Sink) -> Self {
        Self { format, sink }
    }
}

/// Fields of a span or event, in the order in which they were given. Their values share one text.
#[derive(Default)]
struct Fields {
    message: String,
    text: String,
    values: Vec<(&'static str, Shape, Range<usize>)>,
}

#[derive(Clone, Copy)]
enum Shape {
    /// Quoted in plain lines.
    Text,
    /// Through `Display` or `Debug`: as it is.
    Shown,
    /// A number or a boolean, bare in both formats.
    Bare,
}

impl Fields {
    fn push(&mut self, field: &Field, shape: Shape, value: impl fmt::Display) {
        // One text for all values, cut by ranges: an access line has some twenty fields, and each would otherwise be an
        // allocation.
        let begin = self.text.len();
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{value}");
        let (name, place) = (field.name(), begin..self.text.len());
        match self.values.iter_mut().find(|(known, ..)| *known == name) {
            // A field that a span records again replaces the first value: the names in a JSON object should be unique
            // (RFC 8259, section 4).
            Some(known) => *known = (name, shape, place),
            None => self.values.push((name, shape, place)),
        }
    }

    fn write_plain(&self, line: &mut String) {
        for (i, (name, shape, place)) in self.values.iter().enumerate() {
            if i > 0 {
                line.push(' ');
            }
            line.push_str(name);
            line.push('=');
            let value = &self.text[place.clone()];
            match shape {
                Shape::Text => push_quoted(line, value),
                Shape::Shown => push_one_line(line, value),
                Shape::Bare => line.push_str(value),
            }
        }
    }

    fn write_json(&self, line: &mut String) {
        for (name, shape, place) in &self.values {
            // Spans begin with an empty object, events with the fixed members.
            if !line.ends_with('{') {
                line.push(',');
            }
            push_quoted(line, name);
            line.push(':');
            let value = &self.text[place.clone()];
            match shape {
                Shape::Text | Shape::Shown => push_quoted(line, value),
                Shape::Bare => line.push_str(value),
            }
        }
    }
}

// `tracing` sends `%value` and `?value` to `record_debug`; only a bare `&str` reaches `record_str`.
impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.push(field, Shape::Text, value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.push(field, Shape::Shown, format_args!("{value:?}"));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Shape::Bare, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Shape::Bare, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Shape::Bare, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN.
        self.push(field, if value.is_finite() { Shape::Bare } else { Shape::Text }, value);
    }
}

impl<S: Spans> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        // Most lines fit; an access line is longer.
        let mut line = String::with_capacity(256);
        match self.format {
            LogFormat::Plain => plain(&mut line, event, &fields, &context),
            LogFormat::Json => json(&mut line, event, &fields, &context),
        }
        line.push('\n');
        self.sink.write(line);
    }
}

fn plain<S: Spans>(line: &mut String, event: &Event<'_>, fields: &Fields, context: &Context<'_, S>) {
    push_time(line);
    line.push('\t');
    line.push_str(level(*event.metadata().level()));
    line.push('\t');
    line.push_str(scope(event.metadata().target()));
    for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
        line.push(':');
        line.push_str(span.name());
        if let Some(fields) = span.extensions().get::<Fields>().filter(|f| !f.values.is_empty()) {
            line.push('{');
            fields.write_plain(line);
            line.push('}');
        }
    }
    line.push('\t');
    push_one_line(line, &fields.message);
    if !fields.values.is_empty() {
        line.push('\t');
        fields.write_plain(line);
    }
}

fn json<S: Spans>(line: &mut String, event: &Event<'_>, fields: &Fields, context: &Context<'_, S>) {
    // Level and time hold nothing that JSON escapes, so they skip `push_quoted`.
    line.push_str(r#"{"level":""#);
    line.push_str(level(*event.metadata().level()));
    line.push_str(r#"","time":""#);
    push_time(line);
    line.push_str(r#"","scope":"#);
    push_quoted(line, scope(event.metadata().target()));
    line.push_str(r#","message":"#);
    push_quoted(line, &fields.message);
    fields.write_json(line);
    for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
        line.push(',');
        push_quoted(line, span.name());
        line.push_str(":{");
        if let Some(fields) = span.extensions().get::<Fields>() {
            fields.write_json(line);
        }
        line.push('}');
    }
    line.push('}');
}

const fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn scope(target: &str) -> &str {
    OWN_PREFIXES.iter().find_map(|prefix| target.strip_prefix(prefix)).unwrap_or(target)
}

fn push_time(line: &mut String) {
    let now = OffsetDateTime::from(SystemTime::now());
    let (year, month, day) = now.to_calendar_date();
    let (hour, minute, second, micro) = now.to_hms_micro();
    // Writing to a String cannot fail.
    let _ = write!(line, "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z", u8::from(month));
}

/// A JSON string, which is also how plain lines quote.
fn push_quoted(line: &mut String, text: &str) {
    line.push('"');
    push_escaped(line, text, |c| c < ' ' || c == '"' || c == '\\');
    line.push('"');
}

/// Text from outside must not start a line or a column of its own.
fn push_one_line(line: &mut String, text: &str) {
    push_escaped(line, text, |c| matches!(c, '\n' | '\r' | '\t'));
}

/// `text` with an escape in place of each character that is `special`. Mostly none is.
fn push_escaped(line: &mut String, mut text: &str, special: impl Fn(char) -> bool) {
    while let Some(at) = text.find(&special) {
        line.push_str(&text[..at]);
        let mut rest = text[at..].chars();
        match rest.next() {
            Some('\n') => line.push_str("\\n"),
            Some('\r') => line.push_str("\\r"),
            Some('\t') => line.push_str("\\t"),
            // RFC 8259, section 7: control characters without a short form need the long one.
            Some(c) if c < ' ' => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            Some(c) => line.extend(['\\', c]),
            // Not reached: `find` has found a character.
            None => {}
        }
        text = rest.as_str();
    }
    line.push_str(text);
}
