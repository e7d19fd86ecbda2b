//! Credentials in plain text: found by where they stand and what they look like, and never repeated in a message.

use crate::fleet::diagnostic::Diagnostic;
use crate::fleet::fields::shorten;
use crate::yaml::{Kind, Node};

/// Words in a key that say that its value is a secret.
const SECRET_WORDS: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "authorization",
    "credential",
    "bearer",
    "auth_key",
];

/// Endings of keys that name where a secret stands, or something about it.
const HARMLESS_ENDINGS: [&str; 17] = [
    "file", "path", "dir", "url", "uri", "endpoint", "type", "name", "header", "env", "id", "ttl", "timeout",
    "interval", "scheme", "enabled", "claim",
];

/// How credentials of well-known services begin, with the number of characters that must follow at least.
const KNOWN_BEGINNINGS: [(&str, usize); 13] = [
    ("ghp_", 30),
    ("gho_", 30),
    ("ghs_", 30),
    ("github_pat_", 30),
    ("glpat-", 16),
    ("AKIA", 16),
    ("ASIA", 16),
    ("xoxb-", 20),
    ("xoxp-", 20),
    ("sk_live_", 16),
    ("glsa_", 20),
    ("dt0c01.", 20),
    ("eyJhbGciOi", 20),
];

/// One warning for each value that looks like a credential.
pub(super) fn find_secrets(node: &Node) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    search(node, None, &mut findings);
    findings
}

fn search(node: &Node, key: Option<&str>, findings: &mut Vec<Diagnostic>) {
    match &node.kind {
        Kind::Mapping(entries) => {
            for entry in entries {
                search(&entry.value, entry.key.as_str().or(key), findings);
            }
        }
        Kind::Sequence(items) => items.iter().for_each(|item| search(item, key, findings)),
        Kind::Scalar { text, .. } => {
            let suspicious = is_known_credential(text) || (key.is_some_and(is_secret_key) && is_literal_secret(text));
            if suspicious {
                let message = match key {
                    Some(key) => format!("the value of `{}` looks like a credential in plain text", shorten(key)),
                    None => "this looks like a credential in plain text".to_owned(),
                };
                let warning = Diagnostic::warning("plain-secret", Some(node.place.clone()), message);
                findings.push(warning.help("let the agent fill it in: `${env:NAME}` or `${file:/path}`; then replace the credential, history keeps it"));
            }
        }
    }
}

fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let folded: String = key.chars().filter(|char| !matches!(char, '-' | '_' | '.')).collect();
    let last = key.rsplit(['-', '_', '.']).next().unwrap_or(&key);
    let speaks_of_one = SECRET_WORDS.iter().any(|word| folded.contains(&word.replace('_', "")));
    speaks_of_one && !HARMLESS_ENDINGS.contains(&last)
}

/// A value that is there itself: not empty, not filled in by the agent, no truth value, number or name of a method.
fn is_literal_secret(text: &str) -> bool {
    let text = text.trim();
    let value = text.split_once(' ').filter(|(scheme, _)| is_scheme(scheme)).map_or(text, |(_, value)| value.trim());
    let is_word = matches!(value, "true" | "false" | "null" | "none" | "~") || is_scheme(value);
    value.len() >= 6
        && !value.contains("${")
        && !value.contains(' ')
        && !is_word
        && !value.starts_with('/')
        && value.parse::<f64>().is_err()
}

/// `Authorization: Bearer ...` and its like.
fn is_scheme(word: &str) -> bool {
    ["bearer", "basic", "token", "apikey", "api-key", "digest"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

fn is_known_credential(text: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let begins = text.split_whitespace().any(|word| {
        KNOWN_BEGINNINGS.iter().any(|(beginning, more)| {
            word.strip_prefix(beginning).is_some_and(|rest| rest.len() >= *more && rest.bytes().all(is_token))
        })
    });
    let is_key_block = text.contains("-----BEGIN ") && text.contains("PRIVATE KEY-----");
    begins || is_key_block || has_password_in_url(text)
}

/// `https://user:password@host`.
fn has_password_in_url(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let password = authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':')).map(|(_, password)| password);
    password.is_some_and(|password| !password.is_empty() && !password.contains("${"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_told_from_settings() {
        for (key, value, expected, why) in [
            ("password", "hunter2hunter2", true, "a literal password"),
            ("password", "${env:PASSWORD}", false, "filled in by the agent"),
            ("password", "", false, "nothing"),
            ("password_file", "/run/secrets/password", false, "where it stands"),
            ("api_key", "0123456789abcdef0123", true, "a literal key"),
            ("DD-API-KEY", "0123456789abcdef0123", true, "a header with a key"),
            ("Authorization", "Bearer abcdefghijklmnop", true, "a header with a token"),
            ("authorization", "Bearer ${env:TOKEN}", false, "a header that the agent fills in"),
            ("authorization", "Basic dXNlcjpwYXNz", true, "name and password, encoded"),
            ("token_url", "https://login.example.com/token", false, "an address"),
            ("token", "${file:/run/token}", false, "filled in by the agent"),
            ("auth_type", "serviceAccount", false, "a method"),
            ("client_secret", "s3cr3t-s3cr3t", true, "a literal secret"),
            ("secret_name", "collector-credentials", false, "the name of a secret"),
            ("endpoint", "https://user:hunter2@example.com", true, "a password in an address"),
            ("endpoint", "https://user:${env:P}@example.com", false, "an address that the agent completes"),
            ("endpoint", "0.0.0.0:4317", false, "an address"),
            ("key", "AKIAIOSFODNN7EXAMPLE", true, "a well-known form"),
            ("value", "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----", true, "a private key"),
            ("include_metadata_tokens", "true", false, "a truth value"),
            ("max_tokens", "4000000", false, "a number"),
        ] {
            let suspicious = is_known_credential(value) || (is_secret_key(key) && is_literal_secret(value));
            assert_eq!(suspicious, expected, "{key}: {value}: {why}");
        }
    }
}
