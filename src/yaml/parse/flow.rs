//! What the collector's reader takes for something else inside `[...]` and `{...}` than YAML says: refused, with what to write instead.

use granit_parser::Span;

/// What is wrong with a plain scalar (`text`, perhaps nothing at all) of a flow collection, and what to do about it.
///
/// The collector's reader ends neither a plain key nor a tag where `,`, `]` or `}` follows at once: `{nop:, b: 1}` has the keys `nop:`
/// and `b` for it, and in `[!x, b]` there is one item. Text that begins with `:` or `?` is a key or a value to it.
pub(super) fn refuse(source: &str, text: &str, has_tag: bool, span: &Span) -> Option<(&'static str, &'static str)> {
    let (Some(start), Some(end)) = (span.start.byte_offset(), span.end.byte_offset()) else { return None };
    let mut after = source.get(end..).unwrap_or_default().chars();
    let (next, behind) = (after.next(), after.next());
    let is_structure = |one: Option<char>| one.is_some_and(|one| matches!(one, ',' | '[' | ']' | '{' | '}'));
    if text.is_empty() {
        let touches = source.get(..start).is_some_and(|before| !before.ends_with([' ', '\t', '\n', '\r']));
        return (has_tag && touches && is_structure(next)).then_some((
            "a space is missing behind this tag",
            "without it the collector takes what follows for a part of the tag",
        ));
    }
    if text.starts_with([':', '?']) && text.len() > 1 {
        let message = "text that begins with `:` or `?` needs quotes inside `[...]` or `{...}`";
        return Some((message, "the collector takes these signs for a part of the structure there"));
    }
    (next == Some(':') && is_structure(behind)).then_some((
        "a space is missing behind the `:` of this key",
        "without it the collector takes the colon for a part of the key",
    ))
}
