//! Labels from an agent's attributes, and the cleaning of every text that agents send.

use std::fmt::Write as _;

use super::masking::mask_attribute;
use super::proto::{AgentDescription, AnyValue, KeyValue, any_value};
use super::wire::WireError;
use crate::identity::is_reserved;
use crate::labels::{Labels, is_invisible};

/// Longest label value in bytes; longer ones are cut. Collectors put command lines and lists of addresses there.
pub const LONGEST_VALUE: usize = 1024;

/// Longest label key in bytes; longer ones are cut. The semantic conventions stay below 64.
pub const LONGEST_KEY: usize = 256;

/// Longest message of an agent that is kept, in bytes.
pub const LONGEST_MESSAGE: usize = 1024;

/// The labels of a description: identifying attributes win over others, the first of a repeated key wins. Secrets in them are masked, so
/// that no selector sees one either: labels are shown to everybody who may look.
///
/// # Errors
/// When they come to more than `most_bytes`.
pub fn labels(description: &AgentDescription, most_bytes: usize) -> Result<Labels, WireError> {
    let attributes = description.identifying_attributes.iter().chain(&description.non_identifying_attributes);
    let mut bytes = 0;
    let mut pairs = Vec::with_capacity(attributes.clone().count());
    for KeyValue { key, value } in attributes {
        let key = clean(key, LONGEST_KEY);
        // What only credentials give cannot be claimed.
        if key.is_empty() || is_reserved(&key) {
            continue;
        }
        // Masked before it is cut to its length, as all words of an agent.
        let value = clean(&mask_attribute(&key, &clean(&show(value.as_ref()), 4 * LONGEST_VALUE)), LONGEST_VALUE);
        bytes += key.len() + value.len();
        if bytes > most_bytes {
            return Err(WireError::AttributeBytes(most_bytes));
        }
        pairs.push((key, value));
    }
    Ok(Labels::new(pairs))
}

/// `text` on one line, without control characters and without those that turn the direction of writing, at most `limit` bytes.
pub fn clean(text: &str, limit: usize) -> String {
    let mut cleaned = String::with_capacity(text.len().min(limit));
    for character in text.trim().chars() {
        let shown = match character {
            '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
            other if other.is_control() || is_invisible(other) => continue,
            other => other,
        };
        if cleaned.len() + shown.len_utf8() > limit {
            break;
        }
        cleaned.push(shown);
    }
    cleaned
}

/// A value as a selector sees it: scalars as text, lists and maps as compact JSON, bytes in hexadecimal, null as nothing.
fn show(value: Option<&AnyValue>) -> String {
    use any_value::Value;
    match value.and_then(|value| value.value.as_ref()) {
        None => String::new(),
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BytesValue(bytes)) => hex::encode(&bytes[..bytes.len().min(LONGEST_VALUE)]),
        Some(Value::ArrayValue(_) | Value::KvlistValue(_)) => {
            let mut out = String::new();
            write_json(value, &mut out);
            out
        }
    }
}

/// Appends `value` as compact JSON and stops soon after [`LONGEST_VALUE`]: what is longer is cut anyway. The decoder has
/// bounded the depth already.
fn write_json(value: Option<&AnyValue>, out: &mut String) {
    use any_value::Value;
    match value.and_then(|value| value.value.as_ref()) {
        None => out.push_str("null"),
        Some(Value::StringValue(text)) => write_text(text, out),
        Some(Value::BoolValue(_) | Value::IntValue(_)) => out.push_str(&show(value)),
        Some(Value::DoubleValue(number)) if number.is_finite() => out.push_str(&show(value)),
        Some(Value::DoubleValue(_) | Value::BytesValue(_)) => write_text(&show(value), out),
        Some(Value::ArrayValue(list)) => {
            out.push('[');
            for (index, element) in list.values.iter().enumerate() {
                if out.len() > LONGEST_VALUE {
                    break;
                }
                out.push_str(if index == 0 { "" } else { "," });
                write_json(Some(element), out);
            }
            out.push(']');
        }
        Some(Value::KvlistValue(map)) => {
            out.push('{');
            for (index, pair) in map.values.iter().enumerate() {
                if out.len() > LONGEST_VALUE {
                    break;
                }
                out.push_str(if index == 0 { "" } else { "," });
                write_text(&pair.key, out);
                out.push(':');
                write_json(pair.value.as_ref(), out);
            }
            out.push('}');
        }
    }
}

fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars().take(LONGEST_VALUE) {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            control if u32::from(control) < 0x20 => {
                // Writing to a String cannot fail.
                let _written = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use any_value::Value;
    use proptest::prelude::*;

    use super::super::proto::{ArrayValue, KeyValueList};
    use super::*;

    fn made(value: Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    fn pair(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(made(value)) }
    }

    fn text(text: &str) -> Value {
        Value::StringValue(text.to_owned())
    }

    #[test]
    fn values_of_every_kind_have_a_text() {
        let list = Value::ArrayValue(ArrayValue {
            values: vec![
                made(text("a\"b")),
                made(Value::IntValue(1)),
                AnyValue { value: None },
                made(Value::DoubleValue(f64::NAN)),
            ],
        });
        let map = Value::KvlistValue(KeyValueList { values: vec![pair("k", text("v")), pair("l", list.clone())] });
        for (value, shown) in [
            (text("gw-1"), "gw-1"),
            (Value::BoolValue(true), "true"),
            (Value::IntValue(-3), "-3"),
            (Value::DoubleValue(0.5), "0.5"),
            (Value::DoubleValue(3.0), "3"),
            (Value::BytesValue(vec![0xde, 0xad].into()), "dead"),
            (list, r#"["a\"b",1,null,"NaN"]"#),
            (map, r#"{"k":"v","l":["a\"b",1,null,"NaN"]}"#),
        ] {
            assert_eq!(show(Some(&made(value.clone()))), shown, "{value:?}");
        }
        assert_eq!(show(None), "");
        assert_eq!(show(Some(&AnyValue { value: None })), "");
    }

    #[test]
    fn identifying_attributes_and_first_ones_win() {
        let description = AgentDescription {
            identifying_attributes: vec![pair("service.name", text("gw")), pair("service.name", text("second"))],
            non_identifying_attributes: vec![
                pair("service.name", text("other")),
                pair("os.type", text("linux")),
                pair("", text("no key")),
                pair("tls.cn", text("admin")),
                pair(" token.name", text("somebody")),
                KeyValue { key: "empty".into(), value: None },
            ],
        };
        let labels = labels(&description, 1_000).expect("few bytes");
        assert_eq!(labels.to_string(), "empty=, os.type=linux, service.name=gw");
    }

    #[test]
    fn attributes_are_bounded_in_all() {
        let wide = |count: usize| AgentDescription {
            identifying_attributes: Vec::new(),
            non_identifying_attributes: (0..count).map(|at| pair(&format!("k{at}"), text(&"v".repeat(9000)))).collect(),
        };
        let thirty = labels(&wide(30), 32 << 10).expect("thirty values cut to 1 KiB each");
        assert_eq!(thirty.get("k0").map(str::len), Some(LONGEST_VALUE));
        assert_eq!(labels(&wide(33), 32 << 10).err(), Some(WireError::AttributeBytes(32 << 10)));
    }

    #[test]
    fn cleaning_keeps_one_harmless_line() {
        for (dirty, limit, cleaned) in [
            ("plain", 10, "plain"),
            ("two\nlines", 20, "two lines"),
            ("\u{1b}[31mred\u{7}", 20, "[31mred"),
            ("a\u{202e}b\u{feff}c", 20, "abc"),
            ("grüße", 4, "grü"),
            ("  padded \n", 20, "padded"),
        ] {
            assert_eq!(clean(dirty, limit), cleaned, "{dirty:?}");
        }
    }

    proptest! {
        #[test]
        fn cleaned_text_is_bounded_and_printable(dirty in any::<String>(), limit in 0_usize..64) {
            let cleaned = clean(&dirty, limit);
            prop_assert!(cleaned.len() <= limit);
            prop_assert!(!cleaned.chars().any(char::is_control));
        }
    }
}
