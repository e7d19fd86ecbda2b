//! Cases that a person wrote: what configurations of collectors hold, and what is easily got wrong.

/// What it shows, its layers, and what the collector reads: `["#", type, text]` is a value that JSON has no type for.
pub(crate) const SAME: &[(&str, &[&str], &str)] = &[
    (
        "words that are booleans in YAML 1.1 only",
        &["a: no\nb: yes\nc: on\nd: off\ne: y\nf: N"],
        r##"{"a":"no","b":"yes","c":"on","d":"off","e":"y","f":"N"}"##,
    ),
    ("booleans", &["a: true\nb: False\nc: TRUE"], r##"{"a":true,"b":false,"c":true}"##),
    ("quoted booleans are text", &["a: 'true'\nb: \"no\""], r##"{"a":"true","b":"no"}"##),
    (
        "octal numbers of YAML 1.1 and 1.2",
        &["a: 012\nb: 0o12\nc: 0777"],
        r##"{"a":["#","int","10"],"b":["#","int","10"],"c":["#","int","511"]}"##,
    ),
    (
        "digits that no octal number has",
        &["a: 08\nb: 09\nc: '08'"],
        r##"{"a":["#","float","8"],"b":["#","float","9"],"c":"08"}"##,
    ),
    (
        "hexadecimal and binary numbers",
        &["a: 0x1F\nb: 0b101\nc: -0x10"],
        r##"{"a":["#","int","31"],"b":["#","int","5"],"c":["#","int","-16"]}"##,
    ),
    (
        "underscores in numbers",
        &["a: 1_000\nb: 4_294_967_296\nc: _1"],
        r##"{"a":["#","int","1000"],"b":["#","int","4294967296"],"c":"_1"}"##,
    ),
    (
        "exponents",
        &["a: 1e3\nb: 1E-3\nc: 1.5e+3\nd: e3"],
        r##"{"a":["#","float","1000"],"b":["#","float","0.001"],"c":["#","float","1500"],"d":"e3"}"##,
    ),
    (
        "the largest numbers",
        &["a: 9223372036854775807\nb: -9223372036854775808\nc: 9223372036854775808\nd: 18446744073709551615"],
        r##"{"a":["#","int","9223372036854775807"],"b":["#","int","-9223372036854775808"],"c":["#","uint64","9223372036854775808"],"d":["#","uint64","18446744073709551615"]}"##,
    ),
    (
        "numbers that are too large",
        &["a: 18446744073709551616\nb: 123456789012345678901234567890\nc: 1e400"],
        r##"{"a":["#","float","1.8446744073709552e+19"],"b":["#","float","1.2345678901234568e+29"],"c":"1e400"}"##,
    ),
    (
        "fractions",
        &["a: 1.0\nb: .5\nc: 1.\nd: -0.0\ne: 0.1"],
        r##"{"a":["#","float","1"],"b":["#","float","0.5"],"c":["#","float","1"],"d":["#","float","-0"],"e":["#","float","0.1"]}"##,
    ),
    (
        "infinite, and no number",
        &["a: .inf\nb: -.Inf\nc: .NaN\nd: inf\ne: NaN"],
        r##"{"a":["#","float","+Inf"],"b":["#","float","-Inf"],"c":["#","float","NaN"],"d":"inf","e":"NaN"}"##,
    ),
    (
        "signs",
        &["a: +1\nb: -1\nc: '-1'\nd: +.5"],
        r##"{"a":["#","int","1"],"b":["#","int","-1"],"c":"-1","d":["#","float","0.5"]}"##,
    ),
    (
        "null in its spellings",
        &["a: ~\nb: null\nc: Null\nd:\ne: nil\nf: ''"],
        r##"{"a":null,"b":null,"c":null,"d":null,"e":"nil","f":""}"##,
    ),
    (
        "times of day are no numbers to base 60",
        &["a: 22:30\nb: 12:30:45\nc: 1:2"],
        r##"{"a":"22:30","b":"12:30:45","c":"1:2"}"##,
    ),
    (
        "dates and times",
        &["a: 2024-01-01\nb: 2024-01-01T10:00:00Z\nc: '2024-01-01'\nd: 2024-01-01 10:00:00\ne: 2024-13-45"],
        r##"{"a":["#","time","2024-01-01T00:00:00Z"],"b":["#","time","2024-01-01T10:00:00Z"],"c":"2024-01-01","d":["#","time","2024-01-01T10:00:00Z"],"e":"2024-13-45"}"##,
    ),
    (
        "durations and sizes",
        &["a: 30s\nb: 1h30m\nc: 1.5h\nd: 512MiB\ne: 50%"],
        r##"{"a":"30s","b":"1h30m","c":"1.5h","d":"512MiB","e":"50%"}"##,
    ),
    (
        "addresses",
        &["a: 0.0.0.0:4317\nb: :8888\nc: '[::]:4317'\nd: http://otel:4318/v1/traces\ne: ::1"],
        r##"{"a":"0.0.0.0:4317","b":":8888","c":"[::]:4317","d":"http://otel:4318/v1/traces","e":"::1"}"##,
    ),
    (
        "regular expressions and paths",
        &["a: ^(?P<a>[a-z]+)$\nb: C:\\Program Files\\x\nc: \\d+\nd: '\\d'\ne: \"\\\\d\""],
        r##"{"a":"^(?P<a>[a-z]+)$","b":"C:\\Program Files\\x","c":"\\d+","d":"\\d","e":"\\d"}"##,
    ),
    (
        "statements with quotes and brackets",
        &["a: attributes[\"x\"] == \"y\"\nb: IsMatch(name, \"x.*\") and kind == 1"],
        r##"{"a":"attributes[\"x\"] == \"y\"","b":"IsMatch(name, \"x.*\") and kind == 1"}"##,
    ),
    (
        "quotes within quotes",
        &["a: 'it''s'\nb: \"say \\\"hi\\\"\"\nc: it's"],
        r##"{"a":"it's","b":"say \"hi\"","c":"it's"}"##,
    ),
    ("escapes", &["a: \"\\t\\n\\x41\\u00e9\\U0001F600\\e\"\nb: '\\t'"], r##"{"a":"\t\nAé😀\u001b","b":"\\t"}"##),
    (
        "characters of all languages",
        &["a: é\nb: 日本語\nc: 😀\n'ключ': значение"],
        r##"{"a":"é","b":"日本語","c":"😀","ключ":"значение"}"##,
    ),
    (
        "no-break spaces and other blanks are text",
        &["a: x\u{a0}y\nb: \u{a0}\nc: x\u{3000}y"],
        r##"{"a":"x\u00a0y","b":"\u00a0","c":"x\u3000y"}"##,
    ),
    (
        "a literal text",
        &["a: |\n  one\n    two\n\n  three\nb: 1"],
        r##"{"a":"one\n  two\n\nthree\n","b":["#","int","1"]}"##,
    ),
    (
        "a literal text without its last line break",
        &["a: |-\n  one\n  two\nb: 1"],
        r##"{"a":"one\ntwo","b":["#","int","1"]}"##,
    ),
    (
        "a literal text with all its line breaks",
        &["a: |+\n  one\n\n\nb: 1"],
        r##"{"a":"one\n\n\n","b":["#","int","1"]}"##,
    ),
    ("a literal text at the end of a file without a line break", &["a: |\n  one\n  two"], r##"{"a":"one\ntwo"}"##),
    (
        "an indentation that is said",
        &["a: |2\n    one\n   two\nb: 1"],
        r##"{"a":"  one\n two\n","b":["#","int","1"]}"##,
    ),
    (
        "a folded text",
        &["a: >\n  one\n  two\n\n  three\n    four\n  five\nb: 1"],
        r##"{"a":"one two\nthree\n  four\nfive\n","b":["#","int","1"]}"##,
    ),
    (
        "a folded text with all its line breaks",
        &["a: >+\n  one\n  two\n\n\nb: >-\n  three\n"],
        r##"{"a":"one two\n\n\n","b":"three"}"##,
    ),
    (
        "trailing spaces and tabs in a literal text",
        &["a: |\n  one  \n  two\t\n  \tthree\n"],
        r##"{"a":"one  \ntwo\t\n\tthree\n"}"##,
    ),
    (
        "plain text over several lines",
        &["a: one\n  two\n\n  three\nb: 1"],
        r##"{"a":"one two\nthree","b":["#","int","1"]}"##,
    ),
    (
        "quoted text over several lines",
        &["a: \"one\n  two \\\n  three\n\n  four\"\nb: 'five\n  six'"],
        r##"{"a":"one two three\nfour","b":"five six"}"##,
    ),
    (
        "comments that are none",
        &["a: x#y\nb: x #y\nc: '#z'\nd: http://h/#a # why"],
        r##"{"a":"x#y","b":"x","c":"#z","d":"http://h/#a"}"##,
    ),
    (
        "comments everywhere",
        &["# top\na: # behind a key\n  # alone\n  b: 1 # behind a value\n# end"],
        r##"{"a":{"b":["#","int","1"]}}"##,
    ),
    (
        "Windows line ends",
        &["a: 1\r\nb:\r\n  c: |\r\n    one\r\n    two\r\n"],
        r##"{"a":["#","int","1"],"b":{"c":"one\ntwo\n"}}"##,
    ),
    ("a byte order mark", &["\u{feff}a: 1\n"], r##"{"a":["#","int","1"]}"##),
    ("marks of the document", &["%YAML 1.1\n---\na: 1\n...\n"], r##"{"a":["#","int","1"]}"##),
    (
        "flow style over several lines",
        &["a: {b: 1,\n  c: [1,\n  2,], d: {}}"],
        r##"{"a":{"b":["#","int","1"],"c":[["#","int","1"],["#","int","2"]],"d":{}}}"##,
    ),
    (
        "JSON",
        &["{\"a\": {\"b\": [1, 2.5, true, null, \"x\"]}}"],
        r##"{"a":{"b":[["#","int","1"],["#","float","2.5"],true,null,"x"]}}"##,
    ),
    (
        "lists of lists and of maps",
        &["a:\n- - 1\n  - [2, 3]\n- b: 1\n  c: 2\n-\n  d: 3\n-"],
        r##"{"a":[[["#","int","1"],[["#","int","2"],["#","int","3"]]],{"b":["#","int","1"],"c":["#","int","2"]},{"d":["#","int","3"]},null]}"##,
    ),
    (
        "anchors and aliases",
        &["a: &x {b: [1]}\nc: *x\nd: &y 012\ne: *y"],
        r##"{"a":{"b":[["#","int","1"]]},"c":{"b":[["#","int","1"]]},"d":["#","int","10"],"e":["#","int","10"]}"##,
    ),
    (
        "merge keys",
        &["a: &x {b: 1, c: 2}\nd:\n  <<: *x\n  c: 3\n  e: 4"],
        r##"{"a":{"b":["#","int","1"],"c":["#","int","2"]},"d":{"b":["#","int","1"],"c":["#","int","3"],"e":["#","int","4"]}}"##,
    ),
    (
        "several maps in a merge key",
        &["a: {<<: [{b: 1, c: 1}, {b: 2, d: 2}], d: 3}"],
        r##"{"a":{"b":["#","int","1"],"c":["#","int","1"],"d":["#","int","3"]}}"##,
    ),
    (
        "merge keys within merged maps",
        &["a: &x {<<: {b: 1, c: {d: 1}}, e: 1}\nf: {<<: *x, c: {g: 2}}"],
        r##"{"a":{"b":["#","int","1"],"c":{"d":["#","int","1"]},"e":["#","int","1"]},"f":{"b":["#","int","1"],"c":{"g":["#","int","2"]},"e":["#","int","1"]}}"##,
    ),
    ("a merge key with quotes is a key", &["a: {\"<<\": {b: 1}}"], r##"{"a":{"<<":{"b":["#","int","1"]}}}"##),
    (
        "keys with blanks, dots, slashes and colons",
        &["a b: 1\notlp/2: 2\nk8s.pod.ip: 3\na:b: 4\n\"x: y\": 5"],
        r##"{"a b":["#","int","1"],"a:b":["#","int","4"],"k8s.pod.ip":["#","int","3"],"otlp/2":["#","int","2"],"x: y":["#","int","5"]}"##,
    ),
    (
        "keys that look like values",
        &["a: {on: 1, yes: 2, 22:30: 3, 10.0.0.1: 4}"],
        r##"{"a":{"10.0.0.1":["#","int","4"],"22:30":["#","int","3"],"on":["#","int","1"],"yes":["#","int","2"]}}"##,
    ),
    (
        "keys that are values, and the same text as one",
        &["a: {200: x, true: y, 1.5: z, -1: w}"],
        r##"{"a":{"-1":"w","1.5":"z","200":"x","true":"y"}}"##,
    ),
    ("an empty key", &["a: {\"\": 1}"], r##"{"a":{"":["#","int","1"]}}"##),
    (
        "tags",
        &["a: !!str 012\nb: !!int '12'\nc: !!float 1\nd: !!binary aGk=\ne: !local x\nf: ! 12"],
        r##"{"a":"012","b":["#","int","12"],"c":["#","float","1"],"d":"hi","e":"x","f":["#","int","12"]}"##,
    ),
    ("a key without a value at the end", &["a:\n  b:\n"], r##"{"a":{"b":null}}"##),
    ("an empty map, an empty list, nothing", &["a: {}\nb: []\nc:\n"], r##"{"a":{},"b":[],"c":null}"##),
    (
        "references stay what they are",
        &[
            "a: ${env:WORD}\nb: x-${env:WORD}-${env:NUMBER}\nc: ${env:NUMBER}\nd: '${env:FLAG}'\ne: ${env:UNSET:-7}\nf: ${WORD}",
        ],
        r##"{"a":"word","b":"x-word-0123","c":["#","int","83"],"d":true,"e":["#","int","7"],"f":"word"}"##,
    ),
    (
        "references to what is a list or a map",
        &["a: ${env:LIST}\nb: ${env:MAP}\nc: '${yaml:{x: 012}}'"],
        r##"{"a":[["#","int","1"],"two"],"b":{"a":["#","int","1"],"b":{"c":["#","int","2"]}},"c":"{x: 012}"}"##,
    ),
    (
        "dollars that are no references",
        &["a: $${env:WORD}\nb: $WORD\nc: $$\nd: 'x$'\ne: $$$${env:WORD}"],
        r##"{"a":"${env:WORD}","b":"$WORD","c":"$","d":"x$","e":"$${env:WORD}"}"##,
    ),
    (
        "maps merge",
        &["a: {b: 1, c: {d: 1}}", "a: {c: {e: 2}, f: 3}"],
        r##"{"a":{"b":["#","int","1"],"c":{"d":["#","int","1"],"e":["#","int","2"]},"f":["#","int","3"]}}"##,
    ),
    ("lists are replaced", &["a: [1, 2, 3]", "a: [4]"], r##"{"a":[["#","int","4"]]}"##),
    ("nothing merges within lists", &["a: [{b: 1}]", "a: [{c: 1}]"], r##"{"a":[{"c":["#","int","1"]}]}"##),
    ("null replaces a map", &["a: {b: 1}", "a:"], r##"{"a":null}"##),
    ("null replaces a value", &["a: 1\nb: 2", "a: ~"], r##"{"a":null,"b":["#","int","2"]}"##),
    ("a map replaces null", &["a:", "a: {b: 1}"], r##"{"a":{"b":["#","int","1"]}}"##),
    ("an empty map adds nothing", &["a: {b: 1}", "a: {}"], r##"{"a":{"b":["#","int","1"]}}"##),
    ("an empty map replaces a value", &["a: 1\nb: [1]\nc:", "a: {}\nb: {}\nc: {}"], r##"{"a":{},"b":{},"c":{}}"##),
    ("an empty list replaces", &["a: [1]\nb: {c: 1}", "a: []\nb: []"], r##"{"a":[],"b":[]}"##),
    (
        "a value replaces a map, and a map that value",
        &["a: {b: 1}", "a: x", "a: {c: 1}"],
        r##"{"a":{"c":["#","int","1"]}}"##,
    ),
    ("quotes decide, not the text", &["a: '012'\nb: 012", "a: 012\nb: '012'"], r##"{"a":["#","int","10"],"b":"012"}"##),
    (
        "a quoted key is the same key",
        &["\"a\": {b: 1}", "a: {'b': 2, c: 3}"],
        r##"{"a":{"b":["#","int","2"],"c":["#","int","3"]}}"##,
    ),
    (
        "many layers",
        &["a: {b: 1}", "a: {c: 2}", "a: {b: 3}", "d: {}", "a: {d: 4}"],
        r##"{"a":{"b":["#","int","3"],"c":["#","int","2"],"d":["#","int","4"]},"d":{}}"##,
    ),
    (
        "aliases do not reach into the next layer",
        &["a: &x {b: 1}\nc: *x", "a: {b: 2}"],
        r##"{"a":{"b":["#","int","2"]},"c":{"b":["#","int","1"]}}"##,
    ),
    (
        "merge keys, then layers",
        &["x: &x {b: 1, c: 1}\na: {<<: *x, b: 2}", "a: {c: 3}"],
        r##"{"a":{"b":["#","int","2"],"c":["#","int","3"]},"x":{"b":["#","int","1"],"c":["#","int","1"]}}"##,
    ),
    ("an empty layer", &["a: 1", "", "# nothing\n", "~"], r##"{"a":["#","int","1"]}"##),
    (
        "a collector's configuration",
        &[
            "receivers:\n  otlp:\n    protocols:\n      grpc:\n      http: {endpoint: 0.0.0.0:4318}\nexporters:\n  otlp/a: {endpoint: a:4317, tls: {insecure: true}}\nservice:\n  pipelines:\n    traces: {receivers: [otlp], exporters: [otlp/a]}\n",
            "exporters:\n  otlp/a: {tls: {insecure: false, ca_file: /ca.pem}}\n  debug:\nservice:\n  pipelines:\n    traces: {exporters: [otlp/a, debug]}\n",
        ],
        r##"{"exporters":{"debug":null,"otlp/a":{"endpoint":"a:4317","tls":{"ca_file":"/ca.pem","insecure":false}}},"receivers":{"otlp":{"protocols":{"grpc":null,"http":{"endpoint":"0.0.0.0:4318"}}}},"service":{"pipelines":{"traces":{"exporters":["otlp/a","debug"],"receivers":["otlp"]}}}}"##,
    ),
];

/// Neither of us takes these.
pub(crate) const REFUSED_BY_BOTH: &[(&str, &[&str])] = &[
    ("a key twice", &["a: 1\nb: 2\na: 3"]),
    ("a key twice, once in quotes", &["a: {x: 1, \"x\": 2}"]),
    ("a key twice, deep down", &["a:\n  b:\n    c: 1\n    c: 1"]),
    ("two merge keys", &["a: {<<: {b: 1}, <<: {c: 1}}"]),
    ("a merge of no map", &["a: {<<: 1}"]),
    ("a list as the document", &["- a"]),
    ("text as the document", &["a"]),
    ("a number as the document", &["12"]),
    ("a number as a key at the top", &["1: a"]),
    ("a boolean as a key at the top", &["a: 1\ntrue: b"]),
    ("null as a key at the top", &["~: a"]),
    ("a date as a key at the top", &["2024-01-01: a"]),
    ("a tab as indentation", &["a:\n\tb: 1"]),
    ("a wrong indentation", &["a:\n    b: 1\n  c: 1"]),
    ("an alias of nothing", &["a: *x"]),
    ("an alias of itself", &["a: &a [*a]"]),
    ("an open quote", &["a: \"x"]),
    ("an open list", &["a: [1, 2"]),
    ("a reference in a flow list, without quotes", &["a: [${env:WORD}]"]),
    ("text that begins with a percent sign", &["a: %x"]),
    ("text that begins with an at sign", &["a: @x"]),
    ("text that begins with a backtick", &["a: `x`"]),
    ("text that begins with an asterisk", &["a: *.example.com"]),
    ("a colon and a space in plain text", &["a: b: c"]),
    ("an unknown escape", &["a: \"\\d\""]),
    ("a control character", &["a: \u{1b}[31m"]),
    ("text that begins with a colon in a flow map", &["a: {endpoint: :8888}"]),
    ("a list as a key", &["? [a]\n: 1"]),
    ("a bad layer among good ones", &["a: 1", "b: [", "c: 1"]),
];

/// We take these no more than we can be sure of what agents make of them; the collector takes some of them, in its own way.
pub(crate) const REFUSED_HERE: &[(&str, &[&str], &str)] = &[
    ("two documents", &["a: 1\n---\nb: 2"], "a second document starts here"),
    ("a line break of YAML 1.1", &["a: \"x\u{85}y\""], "U+0085"),
    ("a line separator", &["a: x\u{2028}y"], "U+2028"),
    ("a colon that touches a comma", &["exporters: {nop:, debug: }"], "a space is missing behind the `:`"),
    ("a colon that touches a brace", &["exporters: {nop:}"], "a space is missing behind the `:`"),
    ("a tag that touches a comma", &["a: [!x, b]"], "a space is missing behind this tag"),
    ("a path as a key", &["a::b: 1", "a: {c: 2}"], "is a path to the collector"),
    ("a path as a key, below", &["extensions: {opamp::server: {}}"], "is a path to the collector"),
    ("an octal number as a key", &["a: {012: x}", "a: {10: y}"], "no text to the collector"),
    ("null as a key", &["a: {~: x}"], "no text to the collector"),
    ("a date as a key", &["a: {2024-01-01: x}"], "no text to the collector"),
    ("no key in a flow map", &["a: {: 1}"], "a key is missing"),
    ("text that begins with a question mark in a flow list", &["a: [?b]"], "needs quotes"),
    ("a map as a key", &["a:\n  ? {b: 1}\n  : 1"], "a map cannot be a key"),
    (
        "a key that is text in one map and a number in another",
        &["a: &a {\"200\": 1}\nb: {<<: *a, 200: 2}"],
        "no text in another",
    ),
    ("a conflict marker in a literal text", &["a: |\n  x\n<<<<<<< HEAD\n"], "conflict marker"),
    ("a NUL", &["a: x\0"], "NUL"),
];

/// The collector refuses these files; we read them as YAML says, and what agents get of them is what everybody reads.
pub(crate) const TAKEN_HERE: &[(&str, &[&str], &str)] = &[
    ("a tab behind a dash", &["a:\n  -\tb"], r##"{"a":["b"]}"##),
    ("a tab before the text of a block", &["a: |\n    \tb\n"], r##"{"a":"\tb\n"}"##),
    ("a question mark alone in a flow list", &["a: [?, b]"], r##"{"a":["?","b"]}"##),
    ("a slash with an escape, as some write JSON", &["{\"a\": \"x\\/y\"}"], r##"{"a":"x/y"}"##),
];
