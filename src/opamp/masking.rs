//! Takes secrets out of what agents say, before it is kept, shown or pushed: collectors quote addresses and headers in their errors.

/// What stands in a secret's place.
const MASK: &str = "***";

/// How the name of a secret ends, in lower case and without `_` and `-`: `client_secret`, `X-Api-Key` and `dbPassword` count,
/// `token_file` and `max_tokens` do not.
const KEYS: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "authorization",
    "credential",
    "credentials",
];

/// The schemes of an `Authorization` header; what follows one is the secret.
const SCHEMES: [&str; 6] = ["basic", "bearer", "token", "apikey", "digest", "negotiate"];

/// Words that go on in prose where a value could stand (`cannot fetch token: connection refused`, `Basic authentication failed`).
const PROSE: [&str; 62] = [
    "a",
    "access",
    "an",
    "and",
    "auth",
    "authentication",
    "authenticator",
    "authorization",
    "bad",
    "cannot",
    "check",
    "config",
    "configuration",
    "connection",
    "context",
    "could",
    "credentials",
    "dial",
    "does",
    "eof",
    "error",
    "expected",
    "expired",
    "extension",
    "failed",
    "for",
    "from",
    "get",
    "has",
    "header",
    "http",
    "in",
    "invalid",
    "is",
    "json",
    "lookup",
    "malformed",
    "missing",
    "must",
    "no",
    "not",
    "oauth2",
    "open",
    "or",
    "permission",
    "post",
    "read",
    "realm",
    "request",
    "required",
    "rpc",
    "scheme",
    "server",
    "stat",
    "the",
    "to",
    "token",
    "unable",
    "unauthorized",
    "unexpected",
    "was",
    "yaml",
];

/// The shortest value of an attribute that is taken for a secret by its name alone: a label like `needs-secret: "yes"` is none.
const SHORTEST_VALUE: usize = 8;

/// How far the userinfo of a URL may reach: no longer one is looked for.
const LONGEST_USERINFO: usize = 512;

/// The value of an attribute as it is kept: `***` when `key` names a secret, else masked like all words.
pub(super) fn mask_attribute(key: &str, value: &str) -> String {
    if is_key(key) && value.len() >= SHORTEST_VALUE { MASK.to_owned() } else { mask(value) }
}

/// `text` with `***` in place of the userinfo of URLs, of what follows `Bearer` and `Basic`, and of the values of keys and flags
/// that name a secret. Rather too much than too little: a value ends only at white space, a quote or an `&`. Linear in the length
/// of `text`, which the caller has limited.
pub fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        if is_name(first) {
            let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
            masked.push_str(name);
            at += name.len();
            let after = &text[at..];
            // `exporters::otlp::token: is required` is a path into the configuration, and an error behind it.
            let is_path = masked[..masked.len() - name.len()].ends_with("::");
            let secret = if is_key(name) && !is_path { value_of_key(after) } else { None };
            let secret = secret.or_else(|| value_of_scheme(name, after)).or_else(|| value_of_flag(name, after));
            if let Some((before, length)) = secret {
                masked.push_str(&after[..before]);
                masked.push_str(MASK);
                at += before + length;
            }
        } else if let Some(length) = rest.strip_prefix("://").and_then(userinfo) {
            masked.push_str("://");
            masked.push_str(MASK);
            at += "://".len() + length;
        } else {
            masked.push(first);
            at += first.len_utf8();
        }
    }
    masked
}

const fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-')
}

const fn is_quote(character: char) -> bool {
    matches!(character, '"' | '\'' | '`')
}

fn is_key(name: &str) -> bool {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    KEYS.iter().any(|key| name.ends_with(key))
}

fn is_one_of(words: &[&str], word: &str) -> bool {
    words.iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// How much of `text`, which follows `://`, is a user and a password: up to the `@`.
fn userinfo(text: &str) -> Option<usize> {
    let end = text.char_indices().find(|(at, c)| *at >= LONGEST_USERINFO || c.is_whitespace() || is_quote(*c));
    let text = &text[..end.map_or(text.len(), |(at, _)| at)];
    let authority = &text[..text.find(['/', '?', '#']).unwrap_or(text.len())];
    if let Some(length) = authority.rfind('@') {
        return Some(length);
    }
    // No port: a password with a slash in it, as people write them.
    let (_, port) = authority.split_once(':').filter(|_| !authority.starts_with('['))?;
    if port.chars().all(|c| c.is_ascii_digit()) { None } else { text.rfind('@') }
}

/// Where the value is in what follows a key: how much comes before it, and how long it is.
fn value_of_key(text: &str) -> Option<(usize, usize)> {
    // `"key": `, `\"key\": `, `["key"] = `
    let unquoted = text.strip_prefix('\\').unwrap_or(text);
    let unquoted = unquoted.strip_prefix(is_quote).unwrap_or(text);
    let separator = unquoted.strip_prefix(']').unwrap_or(unquoted).trim_start();
    if separator.starts_with("::") {
        return None;
    }
    let behind = separator.strip_prefix([':', '='])?.trim_start_matches(['=', '>']);
    let value = behind.trim_start();
    let before = text.len() - value.len();
    let inside = |opening: usize, length: usize| (length > 0).then_some((before + opening, length));
    if let Some(escaped) = value.strip_prefix("\\\"") {
        return inside(2, escaped.find("\\\"").unwrap_or(escaped.len()));
    }
    if let Some(quote) = value.chars().next().filter(|c| is_quote(*c)) {
        return inside(1, quoted(&value[1..], quote));
    }
    for (opening, closing) in [('[', ']'), ('{', '}')] {
        if let Some(list) = value.strip_prefix(opening) {
            return inside(1, list.find(closing).unwrap_or(list.len()));
        }
    }
    let length = bare(value);
    let first = &value[..length];
    // A reference is no secret, but its default may be one.
    if first.is_empty() || (first.starts_with("${") && !first.contains(":-")) {
        return None;
    }
    if is_one_of(&SCHEMES, first) {
        let second = value[length..].trim_start();
        let gap = value.len() - length - second.len();
        let more = bare(second);
        if more > 0 && !is_one_of(&PROSE, &second[..more]) {
            return inside(0, length + gap + more);
        }
    }
    // Only behind white space: `token=open` is a value.
    if value.len() < behind.len() && is_one_of(&PROSE, first) {
        return None;
    }
    inside(0, length)
}

/// The same for what follows `Bearer` or `Basic`, unless it goes on in prose.
fn value_of_scheme(name: &str, text: &str) -> Option<(usize, usize)> {
    if !is_one_of(&["bearer", "basic"], name) {
        return None;
    }
    let value = text.trim_start();
    let before = text.len() - value.len();
    let length = bare(value);
    let word = &value[..length];
    if before == 0 || word.is_empty() || is_one_of(&PROSE, word.trim_end_matches(['.', ':'])) {
        return None;
    }
    // As a header writes the scheme; otherwise a word in lower case is a word (`basic pipeline`).
    let is_header = name.starts_with('B');
    let is_word = word.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '.' | ':' | '-'));
    (is_header || !is_word).then_some((before, length))
}

/// The same for what follows `--password` in a command line, or in a list of its words.
fn value_of_flag(name: &str, text: &str) -> Option<(usize, usize)> {
    if !name.starts_with("--") || !is_key(name) {
        return None;
    }
    if let Some(next) = text.strip_prefix(is_quote) {
        let next = next.trim_start().strip_prefix(',')?.trim_start();
        let quote = next.chars().next().filter(|c| is_quote(*c))?;
        let length = quoted(&next[1..], quote);
        return (length > 0).then_some((text.len() - next.len() + 1, length));
    }
    let value = text.trim_start();
    let before = text.len() - value.len();
    let length = bare(value);
    let word = &value[..length];
    if before == 0 || word.is_empty() || word.starts_with(['-', '$', '<']) || is_one_of(&PROSE, word) {
        return None;
    }
    Some((before, length))
}

/// How long a value without quotes is.
fn bare(text: &str) -> usize {
    let end = text.find(|c: char| c.is_whitespace() || is_quote(c) || matches!(c, '&' | '\\'));
    text[..end.unwrap_or(text.len())].trim_end_matches([',', ';', ')', ']', '}']).len()
}

/// How long a value in quotes is, up to the closing one; all of it when that was cut off.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        if character == quote && !escaped {
            return at;
        }
        escaped = character == '\\' && !escaped;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_masked() {
        for (said, kept) in [
            (
                "Get \"https://ada:s3cret@otlp.example.com:4317/v1\": EOF",
                "Get \"https://***@otlp.example.com:4317/v1\": EOF",
            ),
            ("dial amqp://guest@broker/x", "dial amqp://***@broker/x"),
            ("https://ada:a/b#c@host/x", "https://***@host/x"),
            ("https://ada:p@ss@host and http://b:c@d", "https://***@host and http://***@d"),
            ("header Bearer abc.def-1 refused", "header Bearer *** refused"),
            ("Bearer xyz", "Bearer ***"),
            ("sent Basic dXNlcjpwYXNz, got 401", "sent Basic ***, got 401"),
            ("sent bearer AbC", "sent bearer ***"),
            ("Authorization: Bearer xyz rejected", "Authorization: *** rejected"),
            ("map[Authorization:[Bearer xyz] Host:[a]]", "map[Authorization:[***] Host:[a]]"),
            ("authorization: abc", "authorization: ***"),
            ("password=hunter2", "password=***"),
            ("PASSWORD = 'hunter two' user=ada", "PASSWORD = '***' user=ada"),
            ("{\"password\":\"hunter2\",\"user\":\"ada\"}", "{\"password\":\"***\",\"user\":\"ada\"}"),
            (
                "{\"pass\\\"word\":1,\"token\": \"a\\\"b\", \"c\": 1}",
                "{\"pass\\\"word\":1,\"token\": \"***\", \"c\": 1}",
            ),
            ("body {\\\"token\\\":\\\"abc\\\",\\\"x\\\":1}", "body {\\\"token\\\":\\\"***\\\",\\\"x\\\":1}"),
            ("line 3: api_key: abc123", "line 3: api_key: ***"),
            ("apikey=1 api-key=2 X-Api-Key: 3 access_key=4", "apikey=*** api-key=*** X-Api-Key: *** access_key=***"),
            ("GET /v1?access_token=abc&limit=3", "GET /v1?access_token=***&limit=3"),
            ("client_secret:=s3cret passwd=>x", "client_secret:=*** passwd=>***"),
            ("dbPassword=a,b;c credential: x)", "dbPassword=*** credential: ***)"),
            ("token=open", "token=***"),
            ("otelcol --config /etc/c.yaml --api-token abc --x", "otelcol --config /etc/c.yaml --api-token *** --x"),
            ("[\"otelcol\",\"--password\",\"hunter2\",\"-v\"]", "[\"otelcol\",\"--password\",\"***\",\"-v\"]"),
            ("otelcol --set=exporters.x.token=abc", "otelcol --set=exporters.x.token=***"),
            ("secret: \"cut off in the mid", "secret: \"***"),
            ("пароль password=пароль ende", "пароль password=*** ende"),
        ] {
            assert_eq!(mask(said), kept, "{said}");
        }
    }

    #[test]
    fn ordinary_errors_stay_as_they_are() {
        for said in [
            "",
            "unknown receiver: \"otpl\"",
            "yaml: line 3: found character that cannot start any token",
            "exporters::otlphttp::auth::token: must be set",
            "'exporters.otlp' has invalid keys: token, password",
            "cannot fetch token: connection refused",
            "token_file: /run/token does not exist",
            "max_tokens: 5",
            "password: ${env:PASSWORD}",
            "password: \"\"",
            "basic authentication failed",
            "flag --token is required",
            "otelcol --token --verbose",
            "otelcol --token-file /run/token",
            "[\"--password\",1]",
            "Basic authentication failed.",
            "Bearer token is missing",
            "a basic pipeline",
            "extension \"basicauth/client\" not found",
            "listen tcp 0.0.0.0:4317: bind: address already in use",
            "Get \"http://localhost:13133/a@b\": dial tcp [::1]:13133: connect: connection refused",
            "http://[::1]:4317/a@b",
            "ship to ops@example.com",
        ] {
            assert_eq!(mask(said), said);
        }
    }

    #[test]
    fn an_attribute_that_is_called_a_secret_is_one() {
        for (key, value, kept) in [
            ("api.key", "abcdefgh", "***"),
            ("vault_token", "s.abcdefgh", "***"),
            ("needs-secret", "yes", "yes"),
            ("service.name", "token-service", "token-service"),
            ("process.command_line", "otelcol --token abcdefgh", "otelcol --token ***"),
            ("endpoint", "https://ada:s3cret@otlp.example.com", "https://***@otlp.example.com"),
        ] {
            assert_eq!(mask_attribute(key, value), kept, "{key}");
        }
    }

    proptest! {
        #[test]
        fn a_value_never_survives_and_nothing_panics(before in ".{0,20}", after in ".{0,20}", key in "(api[_-]?key|TOKEN|passwd)") {
            let said = format!("{before} {key}=qzj9qzj9 {after}");
            // A quote or a bracket that was opened before swallows more, never less.
            prop_assert!(!mask(&said).contains("qzj9qzj9"), "{}", mask(&said));
        }

        #[test]
        fn masking_is_bounded(said in any::<String>()) {
            prop_assert!(mask(&said).len() <= said.len() * MASK.len() + MASK.len());
        }
    }
}
