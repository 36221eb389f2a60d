//! Templates: HTML with `{{name}}` where a value goes. Every value is escaped; there is no way to put one in that is not.

use std::fmt::Write;
use std::fs;
use std::time::Duration;

use crate::surroundings::Surroundings;

/// What a page can say, by name.
pub struct Page<'a> {
    /// The path that was asked for.
    pub path: &'a str,
    /// The id the proxy gave the request.
    pub request_id: Option<&'a str>,
    /// Everything else.
    pub surroundings: &'a Surroundings,
}

/// The names a template may use.
const NAMES: [&str; 9] = [
    "base",
    "generation",
    "memory_limit",
    "mode",
    "path",
    "request_id",
    "unit",
    "uptime",
    "worker",
];

impl Page<'_> {
    fn value(&self, name: &str) -> String {
        let at = self.surroundings;
        let known = |value: Option<&str>| value.unwrap_or("unknown").to_owned();
        match name {
            // What to put before the path of an asset: the route, without the slash of `/`.
            "base" => at.route.trim_end_matches('/').to_owned(),
            "generation" => known(at.generation.as_deref()),
            "memory_limit" => at
                .memory_limit
                .clone()
                .unwrap_or_else(|| "no limit".to_owned()),
            "mode" => at.mode.clone(),
            "path" => self.path.to_owned(),
            "request_id" => known(self.request_id),
            "unit" => at
                .unit
                .clone()
                .unwrap_or_else(|| "no systemd unit".to_owned()),
            "uptime" => duration(at.started.elapsed()),
            "worker" => at.worker.clone(),
            _ => String::new(),
        }
    }
}

/// A template, checked.
#[derive(Debug)]
pub struct Template {
    /// Text, and the name of the value behind it.
    parts: Vec<(String, Option<String>)>,
}

impl Template {
    /// Reads a template from a file.
    pub fn load(file: &str) -> Result<Self, String> {
        let text = fs::read_to_string(file).map_err(|error| format!("read {file}: {error}"))?;
        Self::parse(&text).map_err(|problem| format!("{file}: {problem}"))
    }

    /// Reads a template. The error names the value there is none of.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").ok_or("a '{{' has no '}}'")?;
            let name = name.trim();
            if !NAMES.contains(&name) {
                return Err(format!(
                    "there is no value '{name}'; there are {}",
                    NAMES.join(", ")
                ));
            }
            parts.push((before.to_owned(), Some(name.to_owned())));
            rest = after;
        }
        parts.push((rest.to_owned(), None));
        Ok(Self { parts })
    }

    /// The template with the values of `page`.
    pub fn render(&self, page: &Page<'_>) -> String {
        let mut html = String::new();
        for (text, name) in &self.parts {
            html.push_str(text);
            if let Some(name) = name {
                escape(&mut html, &page.value(name));
            }
        }
        html
    }
}

/// Writes text so that it is text in an element and in a quoted attribute.
fn escape(html: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
}

/// As one says it: `5 s`, `3 min 20 s`, `2 h 5 min`, `4 d 1 h`.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let parts = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let largest = parts
        .iter()
        .position(|&(size, _)| seconds >= size)
        .unwrap_or(parts.len() - 1);
    let mut text = String::new();
    let mut left = seconds;
    for (size, unit) in parts.iter().skip(largest).take(2) {
        // Writing to a string does not fail.
        let _ = write!(text, "{} {unit} ", left / size);
        left %= size;
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn render(template: &str, path: &str) -> String {
        let surroundings = Surroundings {
            unit: None,
            generation: None,
            worker: "index".to_owned(),
            route: "/".to_owned(),
            mode: "production".to_owned(),
            memory_limit: None,
            started: Instant::now(),
        };
        let page = Page {
            path,
            request_id: None,
            surroundings: &surroundings,
        };
        Template::parse(template).unwrap().render(&page)
    }

    #[test]
    fn values_are_text_whatever_is_in_them() {
        assert_eq!(
            render("<p title=\"{{path}}\">{{ worker }}</p>", "/<script>\"'&"),
            "<p title=\"/&lt;script&gt;&quot;&#39;&amp;\">index</p>"
        );
    }

    #[test]
    fn a_value_is_not_read_as_a_template() {
        assert_eq!(render("{{path}}", "/{{worker}}"), "/{{worker}}");
    }

    #[test]
    fn a_mistake_in_a_template_is_found_before_anything_is_served() {
        assert!(
            Template::parse("{{wroker}}")
                .unwrap_err()
                .contains("no value 'wroker'")
        );
        assert!(Template::parse("{{worker").is_err());
    }

    #[test]
    fn the_templates_that_are_here_are_right() {
        for file in ["views/index.html", "views/404.html"] {
            Template::load(file).unwrap();
        }
    }

    #[test]
    fn durations_have_their_two_largest_parts() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (200, "3 min 20 s"),
            (7500, "2 h 5 min"),
            (349_200, "4 d 1 h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }
}
