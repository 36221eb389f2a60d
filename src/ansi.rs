//! What compilers and workers write for a terminal, made fit for a page, for plain text and for another terminal. Colours can be kept;
//! nothing else that moves, hides, links or asks gets through.
//!
//! Text is read line by line: a sequence that is never ended takes the rest of its line with it, and not the rest of the log.

use std::fmt::Write as _;

use anstyle_parse::{Params, Parser, Perform};

/// The eight colours and their bright variants, as they can be read on a dark ground. Black is one of them.
const PALETTE: [Rgb; 16] = [
    Rgb(0x7d, 0x85, 0x90),
    Rgb(0xff, 0x7b, 0x72),
    Rgb(0x7e, 0xc6, 0x99),
    Rgb(0xe3, 0xb3, 0x41),
    Rgb(0x79, 0xb8, 0xff),
    Rgb(0xd2, 0xa8, 0xff),
    Rgb(0x6c, 0xd4, 0xd0),
    Rgb(0xc9, 0xd1, 0xd9),
    Rgb(0x8b, 0x94, 0x9e),
    Rgb(0xff, 0xa1, 0x98),
    Rgb(0x9b, 0xe0, 0xb0),
    Rgb(0xf2, 0xcc, 0x60),
    Rgb(0xa5, 0xd2, 0xff),
    Rgb(0xe2, 0xc5, 0xff),
    Rgb(0x9b, 0xe8, 0xe4),
    Rgb(0xff, 0xff, 0xff),
];

/// The page that [`to_html`] writes for.
const GROUND: Rgb = Rgb(0x0f, 0x12, 0x17);

/// The least brightness of letters on that page, of 255.
const BRIGHTNESS_MIN: u32 = 110;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rgb(u8, u8, u8);

/// How letters look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Style {
    letters: Option<Colour>,
    ground: Option<Colour>,
    bold: bool,
    dim: bool,
    italic: bool,
    underline: bool,
    strike: bool,
    reverse: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colour {
    /// One of the 256 that have numbers.
    Number(u8),
    Rgb(Rgb),
}

/// What is made of a text.
#[derive(Default)]
struct Writer {
    form: Form,
    out: String,
    style: Style,
    /// How what was written last looks.
    written: Style,
    /// A sequence was kept that nothing has taken back.
    open: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Form {
    #[default]
    Plain,
    Coloured,
    Html,
}

/// `text` as the content of an HTML element: colours and emphasis become `<span style>`, all else is escaped.
pub fn to_html(text: &str) -> String {
    convert(text, Form::Html)
}

/// `text` without escape sequences. Other control characters are shown as escapes (`\u{7}`); ends of lines and tabs stay.
pub fn strip(text: &str) -> String {
    convert(text, Form::Plain)
}

/// The same with its colours: the sequences that select them stay, and are taken back at the end.
pub fn keep_colours(text: &str) -> String {
    convert(text, Form::Coloured)
}

/// `text` as it can stand within a line of ours, wherever it comes from: what acts, ends of lines too, is shown as an escape.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match acts(c) {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
    line
}

/// The same of a path: the owner of a directory chooses the names of the files in it.
pub fn shown(path: &std::path::Path) -> String {
    one_line(&path.to_string_lossy())
}

/// Escapes `text` as content of an HTML element or of an attribute in double quotes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    text.chars().for_each(|c| escape_into(&mut escaped, c));
    escaped
}

/// Whether `c` is not a letter to look at but one that acts: a control character, or one that turns the direction of others.
pub fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn convert(text: &str, form: Form) -> String {
    let mut writer = Writer {
        form,
        out: String::with_capacity(text.len()),
        ..Writer::default()
    };
    for line in text.split_inclusive('\n') {
        let (line, end) = match line.strip_suffix('\n') {
            Some(line) => (line.strip_suffix('\r').unwrap_or(line), "\n"),
            None => (line, ""),
        };
        let mut parser = Parser::<anstyle_parse::Utf8Parser>::default();
        for &byte in line.as_bytes() {
            parser.advance(&mut writer, byte);
        }
        writer.out.push_str(end);
    }
    writer.end()
}

fn escape_into(out: &mut String, c: char) {
    match c {
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '&' => out.push_str("&amp;"),
        '"' => out.push_str("&quot;"),
        '\'' => out.push_str("&#39;"),
        c => out.push(c),
    }
}

impl Writer {
    fn put(&mut self, c: char) {
        if self.form != Form::Html {
            return self.out.push(c);
        }
        if self.written != self.style {
            self.turn(self.style);
        }
        escape_into(&mut self.out, c);
    }

    /// Shows a character that acts by its escape.
    fn show(&mut self, c: char) {
        c.escape_default().for_each(|c| self.put(c));
    }

    /// Ends the span that is open and begins one for `style`.
    fn turn(&mut self, style: Style) {
        if self.written != Style::default() {
            self.out.push_str("</span>");
        }
        if style != Style::default() {
            self.out.push_str("<span style=\"");
            style.write_css(&mut self.out);
            self.out.push_str("\">");
        }
        self.written = style;
    }

    fn end(mut self) -> String {
        match self.form {
            Form::Html => self.turn(Style::default()),
            Form::Coloured if self.open => self.out.push_str("\u{1b}[0m"),
            _ => {}
        }
        self.out
    }
}

impl Perform for Writer {
    fn print(&mut self, c: char) {
        if acts(c) { self.show(c) } else { self.put(c) }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\t' => self.put('\t'),
            byte => self.show(char::from(byte)),
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: u8) {
        if action != b'm' || ignore || !intermediates.is_empty() {
            return;
        }
        self.style.select(params);
        if self.form == Form::Coloured {
            self.out.push_str("\u{1b}[");
            for (at, parts) in params.iter().enumerate() {
                let parts: Vec<_> = parts.iter().map(u16::to_string).collect();
                let between = if at == 0 { "" } else { ";" };
                let _ = write!(self.out, "{between}{}", parts.join(":"));
            }
            self.out.push('m');
            // Not asked of `style`, which does not know blinking and its like. A 0 behind others may be the number of a colour.
            self.open = !params.iter().eq([&[0][..]]);
        }
    }
}

impl Style {
    /// Follows a sequence "select graphic rendition" (ECMA-48, 8.3.117, and what terminals have made of it).
    fn select(&mut self, params: &Params) {
        let mut params = params.iter();
        while let Some(parts) = params.next() {
            let number = parts[0];
            match number {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                3 => self.italic = true,
                4 => self.underline = parts.get(1) != Some(&0),
                7 => self.reverse = true,
                9 => self.strike = true,
                21 => self.underline = true,
                22 => (self.bold, self.dim) = (false, false),
                23 => self.italic = false,
                24 => self.underline = false,
                27 => self.reverse = false,
                29 => self.strike = false,
                30..=37 => self.letters = Colour::number(number - 30),
                39 => self.letters = None,
                40..=47 => self.ground = Colour::number(number - 40),
                49 => self.ground = None,
                90..=97 => self.letters = Colour::number(number - 90 + 8),
                100..=107 => self.ground = Colour::number(number - 100 + 8),
                38 | 48 => {
                    let colour = if parts.len() > 1 {
                        Colour::of_parts(&parts[1..])
                    } else {
                        Colour::of_params(&mut params)
                    };
                    if colour.is_some() && number == 38 {
                        self.letters = colour;
                    } else if colour.is_some() {
                        self.ground = colour;
                    }
                }
                _ => {}
            }
        }
    }

    fn write_css(self, out: &mut String) {
        let (mut letters, mut ground) = (self.letters, self.ground);
        if self.reverse {
            let page = Colour::Rgb(GROUND);
            let usual = Colour::Number(7);
            (letters, ground) = (Some(ground.unwrap_or(page)), Some(letters.unwrap_or(usual)));
        }
        if let Some(ground) = ground {
            let _ = write!(out, "background:{};", ground.rgb().css());
        }
        if let Some(letters) = letters {
            let rgb = letters.rgb();
            // On a ground of its own choice it is as readable as its author has made it.
            let rgb = if ground.is_some() {
                rgb
            } else {
                rgb.readable()
            };
            let _ = write!(out, "color:{};", rgb.css());
        }
        for (is, css) in [
            (self.bold, "font-weight:bold;"),
            (self.dim, "opacity:.7;"),
            (self.italic, "font-style:italic;"),
        ] {
            out.push_str(if is { css } else { "" });
        }
        out.push_str(match (self.underline, self.strike) {
            (true, true) => "text-decoration:underline line-through;",
            (true, false) => "text-decoration:underline;",
            (false, true) => "text-decoration:line-through;",
            (false, false) => "",
        });
    }
}

impl Colour {
    fn number(number: u16) -> Option<Self> {
        u8::try_from(number).ok().map(Self::Number)
    }

    /// `2;R;G;B` or `5;N`, as most write it.
    fn of_params<'a>(params: &mut impl Iterator<Item = &'a [u16]>) -> Option<Self> {
        let mut next = || params.next().map(|parts| parts[0]);
        match next()? {
            5 => Self::number(next()?),
            2 => Self::of_rgb(&[next()?, next()?, next()?]),
            _ => None,
        }
    }

    /// `2:R:G:B`, `2:SPACE:R:G:B` or `5:N`, as the standard has it.
    fn of_parts(parts: &[u16]) -> Option<Self> {
        match parts {
            [5, number, ..] => Self::number(*number),
            [2, red, green, blue] => Self::of_rgb(&[*red, *green, *blue]),
            [2, _, red, green, blue, ..] => Self::of_rgb(&[*red, *green, *blue]),
            _ => None,
        }
    }

    fn of_rgb(parts: &[u16; 3]) -> Option<Self> {
        let [red, green, blue] = parts.map(|part| u8::try_from(part).ok());
        Some(Self::Rgb(Rgb(red?, green?, blue?)))
    }

    fn rgb(self) -> Rgb {
        // Six steps of each colour, unequal as xterm has them.
        let step = |n: u8| if n == 0 { 0 } else { 55 + 40 * n };
        match self {
            Self::Rgb(rgb) => rgb,
            Self::Number(n @ 0..=15) => PALETTE[usize::from(n)],
            Self::Number(n @ 16..=231) => {
                let n = n - 16;
                Rgb(step(n / 36), step(n / 6 % 6), step(n % 6))
            }
            Self::Number(n @ 232..) => {
                let grey = 8 + 10 * (n - 232);
                Rgb(grey, grey, grey)
            }
        }
    }
}

impl Rgb {
    fn css(self) -> String {
        format!("#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }

    /// How bright the eye finds it, of 255.
    fn brightness(self) -> u32 {
        let [red, green, blue] = [self.0, self.1, self.2].map(u32::from);
        (red * 299 + green * 587 + blue * 114) / 1000
    }

    /// The same colour, mixed with as much white as it takes to be read on a dark page.
    fn readable(self) -> Self {
        let brightness = self.brightness();
        if brightness >= BRIGHTNESS_MIN {
            return self;
        }
        let (white, all) = (BRIGHTNESS_MIN - brightness, 255 - brightness);
        let mix = |part: u8| {
            let part = u32::from(part);
            u8::try_from(part + (255 - part) * white / all).unwrap_or(u8::MAX)
        };
        Self(mix(self.0), mix(self.1), mix(self.2))
    }
}

/// Panics if what must hold of any text does not of this one.
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub fn check(text: &str) {
    let calm = |c: char| !acts(c) || c == '\n' || c == '\t';
    let plain = strip(text);
    assert!(plain.chars().all(calm), "{text:?} -> {plain:?}");
    assert_eq!(strip(&plain), plain, "{text:?}");
    let html = to_html(text);
    assert!(html.chars().all(calm), "{text:?} -> {html:?}");
    let begun = html.matches("<span style=\"").count();
    assert_eq!(
        begun,
        html.matches("</span>").count(),
        "{text:?} -> {html:?}"
    );
    assert_eq!(html.matches('<').count(), begun * 2, "{text:?} -> {html:?}");
    // Without its spans the page shows what the plain text says.
    let mut shown = String::new();
    for part in html.split('<') {
        let tag = part.starts_with("span style=\"") || part.starts_with("/span>");
        let end = if tag { part.find('>').unwrap() + 1 } else { 0 };
        shown.push_str(&part[end..]);
    }
    assert_eq!(shown, escape(&plain), "{text:?} -> {html:?}");
    let coloured = keep_colours(text);
    assert_eq!(strip(&coloured), plain, "{text:?} -> {coloured:?}");
    assert_eq!(keep_colours(&coloured), coloured, "{text:?}");
    assert!(!coloured.contains('\u{1b}') || coloured.contains("\u{1b}[0m"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_become_spans_and_their_end_is_the_end_of_the_span() {
        assert_eq!(
            to_html("\u{1b}[1;31merror\u{1b}[0m: it's <here>"),
            "<span style=\"color:#ff7b72;font-weight:bold;\">error</span>: it&#39;s &lt;here&gt;"
        );
        assert_eq!(
            to_html("\u{1b}[31ma\nb"),
            "<span style=\"color:#ff7b72;\">a\nb</span>"
        );
        assert_eq!(to_html("\u{1b}[31m\u{1b}[0mplain\u{1b}[4m"), "plain");
    }

    #[test]
    fn every_way_to_name_a_colour_is_understood() {
        for (sequence, css) in [
            ("38;5;203", "color:#ff5f5f;"),
            ("38:5:203", "color:#ff5f5f;"),
            ("38;5;250", "color:#bcbcbc;"),
            ("38;2;255;136;0", "color:#ff8800;"),
            ("38:2:255:136:0", "color:#ff8800;"),
            ("38:2::255:136:0", "color:#ff8800;"),
            ("91", "color:#ffa198;"),
            ("41", "background:#ff7b72;"),
            ("104", "background:#a5d2ff;"),
            ("48;2;1;2;3", "background:#010203;"),
            ("7", "background:#c9d1d9;color:#0f1217;"),
            (
                "2;3;4;9",
                "opacity:.7;font-style:italic;text-decoration:underline line-through;",
            ),
        ] {
            let html = to_html(&format!("\u{1b}[{sequence}mx"));
            assert_eq!(
                html,
                format!("<span style=\"{css}\">x</span>"),
                "{sequence}"
            );
        }
        for nothing in ["38;5", "38;2;1;2", "38;2;256;0;0", "38;9", "73", ">4", "?4"] {
            assert_eq!(to_html(&format!("\u{1b}[{nothing}mx")), "x", "{nothing}");
        }
    }

    #[test]
    fn what_is_taken_back_one_by_one_is_gone() {
        let all = "\u{1b}[1;2;3;4;7;9;31;42m";
        assert_eq!(to_html(&format!("{all}\u{1b}[22;23;24;27;29;39;49mx")), "x");
    }

    #[test]
    fn letters_can_be_read_on_a_dark_page() {
        for number in 0..=255 {
            let bright = Colour::Number(number).rgb().readable().brightness();
            assert!(bright >= BRIGHTNESS_MIN - 2, "{number}: {bright}");
        }
        assert_eq!(to_html("\u{1b}[30mx").matches("#7d8590").count(), 1);
    }

    #[test]
    fn what_is_not_a_colour_does_not_get_through() {
        let sly = "\u{1b}]8;;https://example.org\u{1b}\\link\u{1b}]8;;\u{1b}\\ \u{1b}]0;title\u{7}\u{1b}[2J\u{1b}[1;1H\u{1b}c\
                   \u{1b}P1$r\u{1b}\\\u{1b}_x\u{1b}\\\u{1b}(0\u{7}\u{8}\u{9b}2J\u{202e}\u{7f}\0";
        let plain = "link \\u{7}\\u{8}\\u{9b}2J\\u{202e}\\u{7f}\\u{0}";
        assert_eq!(strip(sly), plain);
        assert_eq!(keep_colours(sly), plain);
        assert_eq!(to_html(sly), plain);
    }

    #[test]
    fn a_sequence_without_an_end_takes_no_other_line_with_it() {
        for begun in ["\u{1b}]8;;x", "\u{1b}P1", "\u{1b}[3", "\u{1b}", "\u{1b}_x"] {
            assert_eq!(strip(&format!("a{begun}\nb")), "a\nb", "{begun:?}");
        }
    }

    #[test]
    fn ends_of_lines_and_tabs_stay_and_a_return_is_shown_where_it_would_overwrite() {
        assert_eq!(strip("a\tb\r\nc\rd\n\n"), "a\tb\nc\\rd\n\n");
    }

    #[test]
    fn kept_colours_are_taken_back() {
        assert_eq!(
            keep_colours("\u{1b}[1;38:2::1:2:3mx\u{1b}[2K"),
            "\u{1b}[1;38:2:0:1:2:3mx\u{1b}[0m"
        );
        assert_eq!(
            keep_colours("\u{1b}[31mx\u{1b}[m."),
            "\u{1b}[31mx\u{1b}[0m."
        );
        assert_eq!(keep_colours("\u{1b}[5mx"), "\u{1b}[5mx\u{1b}[0m");
    }

    #[test]
    fn nothing_in_a_line_of_ours_acts() {
        let evil = "a\u{1b}]0;pwned\u{7}\u{1b}[31mx\nFAKE\u{9b}2J\u{202e}\u{2066}";
        let line = one_line(evil);
        assert!(!line.chars().any(acts), "{line:?}");
        assert_eq!(one_line("ä/b c.txt"), "ä/b c.txt");
        assert_eq!(shown(std::path::Path::new("a\nb")), "a\\nb");
    }

    #[test]
    fn no_bytes_become_markup_or_move_a_cursor() {
        let mut random = fastrand::Rng::with_seed(7);
        let pieces = [
            "\u{1b}", "\u{1b}[", "\u{1b}]", "\u{1b}P", "[", ";", ":", "m", "31", "38", "2", "5",
            "0", "\u{7}", "\\", "<", ">", "&", "\"", "'", "script", "\u{9b}", "\u{9c}", "ü",
            "\u{202e}", "\r", "\n", "\t", "x",
        ];
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..random.usize(0..24) {
                match random.bool() {
                    true => text.push_str(pieces[random.usize(0..pieces.len())]),
                    false => {
                        text.push_str(&String::from_utf8_lossy(&[random.u8(..), random.u8(..)]))
                    }
                }
            }
            check(&text);
        }
    }
}
