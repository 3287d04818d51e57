//! Reads `recorded.txt`: requests to fleet 1.0 as they were typed, and its answers.
//!
//! It leaves out headers that follow from the rest (`Content-Length`, `Transfer-Encoding`), and the
//! one that every answer has (`Server`). A line `# ours: WHY` stands before an answer that differs
//! from fleet 1.0's.

/// A request and its answer.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) method: String,
    /// The path with the query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    /// The answer as [`shown`] writes it.
    pub(crate) answer: String,
}

/// Returns the recorded exchanges in order. Later ones see the effects of earlier ones.
pub(crate) fn recorded() -> Vec<Exchange> {
    let text = include_str!("recorded.txt");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let text = lines.join("\n");
    text.split("$ curl ").skip(1).map(exchange).collect()
}

fn exchange(text: &str) -> Exchange {
    let (command, answer) = text.split_once('\n').expect("a command and its answer");
    let (options, rest) = command.split_once("http://10.99.1.1:49153").expect("a URL");
    let (path, body) = rest.split_once(" -d ").unwrap_or((rest, ""));
    let (method, headers) = match options.strip_prefix("-X ") {
        Some(options) => options.split_once(' ').expect("a blank"),
        None => ("GET", options),
    };
    let headers = headers
        .split("-H ")
        .filter_map(|header| header.trim().split_once(": "));
    Exchange {
        method: method.to_owned(),
        path: path.to_owned(),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body: body.to_owned(),
        answer: answer.trim().to_owned(),
    }
}

/// Returns an answer in the recorded form. `status` has its phrase, such as `404 Not Found`.
pub(crate) fn shown(status: &str, content_type: Option<&str>, body: &str) -> String {
    let content_type = content_type.map_or(String::new(), |kind| format!("Content-Type: {kind}\n"));
    format!("HTTP/1.1 {status}\n{content_type}\n{body}")
        .trim()
        .to_owned()
}

impl Exchange {
    /// Returns whether an answer, as [`shown`], is the recorded one. Only the beginning of the
    /// discovery document is recorded.
    pub(crate) fn is_answered_by(&self, shown: &str) -> bool {
        if self.path.ends_with("/discovery") && self.method == "GET" {
            shown.starts_with(&self.answer)
        } else {
            shown == self.answer
        }
    }

    /// Returns whether this exchange creates a unit.
    pub(crate) fn creates(&self) -> bool {
        self.answer.starts_with("HTTP/1.1 201 ")
    }
}
