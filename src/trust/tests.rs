//! Commits that `git commit -S` really made with keys of our own, whole and tampered with. The private keys are gone.

use proptest::prelude::*;

use super::*;

fn fixture(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/trust/fixtures").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn text(name: &str) -> String {
    String::from_utf8(fixture(name)).expect("text")
}

/// Noon on New Year's Day of 2025, when all of them were made.
const NOON: Timestamp = Timestamp::from_millis(1_735_732_800_000);

fn signers() -> Signers {
    Signers {
        ssh: Some(AllowedSigners::parse(&text("allowed_signers")).expect("signers")),
        openpgp: Some(Keyring::parse(&fixture("keyring.asc")).expect("keys")),
    }
}

fn judge(raw: &[u8]) -> Result<Signer, Untrusted> {
    verify(raw, NOON, &signers())
}

#[test]
fn what_git_signed_is_known_by_its_signer() {
    for (name, shown, also) in [
        ("ssh-ed25519", "ann@example.com", "SHA256:"),
        ("ssh-ecdsa", "bob@example.com", "robert@example.com"),
        ("ssh-rsa", "carl@example.com", "CARL@example.com"),
        ("pgp-ann", "ann@example.com", "14D9 B883 C5D2 5942 C410 0719 5135 5DA7 7659 1FDB"),
        ("pgp-ann", "ann@example.com", "35e9bb20c3e4118e4218a7365d5fa0cac9c692cc"),
        ("pgp-bob", "bob@example.com", "FC38FE753E2FB4A8E785B9957D17104A6872B754"),
        ("pgp-in-time", "expired@example.com", "expired@example.com"),
    ] {
        let signer = judge(&fixture(&format!("{name}.commit"))).unwrap_or_else(|error| panic!("{name} {error}"));
        assert_eq!(signer.to_string(), shown, "{name}");
        assert!(signer.is(also) || signer.key.starts_with(also), "{name}: {signer:?} is {also}");
        assert!(!signer.is("eve@example.com") && !signer.is("") && !signer.is("SHA256:"), "{name}");
    }
    let binary = Keyring::parse(&fixture("ann.gpg")).expect("a binary keyring");
    let only = Signers { ssh: None, openpgp: Some(binary) };
    assert!(verify(&fixture("pgp-ann.commit"), NOON, &only).is_ok());
}

#[test]
fn whatever_else_there_is_has_its_reason() {
    let changed = |name: &str, from: &str, to: &str| {
        let whole = text(&format!("{name}.commit"));
        let other = whole.replacen(from, to, 1);
        assert_ne!(other, whole, "{name}: {from}");
        other.into_bytes()
    };
    let is = |name: &str| fixture(&format!("{name}.commit"));
    for (raw, words, why) in [
        (is("unsigned"), "is not signed", "unsigned"),
        (is("ssh-other"), "is signed with the key SHA256:", "an unknown SSH key"),
        (is("pgp-stranger"), "the key 6BD4A298EAB4231FC4AA93A29172DDC9277A6438, which is not among", "an unknown key"),
        (is("pgp-revoked"), "of revoked@example.com, which was revoked", "a revoked key"),
        (is("pgp-too-late"), "which expired at 2025-01-02T00:00:00Z, before the signature", "an expired key"),
        (is("ssh-for-files"), "made for `file`, not for `git`", "another namespace"),
        (changed("ssh-ed25519", "Signed with", "signed with"), "was changed after it was signed", "another message"),
        (changed("pgp-ann", "Signed by", "signed by"), "was changed after it was signed", "another message"),
        (changed("ssh-rsa", "tree a", "tree b"), "was changed after it was signed", "another tree"),
        (changed("ssh-ed25519", "gpgsig -", "parent 1\ngpgsig -"), "was changed after it was signed", "a parent more"),
        (changed("ssh-ed25519", "U1NIU0lH", "U1NIU0lI"), "a broken SSH signature", "the magic of another format"),
        (changed("ssh-ed25519", "-----END", "----END"), "a broken SSH signature", "no end"),
        (changed("pgp-ann", "iIYE", "!!!!"), "a broken OpenPGP signature", "no base64"),
        (changed("pgp-ann", "BEGIN PGP SIGNATURE", "BEGIN SIGNED MESSAGE"), "X.509", "gitsign"),
        (changed("pgp-ann", "-----BEGIN PGP SIGNATURE", "hello"), "something unknown", "no armour"),
    ] {
        let error = judge(&raw).expect_err(why).to_string();
        assert!(error.contains(words), "{why}: {error}");
        assert!(error.len() < 400 && !error.contains('\n'), "{why}: {error}");
    }
    let huge =
        changed("pgp-ann", "gpgsig -", &format!("gpgsig -----BEGIN PGP SIGNATURE-----{}\n -", "A".repeat(70_000)));
    assert!(matches!(judge(&huge), Err(Untrusted::TooLarge(_))));
    for (name, setting) in [("ssh-ed25519", "--verify-allowed-signers"), ("pgp-ann", "--verify-keyring")] {
        let error = verify(&is(name), NOON, &Signers::default()).expect_err("no keys").to_string();
        assert!(error.contains(setting), "{error}");
    }
    let from_message = format!("{}\ngpgsig x", text("unsigned.commit"));
    assert_eq!(judge(from_message.as_bytes()), Err(Untrusted::Unsigned), "the message is no header");
}

#[test]
fn keys_count_for_their_time_and_their_purpose() {
    let day = |days: i64| Timestamp::from_millis(NOON.as_millis().saturating_add_signed(days * 86_400_000));
    let rsa = fixture("ssh-rsa.commit");
    for (at, words) in [
        (day(-367), "is valid only after 2024-01-01T00:00:00Z, and the commit says 2023-12-31T12:00:00Z"),
        (day(0), ""),
        (day(150), ""),
        (day(151), "was valid before 2025-06-01T00:00:00Z, and the commit says 2025-06-01T12:00:00Z"),
        (day(9_000), "was valid before"),
    ] {
        match verify(&rsa, at, &signers()) {
            Ok(_) => assert_eq!(words, "", "{at}"),
            Err(error) => {
                let error = error.to_string();
                assert!(!words.is_empty() && error.contains(words), "{at}: {error}");
            }
        }
    }
    let key = text("allowed_signers").lines().nth(1).expect("a line").to_owned();
    let key = key.split_once(' ').expect("a key").1.to_owned();
    let ed25519 = fixture("ssh-ed25519.commit");
    for (line, words) in [
        (format!("ann {key}"), ""),
        (format!("  \"ann,b c\" {key} some words"), ""),
        (format!("ann namespaces=\"git\" {key}"), ""),
        (format!("ann namespaces=\"g*,file\" {key}"), ""),
        (format!("ann namespaces=\"file\" {key}\nann {key}"), ""),
        (format!("ann namespaces=\"file\" {key}"), "its `namespaces` do not include `git`"),
        (format!("ann namespaces=\"*,!git\" {key}"), "its `namespaces` do not include `git`"),
        (format!("ann cert-authority {key}"), "not among the allowed ones"),
        (format!("ann VALID-BEFORE=\"202412312359\" {key}"), "was valid before 2024-12-31T23:59:00Z"),
    ] {
        let ssh = AllowedSigners::parse(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
        let got = verify(&ed25519, NOON, &Signers { ssh: Some(ssh), openpgp: None });
        match got {
            Ok(_) => assert_eq!(words, "", "{line}"),
            Err(error) => assert!(!words.is_empty() && error.to_string().contains(words), "{line}: {error}"),
        }
    }
}

#[test]
fn files_of_keys_that_cannot_be_used() {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMIMV7vGGOq870HjIE7bGNa3Fsupat7AuGmh+bimD41";
    for (content, words) in [
        (String::new(), "no key in it"),
        ("# nobody\n\n".to_owned(), "no key in it"),
        ("ann@example.com".to_owned(), "line 1: "),
        (format!("\n{key}"), "line 2: "),
        (format!("ann colour=\"red\" {key}"), "`colour` is no option"),
        (format!("ann valid-after=\"2025\" {key}"), "`2025` is no time"),
        (format!("ann valid-after=\"20251301\" {key}"), "is no time"),
        (format!("ann valid-after=\"20250101 {key}"), "a quote is not closed"),
        (format!(", {key}"), "begins with the principals"),
        (format!("ann {}", &key[..40]), "cannot be read"),
    ] {
        let error = AllowedSigners::parse(&content).expect_err(&content);
        assert!(error.contains(words), "{content}: {error}");
    }
    for (content, words) in [
        (b"".to_vec(), "no public key"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n".to_vec(), ""),
        (fixture("pgp-ann.commit"), ""),
        (fixture("keyring.asc")[..900].to_vec(), ""),
    ] {
        let error = Keyring::parse(&content).expect_err("no keyring");
        assert!(error.contains(words), "{error}");
    }
}

proptest! {
    #[test]
    fn garbage_is_nobodys_and_panics_nowhere(
        name in prop::sample::select(vec!["ssh-ed25519", "ssh-ecdsa", "ssh-rsa", "pgp-ann", "pgp-bob"]),
        at in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..40),
        replaced in 0..40_usize,
    ) {
        let whole = fixture(&format!("{name}.commit"));
        let at = at.index(whole.len());
        let mut other = whole.clone();
        other.splice(at..(at + replaced).min(whole.len()), bytes.iter().copied());
        let (from, to) = (commit::split(&whole), commit::split(&other));
        match judge(&other) {
            Ok(_) => {
                // What is around the signature's own letters is nobody's business (white space, a checksum): what was signed is the same.
                let payload = |split: Result<Option<commit::Signed>, Untrusted>| split.expect("readable").expect("signed").payload;
                prop_assert_eq!(payload(from), payload(to));
            }
            Err(error) => prop_assert!(error.to_string().len() < 500),
        }
        // The same letters where a whole signature is expected.
        for armour in ["SSH SIGNATURE", "PGP SIGNATURE"] {
            use base64::Engine;
            let body = base64::engine::general_purpose::STANDARD.encode(&bytes);
            let raw = format!("tree 1\ngpgsig -----BEGIN {armour}-----\n \n {body}\n -----END {armour}-----\n\nm\n");
            prop_assert!(judge(raw.as_bytes()).is_err());
        }
        let _signers = AllowedSigners::parse(&String::from_utf8_lossy(&bytes));
        let _keys = Keyring::parse(&bytes);
    }
}
