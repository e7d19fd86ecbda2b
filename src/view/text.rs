//! Words of agents, committers and files as they may stand on a forge or in a chat: bounded, without anything that a page would act on.

pub use crate::labels::{is_deceptive, is_invisible};

/// The longest run of backticks that a fence can have to beat: longer ones are broken up.
const LONGEST_RUN: usize = 8;

/// One line without control characters, direction marks and invisible letters; runs of white space become one space.
pub fn plain(text: &str) -> String {
    let shown = text.chars().map(|c| if c.is_control() || c.is_whitespace() || is_invisible(c) { ' ' } else { c });
    shown.collect::<String>().split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// At most so many characters, with an ellipsis where something is missing.
pub fn clip(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    let kept: String = text.chars().take(longest.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// A line as Markdown code that it cannot end by itself: no link, mention, tag or emphasis in it has an effect.
pub fn code(text: &str) -> String {
    let text = broken_up(&plain(text));
    if text.is_empty() {
        return String::new();
    }
    let fence = "`".repeat(longest_run(&text) + 1);
    format!("{fence} {text} {fence}")
}

/// The same for a cell of a table, where a bar ends the cell even inside of code.
pub fn code_in_cell(text: &str) -> String {
    code(&text.replace('|', "¦"))
}

/// Lines as a Markdown code block that they cannot end.
pub fn block(lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| broken_up(&plain(line))).collect();
    let longest = lines.iter().map(|line| longest_run(line)).max().unwrap_or(0);
    let fence = "`".repeat((longest + 1).max(3));
    format!("{fence}text\n{}\n{fence}\n", lines.join("\n"))
}

fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// Runs of backticks that no sensible fence would beat, broken up.
fn broken_up(text: &str) -> String {
    if longest_run(text) <= LONGEST_RUN { text.to_owned() } else { text.replace('`', "'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_lines_become_harmless() {
        for (text, wanted) in [
            ("a\r\nb\tc", "a b c"),
            ("  many   spaces ", "many spaces"),
            ("\u{1b}[31mred\u{7}", "[31mred"),
            ("gp\u{202e}lfc.exe\u{200b}", "gp lfc.exe"),
            ("tag\u{e0041}s", "tag s"),
            ("", ""),
        ] {
            assert_eq!(plain(text), wanted, "{text:?}");
        }
        assert_eq!(clip("abcdef", 6), "abcdef");
        assert_eq!(clip("äöüßéè", 5), "äöüß…");
        assert_eq!(clip("abc  def", 5), "abc…");
    }

    #[test]
    fn nothing_ends_the_code_that_it_stands_in() {
        for (text, wanted) in [
            ("plain", "` plain `"),
            ("@everyone <img> [x](y)", "` @everyone <img> [x](y) `"),
            ("a ` b", "`` a ` b ``"),
            ("a ``` b", "```` a ``` b ````"),
            ("`````````", "` ''''''''' `"),
            ("", ""),
            ("two\nlines", "` two lines `"),
        ] {
            assert_eq!(code(text), wanted, "{text:?}");
        }
        assert_eq!(code_in_cell("a | b"), "` a ¦ b `");
        let block = block(&["one".to_owned(), "```\n# title".to_owned()]);
        assert_eq!(block, "````text\none\n``` # title\n````\n");
    }
}
