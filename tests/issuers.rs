//! JWTs in the forms that Keycloak, GitHub Actions and Kubernetes give them, with keys as they publish them; the keys are the tests' own.

mod support;

use gitamp::identity::jwt::{Issuer as Trusted, Issuers, IssuersFile};
use gitamp::identity::{Denied, Identity};
use gitamp::time::Timestamp;
use serde_json::{Value, json};
use support::issuer::Issuer;

/// When the tokens of these tests are shown: seconds since 1970.
const NOW: u64 = 1_795_000_000;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(seconds * 1_000)
}

/// The issuers of a file, all with these keys.
fn trusted(file: &str, keys: &Value) -> Issuers {
    let file = IssuersFile::parse(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let with_keys = |entry| Trusted::new(entry, &keys.to_string()).unwrap_or_else(|error| panic!("{error}"));
    Issuers(file.issuers.iter().map(with_keys).collect())
}

fn labels(identity: Result<Identity, Denied>) -> String {
    identity.map_or_else(|denied| denied.to_string(), |identity| identity.labels.to_string())
}

fn with(claims: &Value, changes: Value) -> Value {
    let mut claims = claims.clone();
    claims.as_object_mut().expect("an object").extend(changes.as_object().expect("an object").clone());
    claims
}

const KEYCLOAK: &str = "\
issuers:
  - issuer: https://sso.example.com/realms/ops
    audience: gitamp-api
    jwksFile: keys
    name: preferred_username
    email: email
    roles:
      - {role: approve, claims: {groups: [/platform/leads]}}
      - {role: operate, claims: {resource_access/gitamp-api/roles: operator, azp: [gitamp-cli, deploy-pipeline]}}
      - {role: view, claims: {realm_access/roles: [staff]}}
";

/// An access token of a person, from the device flow.
fn keycloak() -> Value {
    json!({
        "exp": NOW + 300, "iat": NOW, "auth_time": NOW - 20, "jti": "onrtdg:0b3e",
        "iss": "https://sso.example.com/realms/ops", "aud": ["gitamp-api", "account"],
        "sub": "36fa0f91-f94d-4a0c-afed-6b7d952e47da", "typ": "Bearer", "azp": "gitamp-cli",
        "sid": "2a88c258", "acr": "1", "allowed-origins": ["/*"], "scope": "openid email profile",
        "realm_access": {"roles": ["default-roles-ops", "offline_access", "uma_authorization"]},
        "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
        "email_verified": true, "name": "Lena Meyer", "preferred_username": "lena", "given_name": "Lena",
        "family_name": "Meyer", "email": "lena@example.org"
    })
}

#[test]
fn people_of_keycloak_have_the_roles_of_their_groups_realm_and_client() {
    let issuer = Issuer::rsa();
    let mut signing = issuer.key("FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE");
    (signing["x5c"], signing["x5t"], signing["x5t#S256"]) = (json!(["MIIClTCCAX0"]), json!("k9hH5"), json!("Wq3x"));
    // The realm's other key is for encryption, and of the same kind.
    let mut encryption = issuer.key("b1Lzq");
    (encryption["use"], encryption["alg"]) = (json!("enc"), json!("RSA-OAEP"));
    let issuers = trusted(KEYCLOAK, &json!({"keys": [encryption, signing]}));
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": "FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE"});
    let judged = |changes: Value| {
        let token = issuer.sign_under(&header, &with(&keycloak(), changes));
        labels(issuers.verify(&token, at(NOW)))
    };
    let lena = |role: &str| {
        format!(
            "email=lena@example.org, jwt.iss=https://sso.example.com/realms/ops, jwt.name=lena, \
             jwt.sub=36fa0f91-f94d-4a0c-afed-6b7d952e47da, role={role}"
        )
    };
    let nobody = "the token is good, and no rule of its issuer gives `lena` a role here";
    for (changes, expected) in [
        (json!({}), nobody.to_owned()),
        (json!({"groups": ["/staff", "/platform/leads"]}), lena("approve")),
        (json!({"groups": ["/platform", "platform/leads"]}), nobody.to_owned()),
        (json!({"realm_access": {"roles": ["offline_access", "staff"]}}), lena("view")),
        (json!({"resource_access": {"gitamp-api": {"roles": ["operator"]}}}), lena("operate")),
        (json!({"resource_access": {"gitamp-api": {"roles": ["operator"]}}, "azp": "grafana"}), nobody.to_owned()),
        (json!({"resource_access": {"grafana": {"roles": ["operator"]}}}), nobody.to_owned()),
        (json!({"groups": ["/platform/leads"], "aud": "gitamp-api"}), lena("approve")),
        // Without a mapper Keycloak names the client in `azp` alone.
        (
            json!({"groups": ["/platform/leads"], "aud": "account", "azp": "gitamp-api"}),
            "the token was made for another audience".to_owned(),
        ),
        (
            json!({"groups": ["/platform/leads"], "iss": "https://sso.example.com/realms/shop"}),
            "the token's issuer is not trusted here".to_owned(),
        ),
    ] {
        assert_eq!(judged(changes.clone()), expected, "{changes}");
    }
    let with_the_other = issuer.sign_under(&json!({"alg": "RS256", "kid": "b1Lzq"}), &keycloak());
    assert_eq!(issuers.verify(&with_the_other, at(NOW)), Err(Denied::Key), "a key for encryption signs nothing");
}

/// What the service account of a client is given, as Keycloak 26.0 makes it: no session, an address that nobody verified, and the client as its name.
fn service_account(client: &str) -> Value {
    json!({
        "exp": NOW + 300, "iat": NOW, "jti": "23bc3ec1-ba49-4ee8-af4c-b65265868fc2",
        "iss": "https://sso.example.com/realms/ops", "aud": ["gitamp-api", "account"],
        "sub": "b6f5e9c9-7d28-4cc9-bde5-aca58a305bb2", "typ": "Bearer", "azp": client, "acr": "1",
        "realm_access": {"roles": ["offline_access", "uma_authorization", "default-roles-ops"]},
        "resource_access": {"account": {"roles": ["manage-account", "manage-account-links", "view-profile"]}},
        "scope": "profile email", "clientHost": "127.0.0.1", "email_verified": false,
        "preferred_username": format!("service-account-{client}"), "clientAddress": "127.0.0.1", "client_id": client
    })
}

#[test]
fn service_accounts_of_keycloak_are_pipelines_by_their_role_and_agents_by_their_audience() {
    let (issuer, edwards) = (Issuer::rsa(), Issuer::new());
    let keys = json!({"keys": [issuer.key("one"), edwards.key("one")]});
    let with_role = json!({"resource_access": {"gitamp-api": {"roles": ["operator"]}}});
    let operators = trusted(KEYCLOAK, &keys);
    for signer in [&issuer, &edwards] {
        let token = signer.token(&with(&service_account("deploy-pipeline"), with_role.clone()));
        assert_eq!(
            labels(operators.verify(&token, at(NOW))),
            "jwt.iss=https://sso.example.com/realms/ops, jwt.name=service-account-deploy-pipeline, \
             jwt.sub=b6f5e9c9-7d28-4cc9-bde5-aca58a305bb2, role=operate"
        );
    }
    let another = issuer.token(&with(&service_account("grafana"), with_role));
    let refused = operators.verify(&another, at(NOW));
    assert_eq!(refused, Err(Denied::Role("service-account-grafana".to_owned())), "the role in another client's hands");
    let agents = "\
issuers:
  - issuer: https://sso.example.com/realms/ops
    audience: gitamp-agents
    jwksFile: keys
    labels: {env: env, client: client_id}
";
    let agents = trusted(agents, &keys);
    let gateway = |changes: Value| issuer.token(&with(&service_account("prod-gateways"), changes));
    let proven = agents.verify(&gateway(json!({"aud": ["gitamp-agents", "account"], "env": "prod"})), at(NOW));
    assert_eq!(
        labels(proven),
        "client=prod-gateways, env=prod, jwt.iss=https://sso.example.com/realms/ops, \
         jwt.sub=b6f5e9c9-7d28-4cc9-bde5-aca58a305bb2"
    );
    assert_eq!(agents.verify(&gateway(json!({})), at(NOW)), Err(Denied::Audience), "an operator's");
    // As the realm signs when the client asks for it.
    for algorithm in ["PS256", "ES384", "RS512", "HS512"] {
        let token = issuer.sign_under(&json!({"alg": algorithm, "kid": "one"}), &service_account("prod-gateways"));
        assert_eq!(operators.verify(&token, at(NOW)), Err(Denied::Algorithm), "{algorithm}");
    }
    let token = issuer.sign_under(&json!({"alg": "RS256", "kid": "kc4Y"}), &service_account("deploy-pipeline"));
    assert_eq!(operators.verify(&token, at(NOW)), Err(Denied::Key), "the realm has a new key, and the file does not");
}

#[test]
fn a_job_of_github_actions_is_known_by_its_repository_branch_and_environment() {
    let issuer = Issuer::rsa();
    let mut key = issuer.key("cc413527-173f-5a05-976e-9c52b1d7b431");
    (key["x5c"], key["x5t"]) = (json!(["MIIDKzCCAhOgAwIBAgIU"]), json!("ykNaY4qM_ta4k2TgZOCEYLkcYlA"));
    let rule = |claims: &str| {
        format!(
            "issuers:\n  - issuer: https://token.actions.githubusercontent.com\n    audience: gitamp-api\n    jwksFile: keys\n    \
             name: workflow_ref\n    roles: [{{role: operate, claims: {{{claims}}}}}]\n"
        )
    };
    let claims = json!({
        "jti": "b2a8e7d1", "sub": "repo:acme/fleet:ref:refs/heads/main", "aud": "gitamp-api", "ref": "refs/heads/main",
        "sha": "c040cae0f0dc81641728557b80f09cfa23b83fe5", "repository": "acme/fleet", "repository_owner": "acme",
        "repository_owner_id": "2020", "run_id": "22259804324", "run_number": "42", "run_attempt": "1",
        "repository_visibility": "private", "repository_id": "424242", "actor_id": "1001", "actor": "lena",
        "workflow": "rollout", "head_ref": "", "base_ref": "", "event_name": "push", "ref_protected": "true",
        "ref_type": "branch", "workflow_ref": "acme/fleet/.github/workflows/rollout.yaml@refs/heads/main",
        "job_workflow_ref": "acme/fleet/.github/workflows/rollout.yaml@refs/heads/main", "runner_environment": "github-hosted",
        "iss": "https://token.actions.githubusercontent.com", "nbf": NOW - 300, "exp": NOW + 300, "iat": NOW
    });
    let header = json!({"typ": "JWT", "alg": "RS256", "x5t": "ykNaY4qM_ta4k2TgZOCEYLkcYlA", "kid": "cc413527-173f-5a05-976e-9c52b1d7b431"});
    let judge = |rules: &str, changes: Value| {
        let issuers = trusted(&rule(rules), &json!({"keys": [key]}));
        issuers.verify(&issuer.sign_under(&header, &with(&claims, changes)), at(NOW))
    };
    let by_sub = "sub: repo:acme/fleet:ref:refs/heads/main";
    let by_parts = "repository: acme/fleet, ref: refs/heads/main, repository_owner_id: 2020";
    assert_eq!(
        labels(judge(by_sub, json!({}))),
        "jwt.iss=https://token.actions.githubusercontent.com, \
         jwt.name=acme/fleet/.github/workflows/rollout.yaml@refs/heads/main, jwt.sub=repo:acme/fleet:ref:refs/heads/main, role=operate"
    );
    assert!(judge(by_parts, json!({})).is_ok(), "ids are text there, and may be written as numbers");
    let production = json!({"sub": "repo:acme/fleet:environment:production", "environment": "production"});
    assert!(judge("repository: acme/fleet, environment: production", production.clone()).is_ok());
    let name = || "acme/fleet/.github/workflows/rollout.yaml@refs/heads/main".to_owned();
    for (rules, changes) in [
        (by_sub, production),
        (by_sub, json!({"sub": "repo:acme/fleet:pull_request"})),
        (by_parts, json!({"repository": "evil/fleet"})),
        (by_parts, json!({"ref": "refs/heads/main-2"})),
        (by_parts, json!({"repository_owner_id": "20200"})),
    ] {
        assert_eq!(judge(rules, changes.clone()), Err(Denied::Role(name())), "{changes}");
    }
    assert_eq!(
        judge(by_sub, json!({"aud": "https://github.com/acme"})),
        Err(Denied::Audience),
        "what it is by default"
    );
}

#[test]
fn pods_are_known_by_the_token_that_is_projected_into_them() {
    let file = "\
issuers:
  - issuer: https://kubernetes.default.svc.cluster.local
    audience: gitamp
    jwksFile: keys
    leeway: 30s
    labels:
      k8s.namespace.name: kubernetes.io/namespace
      k8s.serviceaccount.name: kubernetes.io/serviceaccount/name
      k8s.pod.name: kubernetes.io/pod/name
      k8s.node.name: kubernetes.io/node/name
";
    let issuer = Issuer::rsa();
    let issuers = trusted(file, &json!({"keys": [issuer.key("b1Lzq")]}));
    let claims = json!({
        "aud": ["gitamp"], "exp": NOW + 3_600, "iat": NOW, "iss": "https://kubernetes.default.svc.cluster.local",
        "jti": "aed34954-b33a-4142-b1ec-389d6bbb4936", "nbf": NOW, "sub": "system:serviceaccount:shop:gateway",
        "kubernetes.io": {
            "namespace": "shop", "node": {"name": "node-7", "uid": "646e7c5e"}, "pod": {"name": "gw-5c7", "uid": "5e0bd49b"},
            "serviceaccount": {"name": "gateway", "uid": "14ee3fa4"}, "warnafter": NOW + 3_000
        }
    });
    // The API server names no type.
    let header = json!({"alg": "RS256", "kid": "b1Lzq"});
    let verify = |changes: Value, now| issuers.verify(&issuer.sign_under(&header, &with(&claims, changes)), at(now));
    assert_eq!(
        labels(verify(json!({}), NOW)),
        "jwt.iss=https://kubernetes.default.svc.cluster.local, jwt.sub=system:serviceaccount:shop:gateway, \
         k8s.namespace.name=shop, k8s.node.name=node-7, k8s.pod.name=gw-5c7, k8s.serviceaccount.name=gateway"
    );
    for (now, expected) in [
        (NOW - 31, Some(Denied::NotYet(at(NOW)))),
        (NOW - 30, None),
        (NOW + 3_629, None),
        (NOW + 3_630, Some(Denied::Expired(at(NOW + 3_630)))),
    ] {
        assert_eq!(verify(json!({}), now).err(), expected, "{now}");
    }
    // Of another pod, and bound to no pod at all: what it does not say is no label.
    let unbound =
        json!({"kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "gateway", "uid": "14ee3fa4"}}});
    assert!(!labels(verify(unbound, NOW)).contains("k8s.pod.name"));
    let of_the_api = json!({"aud": ["https://kubernetes.default.svc.cluster.local"]});
    assert_eq!(verify(of_the_api, NOW).err(), Some(Denied::Audience), "the one that every pod has");
    let several = json!({"aud": ["vault", "gitamp"]});
    assert!(verify(several, NOW).is_ok());
    // One that never ends, as clusters made them before 1.24.
    let mut legacy = claims.clone();
    legacy.as_object_mut().expect("an object").remove("exp");
    let refused = issuers.verify(&issuer.sign_under(&header, &legacy), at(NOW));
    assert_eq!(refused.err(), Some(Denied::Malformed("it has no `exp`")));
}

#[test]
fn keys_are_replaced_one_after_the_other_and_others_beside_them_are_passed_over() {
    let (old, new, newest) = (Issuer::rsa(), Issuer::p256(), Issuer::new());
    let claims = json!({"iss": "https://a", "aud": "b", "sub": "x", "exp": NOW + 60});
    let file = "issuers: [{issuer: https://a, audience: b, jwksFile: keys}]";
    let token = |issuer: &Issuer, id: &str| issuer.sign_under(&json!({"alg": issuer.algorithm(), "kid": id}), &claims);
    let tokens = [token(&old, "2025"), token(&new, "2026"), token(&newest, "2027")];
    let (mut signs, mut wraps) = (newest.key("2027"), new.key("2026"));
    (signs["key_ops"], wraps["key_ops"]) = (json!(["verify"]), json!(["wrapKey"]));
    let foreign = [
        json!({"kty": "OKP", "crv": "Ed448", "x": "AA", "kid": "2026"}),
        json!({"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA", "kid": "2026", "alg": "ES384"}),
        json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}),
        json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA", "kid": "2026"}),
        json!({"kty": "RSA", "alg": "RSA-OAEP-256", "use": "enc", "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "OKP", "crv": "X25519", "x": "3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08"}),
        json!({"kty": "RSA", "n": 7, "e": null}),
        json!({"crv": "P-256"}),
        json!({"kty": ["EC"], "kid": {}}),
        json!("a text"),
        wraps,
    ];
    for (keys, good) in [
        (vec![old.key("2025")], [true, false, false]),
        (vec![old.key("2025"), new.key("2026")], [true, true, false]),
        (vec![new.key("2026"), signs], [false, true, true]),
    ] {
        let all: Vec<Value> = foreign.iter().cloned().chain(keys).collect();
        let issuers = trusted(file, &json!({"keys": all}));
        let judged = [0, 1, 2].map(|at_token: usize| issuers.verify(&tokens[at_token], at(NOW)).is_ok());
        assert_eq!(judged, good);
    }
    // A token of one key under the name of the other.
    let issuers = trusted(file, &json!({"keys": [old.key("2025"), new.key("2026")]}));
    assert_eq!(issuers.verify(&token(&new, "2025"), at(NOW)), Err(Denied::Key), "of another algorithm");
    let error =
        Trusted::new(&IssuersFile::parse(file).expect("a file").issuers[0], &json!({"keys": foreign}).to_string())
            .expect_err("none of them");
    assert!(error.contains("no key for signatures in it"), "{error}");
}
