//! Files of this machine, and its environment.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gitamp::alert::store::Store;
use gitamp::clock::Clock;
use gitamp::identity::jwt::{Issuer, Issuers, IssuersFile};
use gitamp::identity::tokens::{TokenFile, Tokens};
use gitamp::incident::desk::Desk;
use gitamp::incident::find::Limits;
use gitamp::incident::watch::Watch;
use gitamp::serve::api::{Api, ApiOptions, ApiRules};
use gitamp::settings::layers::{self, ServeArgs};
use gitamp::settings::{ApiLimits, ApiSettings, ProofSettings, Settings};
use tokio::sync::mpsc;

use super::{NOON, is_harmless, parts};

/// The keys of an issuer.
const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// Whether operators can be known by these files; what is wrong with them is told in one line.
fn operators(tokens: Option<&Path>, issuers: Option<&Path>) {
    let proofs = ProofSettings { tokens: tokens.map(Path::to_owned), issuers: issuers.map(Path::to_owned) };
    let (listen, limits) = (([127, 0, 0, 1], 1).into(), ApiLimits::default());
    let files = ApiSettings { listen, tls: None, proofs, self_approval: false, limits };
    let options =
        ApiOptions { files, hosts: Vec::new(), clock: Clock::start_at(NOON), metrics: Arc::default(), agents: None };
    if let Err(error) = Api::open(options, ApiRules::of(&limits), mpsc::channel(1).0) {
        let why = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        assert!(is_harmless(&error.to_string()) && is_harmless(&why), "{error}: {why}");
    }
}

/// Files of this machine, each behind a line `=== kind`: of tokens, of issuers, of an issuer's keys, of those of operators, of settings with
/// variables of the environment beside them, of what alerts remember.
pub fn local_files(input: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory");
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let mut variables = BTreeMap::from([("HOME", "/nonexistent")].map(own));
    for (kind, content) in parts(input).into_iter().take(8) {
        let text = String::from_utf8_lossy(content);
        match kind {
            "tokens" => {
                if let Ok(file) = TokenFile::parse(&text) {
                    let _known = Tokens::new(&file).find(&[7; 32]);
                    let written = file.render().expect("what was read can be written");
                    assert_eq!(TokenFile::parse(&written), Ok(file), "{written}");
                }
            }
            "issuers" => {
                for entry in IssuersFile::parse(&text).map(|file| file.issuers).unwrap_or_default() {
                    let _issuer = Issuer::new(&entry, KEYS);
                }
            }
            "jwks" => {
                let file = IssuersFile::parse("issuers: [{issuer: a, audience: b, jwksFile: c}]").expect("a file");
                if let Ok(issuer) = Issuer::new(&file.issuers[0], &text) {
                    let claims = URL_SAFE_NO_PAD.encode(r#"{"iss":"a","aud":"b","exp":1735740000}"#);
                    for algorithm in ["RS256", "ES256", "EdDSA"] {
                        let head = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}"}}"#));
                        let token = format!("{head}.{claims}.{}", URL_SAFE_NO_PAD.encode([1; 64]));
                        // Its keys are foreign here, and nobody signed this with any of them.
                        assert!(
                            Issuers(vec![Issuer::new(&file.issuers[0], &text).expect("the same")])
                                .verify(&token, NOON)
                                .is_err()
                        );
                    }
                    let _is_known = issuer.has(&[7; 32]);
                }
            }
            "settings" => {
                let path = directory.path().join("gitamp.yaml");
                std::fs::write(&path, content).expect("a file");
                let _read = layers::read_file(&path);
                let args = ServeArgs { config: Some(path), ..ServeArgs::default() };
                let _said = Settings::load_with(&args, variables.clone()).map_err(|error| error.to_string());
            }
            "environment" => {
                variables.extend(text.lines().filter_map(|line| line.split_once('=')).map(own));
                let _said =
                    Settings::load_with(&ServeArgs::default(), variables.clone()).map_err(|error| error.to_string());
            }
            "operators" => {
                let path = directory.path().join("operators.yaml");
                std::fs::write(&path, content).expect("a file");
                operators(Some(&path), None);
            }
            "operator-issuers" => {
                let path = directory.path().join("operator-issuers.yaml");
                std::fs::write(&path, content).expect("a file");
                std::fs::write(directory.path().join("keys.json"), KEYS).expect("a file");
                operators(None, Some(&path));
            }
            "alerts" => {
                std::fs::write(directory.path().join("alerts.json"), content).expect("a file");
                let (store, _warning) = Store::open(directory.path());
                let limits = Limits { waits_too_long: Duration::from_secs(60), stale_after: Duration::from_secs(60) };
                let watch = Watch::new("default", limits, store.incidents(), NOON);
                let desk = Desk::new(Some(Duration::from_secs(60)), store.told("ops"), NOON);
                let _next = (desk.next(&watch.incidents(), NOON), watch.outdated(NOON), watch.memory());
            }
            _ => {}
        }
    }
}
